//! What one field of a frame event may hold.

use chrono::{DateTime, Utc};

use super::Text;
use crate::domain::rejection::{Rejection, RejectionCode};

/// Longest accepted identifier, in characters. Ids become keys, file names and log fields.
const MAX_ID_CHARS: usize = 128;

pub(super) fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionCode::SchemaInvalid, message)
}

/// Identifiers are printable ASCII without spaces: a value with spaces tends to be a name.
pub(super) fn id(field: &str, value: &str) -> Result<(), Rejection> {
    let fits = !value.is_empty() && value.len() <= MAX_ID_CHARS;
    if fits && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    // The value is not repeated: it may be what must not be logged.
    Err(invalid(format!("{field} is not 1 to {MAX_ID_CHARS} printable ASCII characters without spaces")))
}

pub(super) fn short(field: &str, value: &str) -> Result<(), Rejection> {
    if (1..=MAX_ID_CHARS).contains(&value.chars().count()) {
        return Ok(());
    }
    Err(invalid(format!("{field} is not 1 to {MAX_ID_CHARS} characters")))
}

pub(super) fn clock(field: &str, value: Option<&Text<'_>>) -> Result<DateTime<Utc>, Rejection> {
    let Some(Text(text)) = value else {
        return Err(Rejection::new(RejectionCode::ClockMissing, format!("{field} is missing")));
    };
    match is_plain_rfc3339(text).then(|| DateTime::parse_from_rfc3339(text)) {
        Some(Ok(time)) => Ok(time.with_timezone(&Utc)),
        _ => Err(invalid(format!(
            "{field} is not an RFC 3339 time of this century such as 2026-01-31T08:30:00Z"
        ))),
    }
}

/// The schema's pattern: capital `T` and `Z`, seconds, at most nine decimals, an offset, no leap
/// second, and a year 20xx. Years before come from clocks that were never set (0001, 1970), and would
/// make a frame look far too late instead of wrong. The calendar is left to chrono.
fn is_plain_rfc3339(text: &str) -> bool {
    let shape = |bytes: &[u8], shape: &[u8]| {
        bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, expected)| match expected {
                b'0' => byte.is_ascii_digit(),
                _ => byte == expected,
            })
    };
    let Some((seconds, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let decimals = match rest.strip_prefix(b".") {
        Some(rest) => rest.iter().take_while(|byte| byte.is_ascii_digit()).count().clamp(1, 9) + 1,
        None => 0,
    };
    let Some((fraction, offset)) = rest.split_at_checked(decimals) else { return false };
    seconds.starts_with(b"20")
        && shape(seconds, b"0000-00-00T00:00:00")
        && !seconds.ends_with(b"60")
        && fraction.iter().skip(1).all(u8::is_ascii_digit)
        && (offset == b"Z" || shape(offset, b"+00:00") || shape(offset, b"-00:00"))
}

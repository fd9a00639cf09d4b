//! What one field of a frame event may hold.

use chrono::{DateTime, Utc};

use super::Text;
use crate::domain::rejection::{Rejection, RejectionCode};
use crate::domain::wire::{MAX_ID_CHARS, is_id, time};

pub(super) fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionCode::SchemaInvalid, message)
}

/// Identifiers are printable ASCII without spaces: a value with spaces tends to be a name.
pub(super) fn id(field: &str, value: &str) -> Result<(), Rejection> {
    if is_id(value) {
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
    time(text).ok_or_else(|| {
        invalid(format!("{field} is not an RFC 3339 time of this century such as 2026-01-31T08:30:00Z"))
    })
}

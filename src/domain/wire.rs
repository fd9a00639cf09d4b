//! Readers that make serde's idea of JSON that of JSON Schema, so that a producer in any language
//! may rely on the schema alone.

use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// Largest whole number that every JSON reader keeps exactly, 2^53 - 1.
const MAX_WHOLE: u64 = 9_007_199_254_740_991;
/// Longest accepted identifier, in characters. Ids become keys, file names and log fields.
pub(super) const MAX_ID_CHARS: usize = 128;

/// A whole number from 0. `3.0` is one for JSON Schema, and is what many numeric tools write.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a whole number from 0")
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }

        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "within 0 and 2^53 - 1 and without a fraction the conversion is exact"
        )]
        fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
            if value.fract() == 0.0 && (0.0..=MAX_WHOLE as f64).contains(&value) {
                return Ok(value as u64);
            }
            Err(E::custom(format!("{value} is not a whole number from 0")))
        }
    }

    let value = deserializer.deserialize_u64(Whole)?;
    let fitting = (value <= MAX_WHOLE).then(|| T::try_from(value).ok()).flatten();
    fitting.ok_or_else(|| D::Error::custom(format!("{value} is too large")))
}

/// An optional field that is absent or has a value; null is neither.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A JSON object; a derived reader would take an array of the fields in order as well.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Object(PhantomData))
}

/// Whether text is an identifier: printable ASCII without spaces, because a value with spaces tends to be a name.
pub(super) fn is_id(text: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An RFC 3339 time, as the schemas' pattern has it.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = is_plain_rfc3339(text).then(|| DateTime::parse_from_rfc3339(text))?;
    Some(time.ok()?.with_timezone(&Utc))
}

/// The schemas' pattern: capital `T` and `Z`, seconds, at most nine decimals, an offset, no leap
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

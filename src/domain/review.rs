//! The review event: the grade that an embryologist gives, beside the summary that was on the table.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::grade::{Expansion, Letter, gardner};
use super::label::label_enum;
use super::rejection::{Rejection, RejectionCode};
use super::wire::{is_id, object, present, time, whole};

/// CloudEvents `type` of a review event.
pub const REVIEW_EVENT_TYPE: &str = "org.memebg.embryo.review.v1";
/// Longest pseudonym of a reviewer, in characters.
const MAX_REVIEWER_CHARS: usize = 64;

label_enum! {
    /// Why there is a review. An enumeration, because free text is where names of patients end up.
    ReviewReason {
        /// Every embryo is reviewed, or this one as a sample.
        Routine = "routine",
        /// The expansion was wrong.
        WrongExpansion = "wrong_expansion",
        /// The inner cell mass was wrong.
        WrongIcm = "wrong_icm",
        /// The trophectoderm was wrong.
        WrongTe = "wrong_te",
        /// The photographs do not show enough.
        PoorImage = "poor_image",
        /// Anything else.
        Other = "other",
    }
}

/// The summary that was on the table when the review was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewedSummary {
    /// Its version.
    #[serde(deserialize_with = "whole")]
    pub version: u64,
    /// Its Gardner string; none when no frame was graded.
    // Null says so; a field that is missing says nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    pub gardner: Option<String>,
    /// SHA-256 of the manifest of the model behind it; of several, of the last one that it lists.
    pub model_digest: String,
}

/// What an embryologist says of one embryo. Its id and its Gardner string follow from the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Opaque pseudonym of the embryo; the Kafka key.
    pub embryo_id: String,
    /// The clinic or laboratory.
    pub site_id: String,
    /// Pseudonym of the reviewer, never a name.
    pub reviewer: String,
    /// When the grade was given.
    pub reviewed_at: DateTime<Utc>,
    /// Whether it was given before ours was seen.
    pub blinded: bool,
    /// Expansion.
    pub exp: Expansion,
    /// Inner cell mass; present exactly from expansion 3 on.
    pub icm: Option<Letter>,
    /// Trophectoderm; present exactly from expansion 3 on.
    pub te: Option<Letter>,
    /// Why there is a review.
    pub reason: ReviewReason,
    /// What was on the table.
    pub summary: ReviewedSummary,
}

/// A review as it is on the wire: `schemas/review.v1.schema.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    id: String,
    embryo_id: String,
    site_id: String,
    reviewer: String,
    reviewed_at: String,
    blinded: bool,
    #[serde(deserialize_with = "whole")]
    exp: u8,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    icm: Option<Letter>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    te: Option<Letter>,
    gardner: String,
    reason: ReviewReason,
    #[serde(deserialize_with = "object")]
    summary: ReviewedSummary,
}

impl Review {
    /// Reads the value of a review event.
    ///
    /// # Errors
    /// When it is not JSON or contradicts its schema. The message repeats no value that may be a name.
    pub fn parse(json: &[u8]) -> Result<Self, Rejection> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let unreadable = |error: &serde_json::Error| Rejection::unreadable("a review event", error);
        let wire: Wire = object(&mut reader).map_err(|error| unreadable(&error))?;
        reader.end().map_err(|error| unreadable(&error))?;
        let review = Self {
            embryo_id: wire.embryo_id,
            site_id: wire.site_id,
            reviewer: wire.reviewer,
            reviewed_at: time(&wire.reviewed_at)
                .ok_or_else(|| invalid("reviewed_at is not an RFC 3339 time of this century"))?,
            blinded: wire.blinded,
            exp: Expansion::try_from(wire.exp).map_err(invalid)?,
            icm: wire.icm,
            te: wire.te,
            reason: wire.reason,
            summary: wire.summary,
        };
        review.validate()?;
        if wire.gardner != review.gardner() {
            return Err(invalid(format!("gardner is not {}, what exp, icm and te say", review.gardner())));
        }
        if wire.id != review.id() {
            return Err(invalid(format!("id is not {}, that of its content", review.id())));
        }
        Ok(review)
    }

    /// Checks what the types do not: whoever builds a review calls this before it is sent.
    ///
    /// # Errors
    /// `schema_invalid` with the field that cannot be.
    pub fn validate(&self) -> Result<(), Rejection> {
        let id = |field: &str, value: &str| {
            let message =
                || invalid(format!("{field} is not 1 to 128 printable ASCII characters without spaces"));
            is_id(value).then_some(()).ok_or_else(message)
        };
        id("embryo_id", &self.embryo_id)?;
        id("site_id", &self.site_id)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=MAX_REVIEWER_CHARS).contains(&self.reviewer.len()) || !self.reviewer.bytes().all(plain) {
            return Err(invalid(
                "reviewer is not a pseudonym of 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen",
            ));
        }
        let letters = self.exp.has_letters();
        if self.icm.is_some() != letters || self.te.is_some() != letters {
            return Err(invalid("icm and te are to be given from expansion 3 on, and only there"));
        }
        if self.summary.version == 0 {
            return Err(invalid("summary.version is not 1 or higher"));
        }
        if self.summary.gardner.as_deref().is_some_and(|gardner| !is_gardner(gardner)) {
            return Err(invalid("summary.gardner is not a Gardner grade such as 4AB or 2, or null"));
        }
        let digest = &self.summary.model_digest;
        if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid("summary.model_digest is not 64 lower-case hexadecimal digits"));
        }
        Ok(())
    }

    /// Refuses a review of the future: it would be the newest for ever.
    ///
    /// # Errors
    /// `clock_in_future` when it was made later than `now`, give or take the tolerance.
    pub fn check_clock(&self, now: DateTime<Utc>, tolerance_seconds: i64) -> Result<(), Rejection> {
        if self.reviewed_at <= now + TimeDelta::seconds(tolerance_seconds) {
            return Ok(());
        }
        let message = format!("reviewed_at {} is later than now, {now}", self.reviewed_at);
        Err(Rejection::new(RejectionCode::ClockInFuture, message))
    }

    /// Deterministic id: the same grade of the same embryo by the same reviewer at the same time is one review,
    /// however often it is posted. SHA-256 over `embryo_id`, `reviewer`, `reviewed_at` in UTC with nine decimals and
    /// the Gardner string, each preceded by its length as eight bytes, highest first.
    #[must_use]
    pub fn id(&self) -> String {
        let reviewed_at = self.reviewed_at.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let mut hasher = Sha256::new();
        for part in [&self.embryo_id, &self.reviewer, &reviewed_at, &self.gardner()] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// The Gardner string.
    #[must_use]
    pub fn gardner(&self) -> String {
        gardner(self.exp, self.icm, self.te)
    }

    /// The value of its event.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Wire {
            id: self.id(),
            embryo_id: self.embryo_id.clone(),
            site_id: self.site_id.clone(),
            reviewer: self.reviewer.clone(),
            reviewed_at: self.reviewed_at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            blinded: self.blinded,
            exp: self.exp.into(),
            icm: self.icm,
            te: self.te,
            gardner: self.gardner(),
            reason: self.reason,
            summary: self.summary.clone(),
        })
    }
}

/// As the schema has it: a digit alone may be one of which no frame had letters.
fn is_gardner(text: &str) -> bool {
    let letter = |byte: &u8| (b'A'..=b'C').contains(byte);
    match text.as_bytes() {
        [b'1'..=b'6'] => true,
        [b'3'..=b'6', icm, te] => letter(icm) && letter(te),
        _ => false,
    }
}

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionCode::SchemaInvalid, message)
}

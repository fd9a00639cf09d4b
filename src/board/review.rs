//! From the form of a reviewer to a review event.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::wall::Wall;
use crate::domain::{Expansion, Letter, Rejection, Review, ReviewReason};

/// Most bytes of a form.
pub const MAX_FORM_BYTES: usize = 4_096;

/// What the page sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    embryo_id: String,
    reviewer: String,
    exp: u8,
    #[serde(default)]
    icm: Option<Letter>,
    #[serde(default)]
    te: Option<Letter>,
    reason: ReviewReason,
    /// Whether ours was hidden when the grade was given.
    blinded: bool,
    /// The summary that was on the table, hidden or not.
    summary_version: u64,
}

/// Why there is no review.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReview {
    /// The form is not one.
    #[error("{0}")]
    Form(String),
    /// There is no such embryo.
    #[error("this embryo is not on the board any more: go back to the wall")]
    Embryo,
    /// There is no such summary.
    #[error("the board does not know version {0} of this embryo's summary: open the review again")]
    Version(u64),
}

/// The review that a form is about, not sent yet.
///
/// # Errors
/// Why there is none. No message repeats what was typed.
pub fn review(json: &[u8], wall: &Wall, now: DateTime<Utc>) -> Result<Review, NoReview> {
    // The text of serde repeats values.
    let form: Form = serde_json::from_slice(json)
        .map_err(|error| NoReview::Form(Rejection::unreadable("a review form", &error).message))?;
    let embryo = wall.embryo(&form.embryo_id).ok_or(NoReview::Embryo)?;
    let summary = embryo.on_the_table(form.summary_version);
    let review = Review {
        site_id: embryo.place.site_id.clone(),
        summary: summary.ok_or(NoReview::Version(form.summary_version))?.clone(),
        embryo_id: form.embryo_id,
        reviewer: form.reviewer,
        reviewed_at: now,
        blinded: form.blinded,
        exp: Expansion::try_from(form.exp).map_err(NoReview::Form)?,
        icm: form.icm,
        te: form.te,
        reason: form.reason,
    };
    review.validate().map_err(|rejection| NoReview::Form(rejection.message))?;
    Ok(review)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::wall::tests::summary;

    fn reviewed(form: &serde_json::Value) -> Result<Review, NoReview> {
        let mut wall = Wall::new(10, 10);
        for version in 1..=3 {
            wall.summary(summary("e", version), Utc::now());
        }
        review(form.to_string().as_bytes(), &wall, "2026-03-02T10:00:00Z".parse().unwrap())
    }

    fn form() -> serde_json::Value {
        serde_json::json!({"embryo_id": "e", "reviewer": "rev-7", "exp": 4, "icm": "A", "te": "B",
            "reason": "routine", "blinded": true, "summary_version": 2})
    }

    fn with(field: &str, value: serde_json::Value) -> Result<Review, NoReview> {
        let mut form = form();
        form[field] = value;
        reviewed(&form)
    }

    #[test]
    fn a_form_becomes_a_review_of_the_summary_that_was_on_the_table() {
        let review = reviewed(&form()).unwrap();
        assert_eq!((review.summary.version, review.gardner(), review.blinded), (2, "4AB".into(), true));
        assert_eq!(review.site_id, "south");
        assert_eq!(Review::parse(&review.to_json().unwrap()), Ok(review));
    }

    #[test]
    fn what_is_no_review_is_refused_and_not_repeated() {
        for (field, value) in [
            ("exp", 7.into()),
            ("exp", 2.into()),
            ("icm", serde_json::Value::Null),
            ("reviewer", "Ada Invented".into()),
            ("reviewer", "".into()),
            ("reason", "Ada Invented".into()),
            ("comment", "Ada Invented".into()),
            ("blinded", serde_json::Value::Null),
        ] {
            match with(field, value) {
                Err(NoReview::Form(message)) => assert!(!message.contains("Ada"), "{message}"),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert_eq!(with("embryo_id", "f".into()), Err(NoReview::Embryo));
        assert_eq!(with("summary_version", 4.into()), Err(NoReview::Version(4)));
    }
}

//! What one grade event adds to a summary, in whole numbers.
//!
//! # Which one wins when a frame was graded twice
//! The greater one in the order of the fields of [`Contribution`]: a trained model before an untrained one,
//! then the higher version of the model, then its name and digest, then the higher version of memebg, then the
//! id and the rest of the content. It depends on what the events say and not on when they came.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::grade::{Expansion, GradeClass, HeadGrade, Letter};
use crate::domain::grade_event::{AbstainReason, GradeEvent, GradeStatus, ModelIdentity};
use crate::domain::rejection::{Rejection, RejectionCode};
use crate::domain::wire::is_id;

/// Probabilities are kept in this many parts of one: grade events carry four decimals.
pub(super) const PARTS: f64 = 10_000.0;
/// How far from one the probabilities of a head may be; six rounded ones are off by 0.0003.
const MAX_SUM_ERROR_PARTS: u32 = 100;

/// What one head says of one frame, in ten-thousandths, in class order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(bound = "G: Serialize + serde::de::DeserializeOwned")]
pub struct Vote<G> {
    /// The class that the head decided for.
    pub grade: G,
    /// Calibrated probabilities of all classes.
    pub parts: Vec<u16>,
}

impl<G: GradeClass> Vote<G> {
    fn of(head: &HeadGrade<G>) -> Result<Self, Rejection> {
        let parts = head.probabilities.iter().map(|(_, probability)| {
            let parts = (probability * PARTS).round();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
            (0.0..=PARTS).contains(&parts).then_some(parts as u16)
        });
        let vote = Self { grade: head.grade, parts: parts.collect::<Option<_>>().ok_or_else(no_share)? };
        vote.is_sound().then_some(vote).ok_or_else(no_share)
    }

    pub(super) fn is_sound(&self) -> bool {
        let sum: u32 = self.parts.iter().map(|parts| u32::from(*parts)).sum();
        self.parts.len() == G::ALL.len() && sum.abs_diff(10_000) <= MAX_SUM_ERROR_PARTS && self.weight() > 0
    }

    /// How much it counts: the probability of its grade.
    pub(super) fn weight(&self) -> u64 {
        let class = G::ALL.iter().position(|class| *class == self.grade);
        class.and_then(|class| self.parts.get(class)).map_or(0, |parts| u64::from(*parts))
    }
}

fn no_share() -> Rejection {
    invalid("probabilities of a head are not within 0 and 1 with a sum of 1")
}

fn invalid(message: &str) -> Rejection {
    Rejection::new(RejectionCode::SchemaInvalid, message)
}

/// What one grade event says. Its order decides which of two about one frame counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Contribution {
    pub(super) trained: bool,
    pub(super) model_version: Version,
    pub(super) model_name: String,
    pub(super) model_digest: String,
    pub(super) pipeline_version: Version,
    pub(super) grade_id: String,
    pub(super) centi_hpi: u32,
    pub(super) reasons: Vec<AbstainReason>,
    /// Absent when there is no grade.
    pub(super) exp: Option<Vote<Expansion>>,
    pub(super) icm: Option<Vote<Letter>>,
    pub(super) te: Option<Vote<Letter>>,
}

impl Contribution {
    pub(super) fn of(event: &GradeEvent) -> Result<Self, Rejection> {
        let graded = event.status == GradeStatus::Graded;
        if graded != event.reasons.is_empty() || (graded && event.heads.is_none()) {
            return Err(invalid("status, reasons and heads contradict each other"));
        }
        let heads = event.heads.as_ref().filter(|_| graded);
        let letters = heads.is_some_and(|heads| heads.exp.grade.has_letters());
        let letter = |head: Option<&HeadGrade<Letter>>| head.filter(|_| letters).map(Vote::of).transpose();
        let mut reasons = event.reasons.clone();
        reasons.sort_unstable();
        reasons.dedup();
        Ok(Self {
            trained: !event.model.untrained,
            model_version: Version(event.model.version.clone()),
            model_name: event.model.name.clone(),
            model_digest: event.model.digest.clone(),
            pipeline_version: Version(event.pipeline_version.clone()),
            grade_id: event.id.as_str().to_owned(),
            centi_hpi: centi(event.hpi),
            reasons,
            exp: heads.map(|heads| Vote::of(&heads.exp)).transpose()?,
            icm: letter(heads.and_then(|heads| heads.icm.as_ref()))?,
            te: letter(heads.and_then(|heads| heads.te.as_ref()))?,
        })
    }

    pub(super) fn model(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.model_name.clone(),
            version: self.model_version.0.clone(),
            digest: self.model_digest.clone(),
            untrained: !self.trained,
        }
    }
}

/// Where an embryo lay when, greatest last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub(super) centi_hpi: u32,
    pub(super) captured_at: DateTime<Utc>,
    pub(super) site_id: String,
    pub(super) slide_id: Option<String>,
    pub(super) dish_id: Option<String>,
    pub(super) well: u32,
}

impl Place {
    pub(super) fn of(event: &GradeEvent) -> Result<Self, Rejection> {
        if !is_id(&event.embryo_id) {
            return Err(invalid("embryo_id is not 1 to 128 printable ASCII characters without spaces"));
        }
        // A thousand days: beyond any culture, and what still fits.
        if !(0.0..=24_000.0).contains(&event.hpi) {
            return Err(invalid("hpi is not within 0 and 24000"));
        }
        Ok(Self {
            centi_hpi: centi(event.hpi),
            captured_at: event.captured_at,
            site_id: event.site_id.clone(),
            slide_id: event.slide_id.clone(),
            dish_id: event.dish_id.clone(),
            well: event.well,
        })
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "hours of a culture; `as` saturates"
)]
pub(super) fn centi(hpi: f64) -> u32 {
    (hpi * 100.0).round() as u32
}

/// A version such as 1.10.0-rc.1: numbers count as numbers, and a release comes after its candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version(pub(super) String);

impl Version {
    /// Numbers, then whether it is a release, then what marks the candidate.
    fn key(&self) -> (Vec<Part<'_>>, bool, Vec<Part<'_>>) {
        let (release, candidate) =
            self.0.split_once('-').map_or((self.0.as_str(), None), |(a, b)| (a, Some(b)));
        let parts = |text| str::split(text, ['.', '+']).map(Part::of).collect();
        (parts(release), candidate.is_none(), candidate.map(parts).unwrap_or_default())
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // The text itself last: only equal texts are equal.
        self.key().cmp(&other.key()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Text(&'a str),
    Number(u64),
}

impl<'a> Part<'a> {
    fn of(text: &'a str) -> Self {
        text.parse().map_or(Self::Text(text), Self::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_versions_count_as_numbers_and_a_release_follows_its_candidates() {
        let rising = ["0.9.0", "0.10.0-rc.2", "0.10.0-rc.10", "0.10.0", "0.10.1", "1.0", "1.0.0"];
        let versions = rising.map(|text| Version(text.to_owned()));
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    }
}

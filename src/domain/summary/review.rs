//! What embryologists have said of an embryo, beside what the frames say.
//!
//! A set, like the frames: the newest review counts (by `reviewed_at`, then by id), whatever came last.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::event::EmbryoSummary;
use super::{Effect, Embryo};
use crate::domain::grade::{Expansion, GradeClass, Letter};
use crate::domain::grade_event::Heads;
use crate::domain::label::label_enum;
use crate::domain::review::{Review, ReviewReason};

/// Most reviews of one embryo that are known; of more, the newest.
pub(super) const MAX_REVIEWS: usize = 100;

label_enum! {
    /// How far a summary may be relied upon.
    SummaryAssessment {
        /// Not reviewed by an embryologist.
        Preliminary = "preliminary",
        /// Reviewed: the embryologist gave the Gardner grade that the summary has.
        Final = "final",
        /// Reviewed: the embryologist gave another one, or the summary has none.
        Amended = "amended",
    }
}

/// A review that has been taken in. The order is that of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownReview {
    /// When the grade was given.
    pub reviewed_at: DateTime<Utc>,
    /// Id of the review event.
    pub id: String,
}

/// The newest review.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SummaryReview {
    /// Id of the review event.
    pub id: String,
    /// Pseudonym of the reviewer.
    pub reviewer: String,
    /// When the grade was given.
    pub reviewed_at: DateTime<Utc>,
    /// Whether it was given before ours was seen.
    pub blinded: bool,
    /// Why there is a review.
    pub reason: ReviewReason,
    /// The reviewer's Gardner string.
    pub gardner: String,
    /// Expansion.
    pub exp: Expansion,
    /// Inner cell mass, from expansion 3 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icm: Option<Letter>,
    /// Trophectoderm, from expansion 3 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub te: Option<Letter>,
}

impl SummaryReview {
    fn of(review: &Review) -> Self {
        Self {
            id: review.id(),
            reviewer: review.reviewer.clone(),
            reviewed_at: review.reviewed_at,
            blinded: review.blinded,
            reason: review.reason,
            gardner: review.gardner(),
            exp: review.exp,
            icm: review.icm,
            te: review.te,
        }
    }

    fn known(&self) -> KnownReview {
        KnownReview { reviewed_at: self.reviewed_at, id: self.id.clone() }
    }
}

/// The reviews of one embryo.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reviews {
    known: BTreeSet<KnownReview>,
    newest: Option<SummaryReview>,
}

impl Reviews {
    /// Goes on from a published summary.
    pub(super) fn restore(summary: &EmbryoSummary) -> Result<Self, String> {
        let known: BTreeSet<_> = summary.known_reviews.iter().cloned().collect();
        let newest = summary.review.clone();
        if newest.as_ref().map(SummaryReview::known).as_ref() != known.last() {
            return Err("its review is not the newest of its known_reviews".into());
        }
        Ok(Self { known, newest })
    }

    /// Returns whether it says something new.
    fn add(&mut self, review: &Review) -> bool {
        let given = SummaryReview::of(review);
        let this = given.known();
        if !self.known.insert(this.clone()) {
            // An id does not cover everything. Of two with the same one the lesser counts, which claims not to have
            // been blinded: one of them has to, whichever came first.
            let lesser = self.newest.as_mut().filter(|newest| newest.known() == this && given < **newest);
            return lesser.map(|newest| *newest = given).is_some();
        }
        if self.known.len() > MAX_REVIEWS && self.known.pop_first().as_ref() == Some(&this) {
            return false;
        }
        if self.known.last() == Some(&this) {
            self.newest = Some(given);
        }
        true
    }

    pub(super) fn newest(&self) -> Option<&SummaryReview> {
        self.newest.as_ref()
    }

    pub(super) fn known(&self) -> Vec<KnownReview> {
        self.known.iter().cloned().collect()
    }

    pub(super) fn assessment(&self, gardner: Option<&str>) -> SummaryAssessment {
        match &self.newest {
            None => SummaryAssessment::Preliminary,
            Some(review) if Some(review.gardner.as_str()) == gardner => SummaryAssessment::Final,
            Some(_) => SummaryAssessment::Amended,
        }
    }
}

/// A reviewer's grade beside that of the summary: per head the number of the class, from 0, of the summary and of
/// the reviewer; none where one of them gave no grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Whether the Gardner grades are the same.
    pub agreed: bool,
    /// Expansion.
    pub exp: Option<(usize, usize)>,
    /// Inner cell mass.
    pub icm: Option<(usize, usize)>,
    /// Trophectoderm.
    pub te: Option<(usize, usize)>,
}

impl Comparison {
    fn new(
        heads: Option<&Heads>,
        gardner: &str,
        (exp, icm, te): (Expansion, Option<Letter>, Option<Letter>),
    ) -> Self {
        let icm_of = |heads: &Heads| heads.icm.as_ref().map(|head| head.grade);
        let te_of = |heads: &Heads| heads.te.as_ref().map(|head| head.grade);
        Self {
            agreed: heads.is_some_and(|heads| heads.gardner() == gardner),
            exp: pair(heads.map(|heads| heads.exp.grade), Some(exp)),
            icm: pair(heads.and_then(icm_of), icm),
            te: pair(heads.and_then(te_of), te),
        }
    }
}

fn pair<G: GradeClass>(ours: Option<G>, reviewers: Option<G>) -> Option<(usize, usize)> {
    let number = |grade: G| G::ALL.iter().position(|class| *class == grade);
    Some((number(ours?)?, number(reviewers?)?))
}

impl Embryo {
    /// Takes in a review.
    pub fn review(&mut self, review: &Review) -> Effect {
        if self.reviews.add(review) { Effect::Changed } else { Effect::Unchanged }
    }

    /// How a review compares with what the frames say so far.
    #[must_use]
    pub fn compare(&self, review: &Review) -> Comparison {
        Comparison::new(self.heads().as_ref(), &review.gardner(), (review.exp, review.icm, review.te))
    }
}

impl EmbryoSummary {
    /// How its newest review compares with its grade; none without a review.
    #[must_use]
    pub fn comparison(&self) -> Option<Comparison> {
        let review = self.review.as_ref()?;
        Some(Comparison::new(self.heads.as_ref(), &review.gardner, (review.exp, review.icm, review.te)))
    }
}

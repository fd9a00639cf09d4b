//! The summary as it is on the wire: `schemas/summary.v1.schema.json`. It carries the contributions, so that the
//! compacted topic is all the database there is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::contribution::{Contribution, Place, Version, Vote, centi};
use super::review::{KnownReview, Reviews, SummaryAssessment, SummaryReview};
use super::{Embryo, MAX_FRAMES, Window};
use crate::domain::grade::{Expansion, Letter};
use crate::domain::grade_event::{AbstainReason, Heads, ModelIdentity};
use crate::domain::label::label_enum;

/// CloudEvents `type` of a summary.
pub const SUMMARY_EVENT_TYPE: &str = "org.memebg.embryo.summary.v1";

label_enum! {
    /// Whether frames are still expected. Late ones amend a final summary too, under a higher version.
    SummaryStatus {
        /// The window has not ended.
        Provisional = "provisional",
        /// The window has ended.
        Final = "final",
    }
}

/// The window that a summary is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowEvent {
    /// Start, hours post insemination.
    pub from_hpi: f64,
    /// End, hours post insemination.
    pub to_hpi: f64,
}

/// The latest frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastFrame {
    /// When it was taken.
    pub captured_at: DateTime<Utc>,
    /// Hours post insemination, two decimals.
    pub hpi: f64,
}

/// How many frames a summary rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// All that count.
    pub total: usize,
    /// Those with a grade.
    pub graded: usize,
    /// Those without.
    pub abstained: usize,
    /// Different focal planes among them.
    pub focal_planes: usize,
    /// There were more than a summary holds.
    pub left_out: bool,
}

/// Share of the graded frames that say another grade than the summary, per head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Disagreement {
    /// Expansion.
    pub exp: f64,
    /// Inner cell mass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icm: Option<f64>,
    /// Trophectoderm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub te: Option<f64>,
}

/// Expansion at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrajectoryPoint {
    /// Mean of its frames, two decimals.
    pub hpi: f64,
    /// Expected value, 1 to 6, two decimals.
    pub expansion: f64,
    /// Graded frames behind it.
    pub frames: u32,
}

/// One frame, in short. For memebg to go on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompactContribution {
    /// Number of the capture.
    pub run: u64,
    /// Focal plane.
    pub plane: u32,
    /// Hours post insemination, hundredths.
    pub centi_hpi: u32,
    /// Which of `models`.
    pub model: usize,
    /// Version of memebg.
    pub pipeline_version: String,
    /// The grade event.
    pub grade_id: String,
    /// Why there is no grade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<AbstainReason>,
    /// Expansion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<Vote<Expansion>>,
    /// Inner cell mass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icm: Option<Vote<Letter>>,
    /// Trophectoderm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub te: Option<Vote<Letter>>,
}

/// A summary as it is on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbryoSummary {
    /// Opaque pseudonym of the embryo; the Kafka key.
    pub embryo_id: String,
    /// From 1; rises whenever a summary says something else.
    pub version: u64,
    /// Whether frames are still expected.
    pub status: SummaryStatus,
    /// Whether an embryologist has reviewed it, and agreed. Reviews change nothing of what the frames say.
    pub assessment: SummaryAssessment,
    /// The clinic or laboratory.
    pub site_id: String,
    /// Slide, if it lies on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slide_id: Option<String>,
    /// Dish, if it lies in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dish_id: Option<String>,
    /// Well, from 1.
    pub well: u32,
    /// What it is about.
    pub window: WindowEvent,
    /// How far it has come.
    pub last_frame: LastFrame,
    /// What it rests on.
    pub frames: FrameCounts,
    /// Frames without a grade, by reason; one with two reasons counts in both.
    pub abstentions: BTreeMap<AbstainReason, u32>,
    /// Gardner string; absent when no frame was graded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gardner: Option<String>,
    /// That of the least sure head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The combined heads.
    #[serde(flatten)]
    pub heads: Option<Heads>,
    /// How far the frames contradict it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<Disagreement>,
    /// Expansion over time.
    pub trajectory: Vec<TrajectoryPoint>,
    /// Every model that has a say.
    pub models: Vec<ModelIdentity>,
    /// The newest review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<SummaryReview>,
    /// How many reviews there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reviews: usize,
    /// The reviews that have been taken in, oldest first. For memebg to go on from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_reviews: Vec<KnownReview>,
    /// The frames, in the order of run and plane.
    pub contributions: Vec<CompactContribution>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Embryo {
    /// What is to be published next, under the version that follows the last published one.
    #[must_use]
    pub fn summary(&self) -> EmbryoSummary {
        let key = |it: &Contribution| {
            (it.model_name.clone(), it.model_version.clone(), it.model_digest.clone(), it.trained)
        };
        let models: BTreeMap<_, _> = self.frames.values().map(|it| (key(it), it.model())).collect();
        let keys: Vec<_> = models.keys().cloned().collect();
        let compact = |((run, plane), it): (&(u64, u32), &Contribution)| CompactContribution {
            run: *run,
            plane: *plane,
            centi_hpi: it.centi_hpi,
            model: keys.binary_search(&key(it)).unwrap_or_default(),
            pipeline_version: it.pipeline_version.0.clone(),
            grade_id: it.grade_id.clone(),
            reasons: it.reasons.clone(),
            exp: it.exp.clone(),
            icm: it.icm.clone(),
            te: it.te.clone(),
        };
        let heads = self.heads();
        let gardner = heads.as_ref().map(Heads::gardner);
        let known_reviews = self.reviews.known();
        let graded = self.frames.values().filter(|it| it.exp.is_some()).count();
        let planes: BTreeSet<u32> = self.frames.keys().map(|(_, plane)| *plane).collect();
        EmbryoSummary {
            embryo_id: self.id.clone(),
            version: self.version + 1,
            status: self.status(),
            assessment: self.reviews.assessment(gardner.as_deref()),
            site_id: self.last.site_id.clone(),
            slide_id: self.last.slide_id.clone(),
            dish_id: self.last.dish_id.clone(),
            well: self.last.well,
            window: WindowEvent {
                from_hpi: hpi(self.window.from_centi_hpi),
                to_hpi: hpi(self.window.to_centi_hpi),
            },
            last_frame: LastFrame { captured_at: self.last.captured_at, hpi: hpi(self.last.centi_hpi) },
            frames: FrameCounts {
                total: self.frames.len(),
                graded,
                abstained: self.frames.len() - graded,
                focal_planes: planes.len(),
                left_out: self.left_out,
            },
            abstentions: self.abstentions(),
            gardner,
            confidence: heads.as_ref().map(Heads::confidence),
            disagreement: heads.as_ref().and_then(|heads| self.disagreement(heads)),
            heads,
            trajectory: self.trajectory(),
            models: models.into_values().collect(),
            review: self.reviews.newest().cloned(),
            reviews: known_reviews.len(),
            known_reviews,
            contributions: self.frames.iter().map(compact).collect(),
        }
    }

    /// Goes on from a published summary. Frames that `window` does not hold are left behind.
    ///
    /// # Errors
    /// What about the summary cannot be.
    pub fn restore(window: Window, summary: &EmbryoSummary) -> Result<Self, String> {
        if summary.contributions.len() > MAX_FRAMES {
            return Err(format!("{} contributions, more than {MAX_FRAMES}", summary.contributions.len()));
        }
        let mut embryo = Self {
            id: summary.embryo_id.clone(),
            window,
            frames: BTreeMap::new(),
            reviews: Reviews::restore(summary)?,
            last: Place {
                centi_hpi: centi(summary.last_frame.hpi),
                captured_at: summary.last_frame.captured_at,
                site_id: summary.site_id.clone(),
                slide_id: summary.slide_id.clone(),
                dish_id: summary.dish_id.clone(),
                well: summary.well,
            },
            left_out: summary.frames.left_out,
            ended: summary.status == SummaryStatus::Final,
            version: summary.version,
        };
        for it in &summary.contributions {
            let model = summary.models.get(it.model).ok_or_else(|| format!("no model {}", it.model))?;
            let letters = [&it.icm, &it.te].into_iter().flatten().all(Vote::is_sound);
            if !letters || it.exp.as_ref().is_some_and(|vote| !vote.is_sound()) {
                return Err(format!("probabilities of run {} are none", it.run));
            }
            if window.contains(it.centi_hpi) {
                embryo.frames.insert(
                    (it.run, it.plane),
                    Contribution {
                        trained: !model.untrained,
                        model_version: Version(model.version.clone()),
                        model_name: model.name.clone(),
                        model_digest: model.digest.clone(),
                        pipeline_version: Version(it.pipeline_version.clone()),
                        grade_id: it.grade_id.clone(),
                        centi_hpi: it.centi_hpi,
                        reasons: it.reasons.clone(),
                        exp: it.exp.clone(),
                        icm: it.icm.clone(),
                        te: it.te.clone(),
                    },
                );
            }
        }
        Ok(embryo)
    }
}

fn hpi(centi_hpi: u32) -> f64 {
    f64::from(centi_hpi) / 100.0
}

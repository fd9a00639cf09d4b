//! What a new bundle does: reloads, and the shadow beside the bundle in use.

use prometheus::{Error, IntCounterVec, IntGaugeVec};

use super::Metrics;
use super::declare::Declare;
use crate::domain::{Head, label_enum};

label_enum! {
    /// How an attempt to reload the bundle ended.
    ReloadResult {
        /// The new bundle grades.
        Switched = "switched",
        /// The new bundle cannot be used; the old one goes on.
        Refused = "refused",
    }
}

label_enum! {
    /// What became of a graded frame in the shadow bundle.
    ShadowResult {
        /// It gave a grade.
        Graded = "graded",
        /// It gave none.
        Abstained = "abstained",
        /// It could not run, or its event could not be published.
        Failed = "failed",
        /// It was still busy with the frames before.
        Dropped = "dropped",
    }
}

pub(super) struct Rollout {
    reloads: IntCounterVec,
    shadow: IntGaugeVec,
    frames: IntCounterVec,
    agreement: IntCounterVec,
}

impl Rollout {
    pub(super) fn new(declare: &Declare) -> Result<Self, Error> {
        let reloads: Vec<_> = ReloadResult::ALL.iter().map(|result| [result.as_str()]).collect();
        let frames: Vec<_> = ShadowResult::ALL.iter().map(|result| [result.as_str()]).collect();
        let agreement: Vec<_> =
            Head::ALL.iter().flat_map(|head| ["yes", "no"].map(|agrees| [head.as_str(), agrees])).collect();
        Ok(Self {
            reloads: declare.counters(
                "model_reloads_total",
                "Attempts to reload the bundle while running.",
                ["result"],
                &reloads,
            )?,
            shadow: declare.info("shadow_info", "Shadow bundle in use.", ["name", "version", "digest"])?,
            frames: declare.counters(
                "shadow_frames_total",
                "Graded frames that were offered to the shadow bundle, by what became of them there.",
                ["result"],
                &frames,
            )?,
            agreement: declare.counters(
                "shadow_agreement_total",
                "Frames that both bundles graded, by whether they give the head the same grade.",
                ["head", "agrees"],
                &agreement,
            )?,
        })
    }
}

impl Metrics {
    /// The bundle was reloaded, or could not be.
    pub fn model_reload(&self, result: ReloadResult) {
        self.0.rollout.reloads.with_label_values(&[result.as_str()]).inc();
    }

    /// The shadow bundle in use.
    pub fn set_shadow(&self, name: &str, version: &str, digest: &str) {
        self.0.rollout.shadow.with_label_values(&[name, version, digest]).set(1);
    }

    /// What became of a frame in the shadow bundle.
    pub fn shadow_frame(&self, result: ShadowResult) {
        self.0.rollout.frames.with_label_values(&[result.as_str()]).inc();
    }

    /// Both bundles graded a frame.
    pub fn shadow_agreement(&self, head: Head, agrees: bool) {
        let agrees = if agrees { "yes" } else { "no" };
        self.0.rollout.agreement.with_label_values(&[head.as_str(), agrees]).inc();
    }
}

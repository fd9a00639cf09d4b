//! Gauges of how far an incubator's frames have moved from what the bundle was made of.

use prometheus::{Error, GaugeVec, IntGaugeVec};

use super::Metrics;
use super::declare::Declare;
use crate::domain::Head;

pub(super) struct DriftGauges {
    psi: GaugeVec,
    embedding_shift: GaugeVec,
    frames: IntGaugeVec,
}

impl DriftGauges {
    pub(super) fn new(declare: &Declare) -> Result<Self, Error> {
        Ok(Self {
            psi: declare.gauges(
                "drift_psi",
                "Population stability index of the recent grades of a head against the bundle's reference; by custom 0.1 is worth a look and 0.25 a change.",
                ["instrument_model", "head"],
            )?,
            embedding_shift: declare.gauges(
                "drift_embedding_shift",
                "Distance of the recent mean embedding from the bundle's reference, root mean square over its values, in standard deviations of the reference.",
                ["instrument_model"],
            )?,
            frames: declare.info(
                "drift_frames",
                "Recent frames behind the drift gauges of an incubator model, which appear only with enough of them.",
                ["instrument_model"],
            )?,
        })
    }
}

impl Metrics {
    /// How far the recent grades of a head are from the reference.
    pub fn set_drift_psi(&self, instrument_model: &str, head: Head, psi: f64) {
        self.0.drift.psi.with_label_values(&[instrument_model, head.as_str()]).set(psi);
    }

    /// How far the recent embeddings are from the reference.
    pub fn set_drift_embedding_shift(&self, instrument_model: &str, shift: f64) {
        self.0.drift.embedding_shift.with_label_values(&[instrument_model]).set(shift);
    }

    /// Recent frames of an incubator model that its drift is measured on.
    pub fn set_drift_frames(&self, instrument_model: &str, frames: i64) {
        self.0.drift.frames.with_label_values(&[instrument_model]).set(frames);
    }

    /// Forgets all drift: another bundle has another reference.
    pub fn reset_drift(&self) {
        let DriftGauges { psi, embedding_shift, frames } = &self.0.drift;
        psi.reset();
        embedding_shift.reset();
        frames.reset();
    }
}

//! What `memebg emr` does.

use std::time::{Duration, SystemTime};

use prometheus::{Error, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::Metrics;
use super::declare::{Declare, doubling};

pub(super) struct Emr {
    summaries: IntCounterVec,
    retries: IntCounter,
    waiting: IntGauge,
    age: Histogram,
    last_delivery: IntGauge,
    lag: IntGauge,
}

impl Emr {
    pub(super) fn new(declare: &Declare) -> Result<Self, Error> {
        Ok(Self {
            summaries: declare.counters(
                "emr_summaries_total",
                "Summaries by what became of them on the way to the EMR: delivered, superseded by a newer one that was \
                 delivered in their place, or refused, a dead letter.",
                ["result"],
                &[["delivered"], ["superseded"], ["refused"]],
            )?,
            retries: declare.counter("emr_retries_total", "Attempts to deliver that are to be repeated.")?,
            waiting: declare
                .gauge("emr_waiting_summaries", "Summaries that were read and are not delivered yet.")?,
            age: declare.histogram(
                "emr_age_at_delivery_seconds",
                "Time from the publication of a summary until the EMR had it.",
                doubling(0.25, 20)?,
            )?,
            last_delivery: declare.gauge(
                "emr_last_delivery_timestamp_seconds",
                "When the EMR last took a summary, in seconds since 1970; 0 before the first.",
            )?,
            lag: declare.gauge(
                "emr_lag_summaries",
                "Summaries in the assigned partitions whose delivery is not committed.",
            )?,
        })
    }
}

impl Metrics {
    /// The EMR has a summary that was published so long ago.
    pub fn emr_delivered(&self, age: Option<Duration>) {
        let emr = &self.0.emr;
        emr.summaries.with_label_values(&["delivered"]).inc();
        if let Some(age) = age {
            emr.age.observe(age.as_secs_f64());
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs();
        emr.last_delivery.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// A newer version is delivered in the place of this one.
    pub fn emr_superseded(&self) {
        self.0.emr.summaries.with_label_values(&["superseded"]).inc();
    }

    /// The EMR refused a summary, which is a dead letter now.
    pub fn emr_refused(&self) {
        self.0.emr.summaries.with_label_values(&["refused"]).inc();
    }

    /// An attempt is to be repeated.
    pub fn emr_retried(&self) {
        self.0.emr.retries.inc();
    }

    /// Summaries that were read and are not delivered yet.
    pub fn set_emr_waiting(&self, summaries: usize) {
        self.0.emr.waiting.set(i64::try_from(summaries).unwrap_or(i64::MAX));
    }

    /// Summaries in the assigned partitions whose delivery is not committed.
    pub fn set_emr_lag(&self, summaries: i64) {
        self.0.emr.lag.set(summaries);
    }
}

//! What `memebg summarize` does.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge};

use super::Metrics;
use super::declare::Declare;
use crate::domain::{Effect, SummaryStatus};

pub(super) struct Summaries {
    frames: IntCounterVec,
    published: IntCounterVec,
    restored: IntCounter,
    in_memory: IntGauge,
}

impl Summaries {
    pub(super) fn new(declare: &Declare) -> Result<Self, Error> {
        let statuses: Vec<_> = SummaryStatus::ALL.iter().map(|status| [status.as_str()]).collect();
        Ok(Self {
            frames: declare.counters(
                "summarised_frames_total",
                "Grade events that were read for summaries, by what they did to theirs.",
                ["effect"],
                &[["changed"], ["unchanged"], ["outside_window"]],
            )?,
            published: declare.counters(
                "summaries_published_total",
                "Summaries whose transaction was committed, by status.",
                ["status"],
                &statuses,
            )?,
            restored: declare
                .counter("summaries_restored_total", "Partitions whose summaries were read back.")?,
            in_memory: declare.gauge("summaries_in_memory", "Embryos whose summary is in memory.")?,
        })
    }
}

impl Metrics {
    /// A grade event was read for a summary.
    pub fn frame_summarised(&self, effect: Effect) {
        let label = match effect {
            Effect::Changed => "changed",
            Effect::Unchanged => "unchanged",
            Effect::OutsideWindow => "outside_window",
        };
        self.0.summaries.frames.with_label_values(&[label]).inc();
    }

    /// A summary was published.
    pub fn summary_published(&self, status: SummaryStatus) {
        self.0.summaries.published.with_label_values(&[status.as_str()]).inc();
    }

    /// The summaries of a partition were read back.
    pub fn summaries_restored(&self) {
        self.0.summaries.restored.inc();
    }

    /// Embryos whose summary is in memory.
    pub fn set_summaries_in_memory(&self, embryos: usize) {
        self.0.summaries.in_memory.set(i64::try_from(embryos).unwrap_or(i64::MAX));
    }
}

//! What `memebg summarize` does.

use prometheus::{Error, GaugeVec, IntCounter, IntCounterVec, IntGauge};

use super::Metrics;
use super::declare::Declare;
use crate::domain::{Comparison, Effect, Head, RejectionCode, SummaryStatus};

/// What `memebg summarize` reads.
const EVENTS: [&str; 2] = ["grade", "review"];

pub(super) struct Summaries {
    frames: IntCounterVec,
    published: IntCounterVec,
    restored: IntCounter,
    in_memory: IntGauge,
    lag: IntGauge,
    dead_lettered: IntCounterVec,
    reviews: IntCounterVec,
    agreement: IntCounterVec,
    kappa: GaugeVec,
    waiting: IntGauge,
}

impl Summaries {
    pub(super) fn new(declare: &Declare) -> Result<Self, Error> {
        let statuses: Vec<_> = SummaryStatus::ALL.iter().map(|status| [status.as_str()]).collect();
        let codes = RejectionCode::ALL.iter().map(|code| code.as_str());
        let refused: Vec<_> = codes.flat_map(|code| EVENTS.map(|event| [event, code])).collect();
        let heads = Head::ALL.iter().map(|head| head.as_str());
        let agreements: Vec<_> = heads.flat_map(|head| ["true", "false"].map(|yes| [head, yes])).collect();
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
            lag: declare.gauge(
                "summaries_lag_events",
                "Grade events in the assigned partitions that are in no committed summary.",
            )?,
            dead_lettered: declare.counters(
                "summaries_dead_lettered_total",
                "Grade events and reviews that cannot be read and became dead letters, by error code.",
                ["event", "code"],
                &refused,
            )?,
            reviews: declare.counters(
                "reviews_total",
                "Reviews that were taken in, by whether their Gardner grade is that of the summary.",
                ["result"],
                &[["agreed"], ["changed"]],
            )?,
            agreement: declare.counters(
                "review_agreement_total",
                "Reviews that were taken in, by head and whether it is graded as in the summary; only where both have a grade.",
                ["head", "agrees"],
                &agreements,
            )?,
            kappa: declare.gauges(
                "review_kappa_ratio",
                "Quadratic-weighted kappa of summaries and newest reviews of this process's partitions; absent below 30 embryos.",
                ["head"],
            )?,
            waiting: declare.gauge("reviews_waiting", "Reviews of embryos without any grade yet.")?,
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

    /// Grade events in the assigned partitions that are in no committed summary.
    pub fn set_summaries_lag(&self, events: i64) {
        self.0.summaries.lag.set(events);
    }

    /// A `grade` event or a `review` became a dead letter.
    pub fn summaries_dead_lettered(&self, event: &'static str, code: RejectionCode) {
        self.0.summaries.dead_lettered.with_label_values(&[event, code.as_str()]).inc();
    }

    /// A review was taken in.
    pub fn reviewed(&self, comparison: &Comparison) {
        let summaries = &self.0.summaries;
        let result = if comparison.agreed { "agreed" } else { "changed" };
        summaries.reviews.with_label_values(&[result]).inc();
        let heads = [(Head::Exp, comparison.exp), (Head::Icm, comparison.icm), (Head::Te, comparison.te)];
        for (head, grades) in heads {
            if let Some((ours, reviewers)) = grades {
                let agrees = if ours == reviewers { "true" } else { "false" };
                summaries.agreement.with_label_values(&[head.as_str(), agrees]).inc();
            }
        }
    }

    /// Kappa of one head; none while too few embryos are reviewed.
    pub fn set_review_kappa(&self, head: Head, kappa: Option<f64>) {
        let gauge = &self.0.summaries.kappa;
        match kappa {
            Some(kappa) => gauge.with_label_values(&[head.as_str()]).set(kappa),
            // It may not have been there.
            None => drop(gauge.remove_label_values(&[head.as_str()])),
        }
    }

    /// Reviews of embryos without any grade yet.
    pub fn set_reviews_waiting(&self, reviews: usize) {
        self.0.summaries.waiting.set(i64::try_from(reviews).unwrap_or(i64::MAX));
    }
}

//! Every metric of the service, on a registry of its own.
//!
//! No label carries an embryo, frame, partition or offset; every label set is bounded. The counters
//! of what became of each frame obey one law, which [`Metrics::totals`] lets a test check:
//! received = graded + abstained + skipped + duplicate + dead-lettered + in flight.

mod declare;
mod drift;
mod emr;
mod instruments;
mod labels;
mod rollout;
mod summaries;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{
    Counter, Error, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder, linear_buckets,
};
use serde::Serialize;

use crate::domain::{Head, SkipReason};
use declare::{Declare, doubling};
use drift::DriftGauges;
use emr::Emr;
use instruments::Instruments;
use labels::{HEADS, MODELS, OTHER_SITE, STAGES};
use rollout::Rollout;
pub use rollout::{ReloadResult, ShadowResult};
use summaries::Summaries;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The metrics. Cheap to clone: all clones count into the same registry.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

/// What became of the frames so far, in frames. Each figure is exact; taken together they balance
/// only while nothing moves, because they are read one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Received from the broker.
    pub received: u64,
    /// Graded, and the broker has confirmed the grade event.
    pub graded: u64,
    /// Looked at and not graded, and the broker has confirmed the event that says so.
    pub abstained: u64,
    /// Not wanted, by reason; without the duplicates.
    pub skipped: BTreeMap<String, u64>,
    /// Settled before.
    pub duplicate: u64,
    /// Refused, and the broker has confirmed the dead letter.
    pub dead_lettered: u64,
    /// Received and not settled.
    pub in_flight: i64,
}

struct Families {
    registry: Registry,
    sites: HashMap<String, Site>,
    elsewhere: Site,
    received: IntCounterVec,
    skipped: IntCounterVec,
    dead_lettered: IntCounterVec,
    abstained: IntCounterVec,
    published: IntCounter,
    grades: IntCounterVec,
    in_flight: IntGauge,
    stage: HistogramVec,
    batch_size: Histogram,
    batch_wait: Histogram,
    inference: HistogramVec,
    age_at_publish: Histogram,
    consumer_lag: IntGauge,
    rebalances: IntCounter,
    commit_failures: IntCounter,
    backpressure: Counter,
    ready: IntGauge,
    device: IntGaugeVec,
    device_policy: IntGaugeVec,
    model: IntGaugeVec,
    confidence: HistogramVec,
    training_distance: Histogram,
    instruments: Instruments,
    drift: DriftGauges,
    rollout: Rollout,
    summaries: Summaries,
    emr: Emr,
}

/// What is counted of each site on the way of every frame.
struct Site {
    frames: IntCounter,
    last_frame: Gauge,
}

impl Site {
    fn new(name: &str, frames: &IntCounterVec, last_frame: &GaugeVec) -> Self {
        Self { frames: frames.with_label_values(&[name]), last_frame: last_frame.with_label_values(&[name]) }
    }
}

impl Metrics {
    /// All metrics at zero; a frame of any site but `sites` counts as `other`.
    ///
    /// # Errors
    /// When a metric is declared wrongly; no input leads to it.
    pub fn new(sites: &[String]) -> Result<Self, Error> {
        let declare = Declare::new();
        let received =
            declare.counters("frames_received_total", "Frames received from the broker.", ["site"], &[])?;
        let last_frame = declare.gauges(
            "site_last_frame_timestamp_seconds",
            "When the last frame of a site was received, in seconds since 1970; 0 before the first.",
            ["site"],
        )?;
        let site = |name: &str| Site::new(name, &received, &last_frame);
        declare.info("build_info", "Version of memebg.", ["version"])?.with_label_values(&[VERSION]).set(1);
        Ok(Self(Arc::new(Families {
            sites: sites.iter().map(|name| (name.clone(), site(name))).collect(),
            elsewhere: site(OTHER_SITE),
            received,
            skipped: declare.counters(
                "frames_skipped_total",
                "Frames that were not wanted, by reason; their images were never touched.",
                ["reason"],
                &labels::skip_reasons(),
            )?,
            dead_lettered: declare.counters(
                "frames_dead_lettered_total",
                "Frames that were refused, by stage and error code.",
                ["stage", "code"],
                &labels::dead_letters(),
            )?,
            abstained: declare.counters(
                "frames_abstained_total",
                "Frames that were looked at and got no grade, by the first reason of the event.",
                ["reason"],
                &labels::abstain_reasons(),
            )?,
            published: declare
                .counter("grades_published_total", "Grades whose event the broker has confirmed.")?,
            grades: declare.counters(
                "grade_total",
                "Published grades by head and class; their shares show drift.",
                ["head", "grade"],
                &labels::grades(),
            )?,
            in_flight: declare.gauge("frames_in_flight", "Frames received and not settled.")?,
            stage: declare.histograms(
                "stage_duration_seconds",
                "Time one frame (in grade: one batch) spends in a stage of the pipeline.",
                ["stage"],
                doubling(0.000_1, 18)?,
                STAGES,
            )?,
            batch_size: declare.histogram(
                "batch_size_frames",
                "Frames in a closed batch, padding not counted.",
                doubling(1.0, 9)?,
            )?,
            batch_wait: declare.histogram(
                "batch_wait_seconds",
                "Time from the first frame of a batch until the batch closed.",
                doubling(0.001, 15)?,
            )?,
            inference: declare.histograms(
                "inference_duration_seconds",
                "Time of one model on one batch.",
                ["model"],
                doubling(0.001, 15)?,
                MODELS,
            )?,
            age_at_publish: declare.histogram(
                "frame_age_at_publish_seconds",
                "Time from the Kafka timestamp of a frame event until the broker confirmed its grade event.",
                doubling(0.25, 20)?,
            )?,
            consumer_lag: declare
                .gauge("consumer_lag_frames", "Frames in the assigned partitions that are not committed.")?,
            rebalances: declare.counter("rebalances_total", "Changes of the assigned partitions.")?,
            commit_failures: declare.counter("commit_failures_total", "Offset commits that failed.")?,
            backpressure: declare.seconds(
                "backpressure_seconds_total",
                "Time during which partitions were paused because the pipeline was full.",
            )?,
            ready: declare.gauge("ready", "Whether /readyz answers 200.")?,
            device: declare.info(
                "device_info",
                "Execution provider and device the models really run on.",
                ["provider", "device"],
            )?,
            device_policy: declare.info("device_policy_info", "Device that was asked for.", ["policy"])?,
            model: declare.info("model_info", "Model bundle in use.", ["name", "version", "digest"])?,
            confidence: declare.histograms(
                "grade_confidence_ratio",
                "Calibrated probability of the class that a head decided for, abstained frames included.",
                ["head"],
                linear_buckets(0.2, 0.05, 17)?,
                HEADS,
            )?,
            training_distance: declare.histogram(
                "training_distance",
                "Mahalanobis distance of a frame's embedding from the bundle's training set.",
                doubling(2.0, 10)?,
            )?,
            instruments: Instruments::new(&declare)?,
            drift: DriftGauges::new(&declare)?,
            rollout: Rollout::new(&declare)?,
            summaries: Summaries::new(&declare)?,
            emr: Emr::new(&declare)?,
            registry: declare.finish()?,
        })))
    }

    /// A frame of `site` was received.
    pub fn frame_received(&self, site: &str) {
        let site = self.0.sites.get(site).unwrap_or(&self.0.elsewhere);
        site.frames.inc();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        site.last_frame.set(now.unwrap_or_default().as_secs_f64().floor());
    }

    /// A frame was settled because it is not wanted, or is a `duplicate`.
    pub fn frame_skipped(&self, reason: &'static str) {
        self.0.skipped.with_label_values(&[reason]).inc();
    }

    /// A frame was settled by a dead letter.
    pub fn dead_lettered(&self, stage: &'static str, code: &'static str) {
        self.0.dead_lettered.with_label_values(&[stage, code]).inc();
    }

    /// A frame was settled without a grade. Once per frame, with the first reason of its event:
    /// otherwise the conservation law would not hold.
    pub fn abstained(&self, reason: &'static str) {
        self.0.abstained.with_label_values(&[reason]).inc();
    }

    /// A frame was settled by a grade; `head_grades` are pairs such as `("exp", "4")`.
    pub fn grade_published(&self, head_grades: &[(&'static str, &'static str)]) {
        self.0.published.inc();
        for (head, grade) in head_grades {
            self.0.grades.with_label_values(&[*head, *grade]).inc();
        }
    }

    /// Frames received and not settled.
    pub fn set_frames_in_flight(&self, frames: i64) {
        self.0.in_flight.set(frames);
    }

    /// One pass through a stage of the pipeline.
    pub fn stage_seconds(&self, stage: &'static str, took: Duration) {
        self.0.stage.with_label_values(&[stage]).observe(took.as_secs_f64());
    }

    /// A batch closed with `frames` frames after its first one had waited `wait`.
    pub fn batch_closed(&self, frames: usize, wait: Duration) {
        #[allow(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 frames")]
        self.0.batch_size.observe(frames as f64);
        self.0.batch_wait.observe(wait.as_secs_f64());
    }

    /// One run of `embedding` or `multitask` on a batch.
    pub fn inference_seconds(&self, model: &'static str, took: Duration) {
        self.0.inference.with_label_values(&[model]).observe(took.as_secs_f64());
    }

    /// Age of a frame event, from its Kafka timestamp, when its grade event was confirmed.
    pub fn frame_age_at_publish(&self, age: Duration) {
        self.0.age_at_publish.observe(age.as_secs_f64());
    }

    /// Frames in the assigned partitions that are not committed.
    pub fn set_consumer_lag(&self, frames: i64) {
        self.0.consumer_lag.set(frames);
    }

    /// The assigned partitions changed.
    pub fn rebalance(&self) {
        self.0.rebalances.inc();
    }

    /// An offset commit failed.
    pub fn commit_failed(&self) {
        self.0.commit_failures.inc();
    }

    /// Partitions were paused for this long because the pipeline was full.
    pub fn backpressure(&self, paused: Duration) {
        self.0.backpressure.inc_by(paused.as_secs_f64());
    }

    /// Whether the readiness probe says yes.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.set(ready.into());
    }

    /// A grader runs on this device: one series for each that is in use.
    pub fn set_device(&self, provider: &str, device: &str) {
        self.0.device.with_label_values(&[provider, device]).set(1);
    }

    /// What the configuration asks the models to run on.
    pub fn set_device_policy(&self, policy: &str) {
        self.0.device_policy.with_label_values(&[policy]).set(1);
    }

    /// What the model said of a frame: how sure each head is, and how far the frame is from the training set.
    pub fn opinion(&self, confidences: &[(Head, f64)], training_distance: Option<f64>) {
        for (head, confidence) in confidences {
            self.0.confidence.with_label_values(&[head.as_str()]).observe(*confidence);
        }
        if let Some(distance) = training_distance {
            self.0.training_distance.observe(distance);
        }
    }

    /// The bundle in use replaces the one named before.
    pub fn set_model(&self, name: &str, version: &str, digest: &str) {
        self.0.model.reset();
        self.0.model.with_label_values(&[name, version, digest]).set(1);
    }

    /// What became of the frames so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut skipped = by_label(&self.0.skipped);
        let duplicate = skipped.remove(SkipReason::Duplicate.as_str()).unwrap_or(0);
        Totals {
            received: sum(&self.0.received),
            graded: self.0.published.get(),
            abstained: sum(&self.0.abstained),
            skipped,
            duplicate,
            dead_lettered: sum(&self.0.dead_lettered),
            in_flight: self.0.in_flight.get(),
        }
    }

    /// Mean number of frames in the batches so far; 0 before the first.
    #[must_use]
    pub fn mean_batch_frames(&self) -> f64 {
        let batches = &self.0.batch_size;
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 batches")]
        let count = batches.get_sample_count().max(1) as f64;
        batches.get_sample_sum() / count
    }

    /// Frames in the assigned partitions that are not committed, as last reported.
    #[must_use]
    pub fn consumer_lag(&self) -> i64 {
        self.0.consumer_lag.get()
    }

    /// Every metric in the Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be written in that format.
    pub fn encode(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

/// Value of every series of a family with one label.
fn by_label(family: &IntCounterVec) -> BTreeMap<String, u64> {
    let families = family.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    series
        .flat_map(|one| one.get_label().iter().map(|label| (label.value().to_owned(), count(one))))
        .collect()
}

/// Sum over every series of a family.
fn sum(family: &IntCounterVec) -> u64 {
    family.collect().iter().flat_map(|family| family.get_metric()).map(count).sum()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "read from an integer counter")]
fn count(series: &Metric) -> u64 {
    series.get_counter().get_value() as u64
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Metrics").field(&self.totals()).finish()
    }
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
mod tests;

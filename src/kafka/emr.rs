//! Summaries in, for an EMR: one thread that polls, hands over, pauses and commits what was delivered.
//!
//! # Why nothing is lost
//! At least once: an offset is committed only when the EMR, or the dead-letter topic, has the summary or one that came
//! after it of the same embryo ([`crate::emr`]). While the EMR takes nothing the partitions are paused and polling
//! goes on, so that the group keeps this process for as long as it takes.

mod context;
mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::source::start::Started;
use super::source::view;
use super::{Error, ErrorLog, KafkaSettings, StartFrom, member};
use crate::emr::{Desk, EmrSettings};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use context::EmrContext;
pub use sink::KafkaBundles;

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
/// How long a full queue is waited for before the partitions are paused.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the thread is built from.
pub struct EmrParts {
    /// Cluster and topics, as the service has them.
    pub kafka: KafkaSettings,
    /// Group.
    pub settings: EmrSettings,
    /// Where summaries come from.
    pub summaries_topic: String,
    /// Where they go.
    pub desk: Desk,
    /// Counters.
    pub metrics: Metrics,
    /// Facts for the probes.
    pub health: Health,
    /// Asks the thread to let what is under way end, within `kafka.drain_timeout_ms`, to commit it and to end.
    pub stop: CancellationToken,
}

/// A thread that reads summaries.
pub struct SummaryReader {
    /// How it ends. Everything is committed by then.
    pub end: oneshot::Receiver<Result<(), Error>>,
    /// Comes to its end when the group has been left, so that the partitions move on at once.
    pub left: oneshot::Receiver<()>,
}

/// Connects, subscribes and starts the thread.
///
/// # Errors
/// When the settings are refused. A cluster that is not reachable is not an error: librdkafka keeps trying, and the
/// readiness probe says so.
pub fn start(parts: EmrParts) -> Result<SummaryReader, Error> {
    let kafka = KafkaSettings {
        group_id: parts.settings.group(&parts.kafka.group_id),
        // A new group brings a new EMR up to date.
        start_from: StartFrom::Earliest,
        ..parts.kafka
    };
    let context = EmrContext {
        started: Started::default(),
        desk: parts.desk.clone(),
        metrics: parts.metrics.clone(),
        health: parts.health.clone(),
        topic: parts.summaries_topic.clone(),
        group_id: kafka.group_id.clone(),
        drain_timeout: Duration::from_millis(kafka.drain_timeout_ms),
        closing: AtomicBool::new(false),
        errors: ErrorLog::default(),
    };
    let consumer = BaseConsumer::from_config_and_context(&kafka.consumer()?, context)
        .map_err(|error| Error::create("consumer", error))?;
    let commit_interval = Duration::from_millis(kafka.commit_interval_ms);
    let run = Run { consumer, desk: parts.desk, stop: parts.stop, commit_interval };
    let (end, left) = member::on_a_thread("kafka-emr", move || {
        let result = run.until_stopped();
        run.context().closing.store(true, Ordering::Relaxed);
        (result, run)
    })?;
    Ok(SummaryReader { end, left })
}

struct Run {
    consumer: BaseConsumer<EmrContext>,
    desk: Desk,
    stop: CancellationToken,
    commit_interval: Duration,
}

impl Run {
    fn context(&self) -> &Arc<EmrContext> {
        self.consumer.context()
    }

    fn until_stopped(&self) -> Result<(), Error> {
        let context = self.context();
        self.consumer
            .subscribe(&[context.topic.as_str()])
            .map_err(|source| Error::Client { what: "cannot subscribe", source })?;
        let mut committed_at = Instant::now();
        while !self.stop.is_cancelled() {
            if self.desk.is_full() && !self.desk.wait_for_room(PATIENCE) {
                self.stay_paused(&mut committed_at)?;
            } else {
                self.poll_once(&mut committed_at)?;
            }
        }
        context.health.draining();
        let assigned =
            self.consumer.assignment().map(|it| member::partitions(&it, &context.topic)).unwrap_or_default();
        context.hand_back(&self.consumer, &assigned);
        Ok(())
    }

    /// Commits if it is time to, and takes one message if there is one.
    fn poll_once(&self, committed_at: &mut Instant) -> Result<(), Error> {
        let context = self.context();
        context.health.polled();
        if committed_at.elapsed() >= self.commit_interval {
            context.commit_what_is_due(&self.consumer);
            *committed_at = Instant::now();
        }
        let polled = self.consumer.poll(POLL);
        self.desk.polled();
        match polled {
            Some(Ok(message)) => {
                let message = view(&message);
                context.health.admitted();
                if context.started.admits(&self.consumer, message.topic, message.position)? {
                    self.desk.receive(message.to_raw());
                }
                Ok(())
            }
            Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                Err(Error::Client { what: "consumer failed for good", source })
            }
            // The context has logged it; librdkafka goes on trying.
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Keeps polling, which keeps the membership, while nothing is delivered.
    fn stay_paused(&self, committed_at: &mut Instant) -> Result<(), Error> {
        let paused_since = Instant::now();
        while !self.stop.is_cancelled() && !self.desk.wait_for_room(Duration::ZERO) {
            // Every time: partitions that were assigned meanwhile are not paused yet.
            if let Err(error) = self.consumer.assignment().and_then(|it| self.consumer.pause(&it)) {
                tracing::warn!(%error, "cannot pause");
            }
            self.poll_once(committed_at)?;
        }
        if let Err(error) = self.consumer.assignment().and_then(|it| self.consumer.resume(&it)) {
            tracing::error!(%error, "cannot resume");
        }
        self.context().metrics.backpressure(paused_since.elapsed());
        Ok(())
    }
}

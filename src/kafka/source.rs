//! The consumer: one dedicated thread that polls, pauses, commits and answers rebalances.
//!
//! Rebalance callbacks run on the thread that polls and must have drained before they return. On a
//! runtime thread that deadlocks with the work it waits for; here it blocks nothing but this thread,
//! while librdkafka's own threads keep the membership alive. Frames go to the [`Intake`] from this
//! thread too, borrowed, so that a frame that is not wanted is never copied.

mod commit;
pub(super) mod start;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Delivery, Error, ErrorLog, KafkaSettings, member, refusal};
use crate::pipeline::intake::Intake;
use crate::pipeline::message::{MessageView, Position};
use crate::pipeline::outbox::Outbox;
use crate::pipeline::publish::Spoken;
use crate::pipeline::receipt::SharedLedger;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use commit::Transactions;
use start::Started;

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
/// How long a full pipeline is waited for before the partitions are paused. Pausing makes librdkafka
/// throw away what it has fetched ahead, so it is not done for a hiccup.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the source is built from.
pub struct SourceParts {
    /// Cluster, group and topics.
    pub settings: KafkaSettings,
    /// The door of the pipeline; dropped when the source ends, which drains the pipeline.
    pub intake: Intake,
    /// What may be committed.
    pub ledger: SharedLedger,
    /// What waits to be published with its offsets, when it is to be exactly once.
    pub outbox: Outbox<Spoken>,
    /// Counters.
    pub metrics: Metrics,
    /// Facts for the probes.
    pub health: Health,
    /// Asks the source to drain and end.
    pub stop: CancellationToken,
}

/// How the source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceEnd {
    /// Frames that did not finish within the drain deadline; they will be read again.
    pub unfinished_frames: usize,
}

/// A source that runs.
pub struct Source {
    /// How it ends. Everything is committed by then, and the door is dropped.
    pub end: oneshot::Receiver<Result<SourceEnd, Error>>,
    /// Comes to its end when the group has been left, so that the partitions move on at once; librdkafka
    /// now and then does not get that done in the middle of a rebalance.
    pub left: oneshot::Receiver<()>,
}

/// Connects, subscribes and starts the poll thread.
///
/// # Errors
/// When the settings are refused. A cluster that is not reachable is not an error: librdkafka keeps
/// trying, and the readiness probe says so.
pub fn start(parts: SourceParts) -> Result<Source, Error> {
    let transactions = match parts.settings.delivery {
        Delivery::AtLeastOnce => None,
        Delivery::ExactlyOnce => Some(Transactions::new(&parts.settings, parts.outbox.clone())?),
    };
    let context = SourceContext {
        transactions: transactions.map(Mutex::new),
        started: Started::default(),
        ledger: parts.ledger.clone(),
        metrics: parts.metrics.clone(),
        health: parts.health.clone(),
        frames_topic: parts.settings.frames_topic.clone(),
        group_id: parts.settings.group_id.clone(),
        drain_timeout: Duration::from_millis(parts.settings.drain_timeout_ms),
        stop: parts.stop.clone(),
        closing: Arc::default(),
        errors: ErrorLog::default(),
    };
    let closing = Arc::clone(&context.closing);
    let consumer = BaseConsumer::from_config_and_context(&parts.settings.consumer()?, context)
        .map_err(|error| Error::create("consumer", error))?;
    let (end, left) = member::on_a_thread("kafka-poll", move || {
        let result = poll_until_stopped(&consumer, &parts);
        closing.store(true, Ordering::Relaxed);
        drop(parts);
        (result, consumer)
    })?;
    Ok(Source { end, left })
}

fn poll_until_stopped(
    consumer: &BaseConsumer<SourceContext>,
    parts: &SourceParts,
) -> Result<SourceEnd, Error> {
    // Before anything is read: what an earlier process of the same name left open is ended by it.
    while !consumer.context().initialise()? {
        if parts.stop.is_cancelled() {
            return Ok(SourceEnd { unfinished_frames: 0 });
        }
        poll_once(consumer, parts, &mut Instant::now())?;
    }
    let topic = parts.settings.frames_topic.as_str();
    consumer.subscribe(&[topic]).map_err(|source| Error::Client { what: "cannot subscribe", source })?;
    let mut committed_at = Instant::now();
    while !parts.stop.is_cancelled() {
        if parts.ledger.is_full() && !parts.ledger.wait_for_room(PATIENCE) {
            stay_paused(consumer, parts, &mut committed_at)?;
        } else {
            poll_once(consumer, parts, &mut committed_at)?;
        }
    }
    Ok(drain(consumer, parts))
}

/// Commits if it is time to, and takes one message if there is one.
fn poll_once(
    consumer: &BaseConsumer<SourceContext>,
    parts: &SourceParts,
    committed_at: &mut Instant,
) -> Result<(), Error> {
    parts.health.polled();
    let context = consumer.context();
    let interval = Duration::from_millis(parts.settings.commit_interval_ms);
    if committed_at.elapsed() >= interval || context.is_in_a_hurry() {
        context.commit_what_is_due(consumer);
        *committed_at = Instant::now();
    }
    let polled = consumer.poll(POLL);
    if let Some(error) = context.failure() {
        return Err(error);
    }
    match polled {
        None => Ok(()),
        Some(Ok(message)) => {
            let message = view(&message);
            parts.health.admitted();
            if context.started.admits(consumer, message.topic, message.position)? {
                parts.intake.receive(&message);
            }
            Ok(())
        }
        Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
            Err(Error::Client { what: "consumer failed for good", source })
        }
        // The context has logged it; librdkafka goes on trying.
        Some(Err(_)) => Ok(()),
    }
}

/// Keeps polling, which keeps the membership, while nothing is delivered.
fn stay_paused(
    consumer: &BaseConsumer<SourceContext>,
    parts: &SourceParts,
    committed_at: &mut Instant,
) -> Result<(), Error> {
    let paused_since = Instant::now();
    tracing::debug!("pipeline is full; partitions are paused");
    while !parts.stop.is_cancelled() && !parts.ledger.wait_for_room(Duration::ZERO) {
        // Every time: partitions that were assigned meanwhile are not paused yet.
        if let Err(error) = consumer.assignment().and_then(|assignment| consumer.pause(&assignment)) {
            tracing::warn!(%error, "cannot pause");
        }
        poll_once(consumer, parts, committed_at)?;
    }
    if let Err(error) = consumer.assignment().and_then(|assignment| consumer.resume(&assignment)) {
        tracing::error!(%error, "cannot resume");
    }
    parts.metrics.backpressure(paused_since.elapsed());
    Ok(())
}

/// Finishes what is under way, commits it, and says what is left.
fn drain(consumer: &BaseConsumer<SourceContext>, parts: &SourceParts) -> SourceEnd {
    parts.health.draining();
    let topic = parts.settings.frames_topic.as_str();
    let assigned =
        consumer.assignment().map(|assignment| member::partitions(&assignment, topic)).unwrap_or_default();
    tracing::info!(in_flight_frames = parts.ledger.in_flight_frames(), "draining");
    let timeout = Duration::from_millis(parts.settings.drain_timeout_ms);
    let drained = consumer.context().hand_back(consumer, &assigned, timeout);
    SourceEnd { unfinished_frames: drained.unfinished_frames }
}

/// What the message holds, still borrowed from the consumer.
pub(super) fn view<'a>(message: &'a BorrowedMessage<'_>) -> MessageView<'a> {
    let headers = message.headers().map(|headers| headers.iter().map(|it| (it.key, it.value)).collect());
    MessageView {
        topic: message.topic(),
        position: Position { partition: message.partition(), offset: message.offset() },
        key: message.key(),
        value: message.payload(),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

struct SourceContext {
    transactions: Option<Mutex<Transactions>>,
    started: Started,
    ledger: SharedLedger,
    metrics: Metrics,
    health: Health,
    frames_topic: String,
    group_id: String,
    drain_timeout: Duration,
    stop: CancellationToken,
    /// Set once everything is drained: the revoke of closing the consumer has nothing left to do.
    closing: Arc<AtomicBool>,
    errors: ErrorLog,
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The only way to hear of it: librdkafka tells a callback that rdkafka (0.39) does not register.
        if facility == "COMMITFAIL" {
            self.commit_failed();
        }
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        member::told((&self.errors, &self.health), &error, reason, |code| {
            refusal::of_consumer(code, &self.frames_topic, &self.group_id)
        });
    }

    fn stats(&self, statistics: Statistics) {
        self.metrics.set_consumer_lag(member::lag(&statistics, &self.frames_topic));
        self.health.connected(member::is_connected(&statistics));
    }
}

impl ConsumerContext for SourceContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(assigned) => {
                let assigned = member::partitions(assigned, &self.frames_topic);
                self.started.forget(&assigned);
                // Nothing is assigned of a topic that cannot be seen, to a process too many, and to nobody
                // who may not be in the group.
                if !assigned.is_empty() {
                    self.health.admitted();
                }
                tracing::info!(partitions = ?assigned, "partitions assigned");
            }
            Rebalance::Revoke(revoked) => {
                let revoked = member::partitions(revoked, &self.frames_topic);
                let lost = consumer.assignment_lost() || self.closing.load(Ordering::Relaxed);
                let drained = if lost {
                    self.forget(&revoked)
                } else {
                    self.hand_back(consumer, &revoked, self.drain_timeout)
                };
                let unfinished_frames = drained.unfinished_frames;
                tracing::info!(partitions = ?revoked, lost, unfinished_frames, "partitions revoked");
            }
            Rebalance::Error(error) => tracing::error!(%error, "rebalance failed"),
        }
        self.metrics.rebalance();
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        member::resume(consumer, rebalance, &self.health);
    }
}

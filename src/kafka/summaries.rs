//! Grade events in, summaries out: one thread, one transaction per interval for summaries and offsets together.
//!
//! # Why nothing is lost or counted twice
//! A partition's state is read back from the partition of the same number of the compacted topic, up to its end, once
//! no transaction of a former owner is open, and before the first grade event is read. What is committed is exactly
//! what the published summaries hold, in one transaction that carries the group's generation.

mod context;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use super::reader::{Extent, Reader};
use super::source::start::{Started, committed};
use super::source::view;
use super::transaction::Transactor;
use super::{Error, ErrorLog, KafkaSettings, StartFrom};
use crate::domain::{EmbryoSummary, GRADE_EVENT_TYPE, GradeEvent, Rejection, RejectionCode, Window};
use crate::pipeline::message::MessageView;
use crate::summaries::{Keeper, Received, SummariesSettings};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use context::{State, SummariesContext};

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);

/// What the thread is built from.
pub struct SummariesParts {
    /// Cluster and topics, as the service has them.
    pub kafka: KafkaSettings,
    /// Topic, group and intervals.
    pub settings: SummariesSettings,
    /// What the summaries are about.
    pub window: Window,
    /// Counters.
    pub metrics: Metrics,
    /// Facts for the probes.
    pub health: Health,
    /// Asks the thread to publish what it has and to end.
    pub stop: CancellationToken,
}

/// Runs until it is asked to stop. Blocks: give it a thread.
///
/// # Errors
/// Settings that are refused, partition counts that differ, an event that cannot be read, or a cluster that
/// confirms no transaction.
pub fn run(parts: SummariesParts) -> anyhow::Result<()> {
    let kafka = KafkaSettings {
        group_id: parts.settings.group(&parts.kafka.group_id),
        // A summary without its first frames would be wrong.
        start_from: StartFrom::Earliest,
        ..parts.kafka
    };
    let SummariesParts { settings, window, metrics, health, stop, .. } = parts;
    let (Some(grades), Some(summaries)) =
        (open(&kafka, &kafka.grades_topic, &health, &stop)?, open(&kafka, &settings.topic, &health, &stop)?)
    else {
        return Ok(());
    };
    let (from, to) = (grades.partitions(), summaries.partitions());
    if from != to {
        return Err(Error::Settings(format!(
            "topic {} (kafka.grades_topic) has {from} partitions and topic {} (summaries.topic) has {to}: the state of a \
             partition is kept in the partition of the same number; give both as many",
            kafka.grades_topic, settings.topic
        ))
        .into());
    }
    let context = SummariesContext {
        state: Mutex::new(State {
            transactor: Transactor::new(&kafka)?,
            keeper: Keeper::new(&settings, window),
            next: BTreeMap::new(),
            moved: false,
            to_restore: Vec::new(),
            failing_since: None,
            failed: None,
        }),
        started: Started::default(),
        metrics,
        health,
        grades_topic: kafka.grades_topic.clone(),
        summaries_topic: settings.topic.clone(),
        group_id: kafka.group_id.clone(),
        stop,
        closing: Arc::default(),
        errors: ErrorLog::default(),
    };
    let consumer = BaseConsumer::from_config_and_context(&kafka.consumer()?, context)
        .map_err(|error| Error::create("consumer", error))?;
    let run = Run { consumer, summaries, kafka, settings };
    let result = run.until_stopped();
    run.context().closing.store(true, std::sync::atomic::Ordering::Relaxed);
    result
}

/// A reader of a topic; waits for a broker that is late. `None` when asked to stop meanwhile.
fn open(
    kafka: &KafkaSettings,
    topic: &str,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Option<Reader>, Error> {
    while !stop.is_cancelled() {
        health.polled();
        match Reader::open(kafka, topic) {
            Err(error @ Error::Client { .. }) => {
                tracing::warn!(%error, topic, "no broker answers; trying again")
            }
            result => return result.map(Some),
        }
    }
    Ok(None)
}

struct Run {
    consumer: BaseConsumer<SummariesContext>,
    summaries: Reader,
    kafka: KafkaSettings,
    settings: SummariesSettings,
}

impl Run {
    fn context(&self) -> &SummariesContext {
        self.consumer.context()
    }

    fn until_stopped(&self) -> anyhow::Result<()> {
        let context = self.context();
        while !context.lock().transactor.initialise()? {
            if context.stop.is_cancelled() {
                return Ok(());
            }
            context.health.polled();
        }
        let topic = context.grades_topic.as_str();
        self.consumer
            .subscribe(&[topic])
            .map_err(|source| Error::Client { what: "cannot subscribe", source })?;
        let interval = Duration::from_millis(self.settings.publish_interval_ms);
        let mut published_at = Instant::now();
        while !context.stop.is_cancelled() {
            context.health.polled();
            let assigned = std::mem::take(&mut context.lock().to_restore);
            for partition in assigned {
                self.restore(partition)?;
            }
            if published_at.elapsed() >= interval {
                context.lock().keeper.tick(chrono::Utc::now());
                context.transact(&self.consumer);
                published_at = Instant::now();
            }
            let polled = self.consumer.poll(POLL);
            if let Some(error) = context.lock().failed.take() {
                return Err(error.into());
            }
            match polled {
                Some(Ok(message)) => self.take(&view(&message))?,
                Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Client { what: "consumer failed for good", source }.into());
                }
                // The context has logged it; librdkafka goes on trying.
                Some(Err(_)) | None => {}
            }
        }
        context.health.draining();
        if context.health.is_connected() {
            context.transact(&self.consumer);
        }
        context.lock().failed.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Reads the state of a partition back, unless that is done.
    fn restore(&self, partition: i32) -> anyhow::Result<()> {
        let context = self.context();
        if context.lock().keeper.has(partition) {
            return Ok(());
        }
        // First of all: this answers only once no transaction is about to move the offset, so the summaries that
        // belong to it are in the topic, or will never be.
        let next = loop {
            match committed(&self.consumer, &context.grades_topic, partition) {
                Ok(next) => break next,
                Err(error) => tracing::warn!(%error, partition, "cannot tell yet where a partition starts"),
            }
            context.health.polled();
            if context.stop.is_cancelled() {
                return Ok(());
            }
        };
        context.lock().keeper.begin(partition);
        self.each_summary(partition, |summary| {
            context.health.polled();
            Ok(context.lock().keeper.restore(partition, summary, false).map_err(Error::Event)?)
        })?;
        let mut state = context.lock();
        if let Some(next) = next {
            state.next.insert(partition, next);
        }
        let embryos = state.keeper.embryos();
        tracing::info!(partition, embryos, "state restored");
        context.metrics.summaries_restored();
        context.metrics.set_summaries_in_memory(embryos);
        Ok(())
    }

    fn each_summary(
        &self,
        partition: i32,
        mut each: impl FnMut(&EmbryoSummary) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let stop = &self.context().stop;
        let mut extent: Extent = self.summaries.settled_extent(&self.kafka, stop)?;
        extent.retain(|number, _| *number == partition);
        let topic = &self.settings.topic;
        self.summaries.scan(&extent, stop, |message| {
            let Some(value) = message.value else { return Ok(()) };
            let place = || format!("{topic}/{partition}/{} is not a summary", message.position.offset);
            let summary: EmbryoSummary = serde_json::from_slice(value).with_context(place)?;
            each(&summary).with_context(place)
        })
    }

    fn take(&self, message: &MessageView<'_>) -> anyhow::Result<()> {
        let context = self.context();
        let position = message.position;
        context.health.admitted();
        if !context.started.admits(&self.consumer, message.topic, position)? {
            return Ok(());
        }
        self.restore(position.partition)?;
        if context.stop.is_cancelled() {
            return Ok(());
        }
        // Not passed over: a summary that lacks a frame looks like one that does not.
        let refused = |rejection: Rejection| {
            Error::Event(format!(
                "grade event at {}/{}/{} cannot be read: {rejection}; whoever wrote it has to be stopped, then move the \
                 group {} past it",
                message.topic, position.partition, position.offset, context.group_id
            ))
        };
        let event = grade_event(message).map_err(refused)?;
        let mut received = context.lock().keeper.receive(position.partition, &event).map_err(refused)?;
        if received == Received::Forgotten {
            self.recall(position.partition, &event.embryo_id)?;
            received = context.lock().keeper.receive(position.partition, &event).map_err(refused)?;
        }
        if let Received::Taken(effect) = received {
            context.metrics.frame_summarised(effect);
        }
        let mut state = context.lock();
        state.next.insert(position.partition, position.offset + 1);
        state.moved = true;
        Ok(())
    }

    /// Brings back a finished embryo of which a late frame has come.
    fn recall(&self, partition: i32, embryo_id: &str) -> anyhow::Result<()> {
        let mut last = None;
        self.each_summary(partition, |summary| {
            if summary.embryo_id == embryo_id {
                last = Some(summary.clone());
            }
            Ok(())
        })?;
        let mut state = self.context().lock();
        match last {
            Some(summary) => state.keeper.restore(partition, &summary, true).map_err(Error::Event)?,
            None => state.keeper.not_found(partition, embryo_id),
        }
        Ok(())
    }
}

fn grade_event(message: &MessageView<'_>) -> Result<GradeEvent, Rejection> {
    if message.header("ce_type").is_some_and(|event_type| event_type != GRADE_EVENT_TYPE) {
        return Err(Rejection::new(
            RejectionCode::UnknownEventType,
            format!("its type is not {GRADE_EVENT_TYPE}"),
        ));
    }
    let empty = || Rejection::new(RejectionCode::EmptyValue, "message has no value");
    let value = message.value.filter(|value| !value.is_empty()).ok_or_else(empty)?;
    let event: GradeEvent =
        serde_json::from_slice(value).map_err(|error| Rejection::unreadable("a grade event", &error))?;
    if message.key != Some(event.embryo_id.as_bytes()) {
        return Err(Rejection::new(RejectionCode::SchemaInvalid, "its key is not its embryo_id"));
    }
    Ok(event)
}

//! Grade events and reviews in, summaries out: one thread, one transaction per interval for summaries, dead letters and
//! offsets together.
//!
//! # Why nothing is lost or counted twice
//! A partition's state is read back from the partition of the same number of the compacted topic, up to its end, once
//! no transaction of a former owner is open, and before the first event of it is read. What is committed is exactly
//! what the published summaries hold, in one transaction that carries the group's generation.
//!
//! # Whose reviews these are
//! The group shares out the partitions of the grades topic alone. Whoever has one of them reads the partition of the
//! same number of the reviews topic with a second consumer, which is in no group, and commits how far in the same
//! transaction. An assignor that splits both topics would not promise that the two meet.

mod context;
mod events;
mod restore;
mod reviews;
mod transact;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::reader::Reader;
use super::record::Topics;
use super::source::start::Started;
use super::source::view;
use super::transaction::Transactor;
use super::{Error, ErrorLog, KafkaSettings, StartFrom, member};
use crate::domain::Window;
use crate::summaries::{Keeper, ReviewsSettings, SummariesSettings};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use context::{State, SummariesContext};
use reviews::ReviewTail;

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);

/// What the thread is built from.
pub struct SummariesParts {
    /// Cluster and topics, as the service has them.
    pub kafka: KafkaSettings,
    /// Topic, group and intervals.
    pub settings: SummariesSettings,
    /// Where reviews come from.
    pub reviews: ReviewsSettings,
    /// What the summaries are about.
    pub window: Window,
    /// How far in the future a review may lie.
    pub clock_tolerance_seconds: u32,
    /// Counters.
    pub metrics: Metrics,
    /// Facts for the probes.
    pub health: Health,
    /// Asks the thread to publish what it has and to end, within `kafka.drain_timeout_ms`.
    pub stop: CancellationToken,
}

/// A thread that summarises.
pub struct Summarizer {
    /// How it ends. Everything is committed by then.
    pub end: oneshot::Receiver<anyhow::Result<()>>,
    /// Comes to its end when the group has been left, so that the partitions move on at once.
    pub left: oneshot::Receiver<()>,
}

/// Starts the thread, which runs until it is asked to stop.
///
/// # Errors
/// When there can be no thread.
pub fn start(parts: SummariesParts) -> Result<Summarizer, Error> {
    let (end, left) = member::on_a_thread("kafka-summaries", move || match Run::prepare(parts) {
        Ok(Some(run)) => {
            let result = run.until_stopped();
            run.context().closing.store(true, Ordering::Relaxed);
            (result, Some(run))
        }
        not_run => (not_run.map(|_| ()), None),
    })?;
    Ok(Summarizer { end, left })
}

struct Run {
    /// In the group, of the grades topic.
    consumer: BaseConsumer<SummariesContext>,
    reviews: ReviewTail,
    /// Sees what is committed of the summaries, and what is not.
    summaries: (Reader, Reader),
    publish_interval: Duration,
    clock_tolerance_seconds: i64,
    /// When the group was last polled.
    polled_at: Cell<Instant>,
    /// Whether everything that is assigned is paused, because something else is read.
    held_up: Cell<bool>,
}

impl Run {
    /// Looks at the topics and connects. `None` when asked to stop meanwhile.
    fn prepare(parts: SummariesParts) -> anyhow::Result<Option<Self>> {
        let kafka = KafkaSettings {
            group_id: parts.settings.group(&parts.kafka.group_id),
            // A summary without its first frames would be wrong.
            start_from: StartFrom::Earliest,
            ..parts.kafka
        };
        let SummariesParts { settings, reviews, window, metrics, health, stop, .. } = parts;
        let open = |topic: &str, option| open(&kafka, topic, option, &health, &stop);
        let Some(grades) = open(&kafka.grades_topic, "kafka.grades_topic")? else { return Ok(None) };
        let Some(summaries) = open(&settings.topic, "summaries.topic")? else { return Ok(None) };
        let Some(reviewed) = open(&reviews.topic, "reviews.topic")? else { return Ok(None) };
        let from = grades.partitions();
        for (topic, option, reader) in
            [(&settings.topic, "summaries.topic", &summaries), (&reviews.topic, "reviews.topic", &reviewed)]
        {
            let to = reader.partitions();
            if from != to {
                return Err(Error::Settings(format!(
                    "topic {} (kafka.grades_topic) has {from} partitions and topic {topic} ({option}) has {to}: what \
                     belongs to an embryo lies in partitions of the same number; give both as many",
                    kafka.grades_topic
                ))
                .into());
            }
        }
        let context = SummariesContext {
            state: Mutex::new(State {
                transactor: Transactor::new(&kafka)?,
                keeper: Keeper::new(&settings, window),
                assigned: BTreeMap::new(),
                assignments: 0,
                letters: Vec::new(),
                letters_bytes: 0,
                moved: false,
                failing_since: None,
                failed: None,
            }),
            started: Started::default(),
            topics: Topics::of(&kafka),
            metrics,
            health,
            grades_topic: kafka.grades_topic.clone(),
            reviews_topic: reviews.topic.clone(),
            summaries_topic: settings.topic.clone(),
            group_id: kafka.group_id.clone(),
            drain_timeout: Duration::from_millis(kafka.drain_timeout_ms),
            max_letters_bytes: kafka.max_send_bytes,
            stop,
            stopped_at: OnceLock::new(),
            closing: AtomicBool::new(false),
            errors: ErrorLog::default(),
        };
        let consumer = BaseConsumer::from_config_and_context(&kafka.consumer()?, context)
            .map_err(|error| Error::create("consumer", error))?;
        let written = Reader::open_uncommitted(&kafka, &settings.topic, "summaries.topic")?;
        Ok(Some(Self {
            consumer,
            reviews: ReviewTail::new(&kafka, &reviews.topic)?,
            summaries: (summaries, written),
            publish_interval: Duration::from_millis(settings.publish_interval_ms),
            clock_tolerance_seconds: parts.clock_tolerance_seconds.into(),
            polled_at: Cell::new(Instant::now()),
            held_up: Cell::new(false),
        }))
    }

    fn context(&self) -> &Arc<SummariesContext> {
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
        let mut published_at = Instant::now();
        while !context.stop.is_cancelled() {
            context.health.polled();
            self.restore_one()?;
            if published_at.elapsed() >= self.publish_interval || context.lock().is_in_a_hurry(context) {
                context.lock().keeper.tick(chrono::Utc::now());
                context.transact(&self.consumer, None);
                published_at = Instant::now();
            }
            let polled = self.consumer.poll(POLL);
            self.polled_at.set(Instant::now());
            if let Some(error) = context.lock().failed.take() {
                return Err(error.into());
            }
            match polled {
                Some(Ok(message)) => self.take_grade(&view(&message))?,
                Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Client { what: "consumer failed for good", source }.into());
                }
                // The context has logged it; librdkafka goes on trying.
                Some(Err(_)) | None => {}
            }
            self.take_reviews()?;
        }
        context.health.draining();
        if context.health.is_connected() {
            context.transact(&self.consumer, None);
        }
        context.lock().failed.take().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// A reader of a topic; waits for a broker that is late. `None` when asked to stop meanwhile.
fn open(
    kafka: &KafkaSettings,
    topic: &str,
    option: &'static str,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Option<Reader>, Error> {
    while !stop.is_cancelled() {
        health.polled();
        match Reader::open(kafka, topic, option) {
            Err(error @ Error::Client { .. }) => {
                tracing::warn!(%error, topic, "no broker answers; trying again")
            }
            result => return result.map(Some),
        }
    }
    Ok(None)
}

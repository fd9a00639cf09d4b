//! Follows topics without joining a group, and asks how far the graders are: what the board looks at.

use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::reader::Reader;
use super::source::view;
use super::{Error, ErrorLog, KafkaSettings, LogContext, member, refusal};
use crate::pipeline::message::MessageView;
use crate::telemetry::health::Health;

/// What a consumer is told of a topic that it may not read.
const REFUSED: RDKafkaErrorCode = RDKafkaErrorCode::TopicAuthorizationFailed;
/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a topic that is not there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Until it is known which one.
const UNNAMED: &str = "not allowed to read one of the topics of frames, grades, dead letters and summaries: grant READ and DESCRIBE";
/// How soon a topic that may not be read is tried again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often partitions that were added are looked for.
const LOOK_FOR_MORE: Duration = Duration::from_secs(60);
/// Most that is fetched ahead: whoever looks on beside a service must not need its memory.
const MAX_PREFETCH_BYTES: usize = 16 << 20;

/// A topic to follow.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its name.
    pub topic: String,
    /// The option that says so.
    pub option: &'static str,
    /// From the first record of this time on, milliseconds since 1970. Otherwise from the beginning.
    pub since_ms: Option<i64>,
}

/// Shows every committed record of `topics` to `each`, in the order of each partition, until `stop` is cancelled. A
/// topic that does not exist yet is waited for; `health` says so. Blocks.
///
/// # Errors
/// When the settings are refused or the consumer fails for good.
pub fn follow(
    settings: &KafkaSettings,
    topics: &[Followed],
    health: &Health,
    stop: &CancellationToken,
    mut each: impl FnMut(&MessageView<'_>),
) -> Result<(), Error> {
    let mut client = settings.consumer()?;
    client
        .remove("group.instance.id")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        // What retention takes away meanwhile is passed over.
        .set("auto.offset.reset", "earliest")
        .set(
            "queued.max.messages.kbytes",
            (settings.prefetch_bytes.min(MAX_PREFETCH_BYTES) / 1024).max(1).to_string(),
        );
    let context = WatchContext { health: health.clone(), errors: ErrorLog::default() };
    let consumer: BaseConsumer<WatchContext> = BaseConsumer::from_config_and_context(&client, context)
        .map_err(|error| Error::create("watcher", error))?;
    let mut assigned = TopicPartitionList::new();
    let mut look_at = Instant::now();
    let (mut refused, mut named) = (false, None);
    while !stop.is_cancelled() {
        health.polled();
        if Instant::now() >= look_at {
            let complete = assign_new(&consumer, topics, &mut assigned, health);
            if complete && refused {
                named = refusal(settings, topics, health, named);
                refused = named.is_some();
            }
            if complete && !refused {
                health.admitted();
            }
            look_at = Instant::now()
                + match (complete, refused) {
                    (false, _) => LOOK_AGAIN,
                    (true, true) => ASK_AGAIN,
                    (true, false) => LOOK_FOR_MORE,
                };
        }
        match consumer.poll(POLL) {
            Some(Ok(message)) => each(&view(&message)),
            Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                return Err(Error::Client { what: "consumer failed for good", source });
            }
            // librdkafka goes on trying, and says neither which topic it is nor when it is let in.
            Some(Err(error)) if error.rdkafka_error_code() == Some(REFUSED) => {
                if !refused {
                    look_at = Instant::now();
                }
                refused = true;
            }
            // The context has logged it; librdkafka goes on trying.
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

/// Assigns what is not assigned yet. Returns whether every topic was found.
fn assign_new(
    consumer: &BaseConsumer<WatchContext>,
    topics: &[Followed],
    assigned: &mut TopicPartitionList,
    health: &Health,
) -> bool {
    let mut complete = true;
    for followed in topics {
        match new_partitions(consumer, followed, assigned) {
            Ok(Some(new)) if new.count() == 0 => health.connected(true),
            Ok(Some(new)) => {
                health.connected(true);
                if let Err(error) = consumer.incremental_assign(&new) {
                    tracing::warn!(%error, topic = followed.topic, "partitions cannot be read; trying again");
                    complete = false;
                    continue;
                }
                for element in new.elements() {
                    assigned.add_partition(element.topic(), element.partition());
                }
            }
            Ok(None) => {
                health.connected(true);
                health.refused(format!(
                    "topic {} does not exist or may not be read: create it, or set its name as the others have it",
                    followed.topic
                ));
                tracing::warn!(
                    topic = followed.topic,
                    "topic does not exist or may not be read; waiting for it"
                );
                complete = false;
            }
            Err(error) => {
                tracing::warn!(%error, topic = followed.topic, "no broker answers; trying again");
                return false;
            }
        }
    }
    complete
}

/// The first of the topics that may not be read, and what to do; `health` says so, and the log where it is not what was
/// `named` before.
fn refusal(
    settings: &KafkaSettings,
    topics: &[Followed],
    health: &Health,
    named: Option<String>,
) -> Option<String> {
    let cause = topics.iter().find_map(|Followed { topic, option, .. }| {
        health.polled();
        let read = Reader::open(settings, topic, option).map_err(Into::into).and_then(|it| it.read_nothing());
        match read.err()?.downcast() {
            Ok(Error::Settings(cause)) => Some(cause),
            // No broker answers: what is known is what was known before.
            Ok(_) | Err(_) => named.clone().or_else(|| Some(UNNAMED.to_owned())),
        }
    })?;
    if named.as_ref() != Some(&cause) {
        tracing::warn!("{cause}");
    }
    health.refused(cause.as_str());
    Some(cause)
}

/// Partitions that are not assigned yet and where to start in them. `None` without such a topic.
fn new_partitions(
    consumer: &BaseConsumer<WatchContext>,
    followed: &Followed,
    assigned: &TopicPartitionList,
) -> Result<Option<TopicPartitionList>, KafkaError> {
    let topic = followed.topic.as_str();
    let metadata = consumer.fetch_metadata(Some(topic), LOOK_UP_TIMEOUT)?;
    let found = metadata.topics().iter().find(|it| it.name() == topic && it.error().is_none());
    let partitions: Vec<i32> = found.into_iter().flat_map(|it| it.partitions()).map(|it| it.id()).collect();
    if partitions.is_empty() {
        return Ok(None);
    }
    let mut new = TopicPartitionList::new();
    let start = followed.since_ms.map_or(Offset::Beginning, |since| Offset::Offset(since.max(0)));
    for partition in partitions {
        if assigned.find_partition(topic, partition).is_none() {
            new.add_partition_offset(topic, partition, start)?;
        }
    }
    if followed.since_ms.is_some() && new.count() > 0 {
        let asked = consumer.offsets_for_times(new, LOOK_UP_TIMEOUT)?;
        new = TopicPartitionList::new();
        for element in asked.elements() {
            element.error()?;
            let start = match element.offset() {
                offset @ Offset::Offset(_) => offset,
                // Nothing is that young.
                _ => Offset::End,
            };
            new.add_partition_offset(topic, element.partition(), start)?;
        }
    }
    Ok(Some(new))
}

/// Asks how many frames lie before the graders, without being one of them.
pub struct Lag {
    consumer: BaseConsumer<LogContext>,
    topic: String,
}

impl Lag {
    /// For the group and the frames topic of `settings`. Connects in the background.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(settings: &KafkaSettings) -> Result<Self, Error> {
        Ok(Self { consumer: settings.observer()?, topic: settings.frames_topic.clone() })
    }

    /// Frames behind what the group has committed, all partitions together; where it has committed nothing, all
    /// that lie there. Blocks.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn frames(&self) -> Result<i64, Error> {
        let no_answer = |source| Error::Client { what: "does not tell how far the group is", source };
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), LOOK_UP_TIMEOUT).map_err(no_answer)?;
        let mut asked = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            asked.add_partition(&self.topic, partition.id());
        }
        let committed = self.consumer.committed_offsets(asked, LOOK_UP_TIMEOUT).map_err(no_answer)?;
        let mut frames = 0;
        for element in committed.elements() {
            let bounds = self.consumer.fetch_watermarks(&self.topic, element.partition(), LOOK_UP_TIMEOUT);
            let (first, end) = bounds.map_err(no_answer)?;
            let next = if let Offset::Offset(next) = element.offset() { next.max(first) } else { first };
            frames += (end - next).max(0);
        }
        Ok(frames)
    }
}

struct WatchContext {
    health: Health,
    errors: ErrorLog,
}

impl ClientContext for WatchContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(cause) = error.rdkafka_error_code().and_then(refusal::of_connection) {
            self.health.unreachable(cause);
        }
        self.errors.warn(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.health.connected(member::is_connected(&statistics));
    }
}

impl ConsumerContext for WatchContext {}

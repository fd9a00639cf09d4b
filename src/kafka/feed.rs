//! Puts photographs onto the frames topic, at their due times and no faster than the topic can hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::frames::{self, FrameRecord};
use super::{Error, ErrorLog, KafkaSettings, LogContext};

/// CloudEvents `source` of what a feed sends.
const SOURCE: &str = "/memebg/incubator";
/// Longest sleep before a stop is noticed.
const NAP: Duration = Duration::from_millis(50);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A frame event to send.
#[derive(Debug, Clone)]
pub struct FrameMessage {
    /// When, counted from the start of the feed.
    pub due: Duration,
    /// Kafka key.
    pub embryo_id: String,
    /// The frame event, JSON.
    pub event: Vec<u8>,
}

/// How far a feed is, readable while it runs.
#[derive(Debug, Clone, Default)]
pub struct FeedProgress(Arc<AtomicU64>);

impl FeedProgress {
    /// Frames that the broker has confirmed.
    #[must_use]
    pub fn sent_frames(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sends `frames` until they end or `stop` is cancelled, and waits for the last confirmation. Blocks.
///
/// With `max_unread_bytes`, no partition ever holds more than that beyond what the consumer group has
/// committed: the embedded broker forgets older messages, read or not.
///
/// # Errors
/// When the settings are refused, a frame cannot be made, or the broker does not confirm.
pub fn feed<E: Into<anyhow::Error>>(
    settings: &KafkaSettings,
    frames: impl Iterator<Item = Result<FrameMessage, E>>,
    max_unread_bytes: Option<usize>,
    progress: &FeedProgress,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let windowed = max_unread_bytes.is_some();
    let context = FeedContext {
        sent: Arc::default(),
        progress: progress.clone(),
        windowed,
        errors: ErrorLog::default(),
    };
    let sent = Arc::clone(&context.sent);
    let producer: ThreadedProducer<FeedContext> =
        ThreadedProducer::from_config_and_context(&settings.producer()?, context)
            .map_err(|error| Error::create("feed", error))?;
    let group = max_unread_bytes.map(|_| settings.observer()).transpose()?;
    let started = Instant::now();
    for frame in frames {
        let frame = frame.map_err(Into::into)?;
        let early = || (started + frame.due).saturating_duration_since(Instant::now());
        while !stop.is_cancelled() && !early().is_zero() {
            std::thread::sleep(early().min(NAP));
        }
        if let (Some(most), Some(group)) = (max_unread_bytes, &group) {
            // One that is larger than allowed goes alone: the broker keeps at least one message.
            let full = |unread: usize| unread > 0 && unread + frame.event.len() > most;
            while !stop.is_cancelled() && full(lock(&sent).unread_bytes()) {
                forget_what_was_read(group, &settings.frames_topic, &sent);
                std::thread::sleep(NAP / 5);
            }
        }
        if stop.is_cancelled() {
            break;
        }
        send(&producer, &settings.frames_topic, frame, &sent)?;
    }
    producer
        .flush(Timeout::After(Duration::from_millis(settings.delivery_timeout_ms)))
        .map_err(|source| Error::Client { what: "did not confirm every frame", source })?;
    lock(&sent).failure.take().map_or(Ok(()), |failure| Err(failure.into()))
}

fn send(
    producer: &ThreadedProducer<FeedContext>,
    topic: &str,
    frame: FrameMessage,
    sent: &Mutex<Sent>,
) -> anyhow::Result<()> {
    let bytes = frame.event.len();
    let number = {
        let mut sent = lock(sent);
        if let Some(failure) = sent.failure.take() {
            return Err(failure.into());
        }
        sent.number += 1;
        sent.unconfirmed_bytes += bytes;
        sent.number
    };
    let FrameMessage { embryo_id, event, .. } = frame;
    let id = format!("{embryo_id}/{number}");
    let record = FrameRecord { id, embryo_id, event };
    frames::send(producer, topic, SOURCE, &record, bytes)
        .map_err(|source| Error::Client { what: "does not take a frame", source }.into())
}

/// Looks up what the group has committed.
fn forget_what_was_read(group: &BaseConsumer<LogContext>, topic: &str, sent: &Mutex<Sent>) {
    let mut asked = TopicPartitionList::new();
    for partition in lock(sent).unread.keys() {
        asked.add_partition(topic, *partition);
    }
    if asked.count() == 0 {
        return;
    }
    let committed = match group.committed_offsets(asked, Timeout::After(LOOK_UP_TIMEOUT)) {
        Ok(committed) => committed,
        // For a moment there may be no coordinator; the caller asks again.
        Err(error) => {
            tracing::debug!(%error, "committed offsets cannot be looked up");
            return;
        }
    };
    let mut sent = lock(sent);
    for element in committed.elements() {
        if let (Offset::Offset(next), Some(unread)) =
            (element.offset(), sent.unread.get_mut(&element.partition()))
        {
            while unread.pop_front_if(|(offset, _)| *offset < next).is_some() {}
        }
    }
}

/// What was sent and is not known to be read.
#[derive(Default)]
struct Sent {
    number: u64,
    unconfirmed_bytes: usize,
    /// Offset and bytes of confirmed messages, by partition.
    unread: BTreeMap<i32, VecDeque<(i64, usize)>>,
    failure: Option<Error>,
}

impl Sent {
    /// The fullest partition, as if everything unconfirmed went there too: which partition a message
    /// goes to is known only when it is confirmed.
    fn unread_bytes(&self) -> usize {
        let fullest = self.unread.values().map(|unread| unread.iter().map(|(_, bytes)| bytes).sum()).max();
        self.unconfirmed_bytes + fullest.unwrap_or(0_usize)
    }
}

fn lock(sent: &Mutex<Sent>) -> MutexGuard<'_, Sent> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

struct FeedContext {
    sent: Arc<Mutex<Sent>>,
    progress: FeedProgress,
    /// Whether what is unread matters; otherwise it is not remembered.
    windowed: bool,
    errors: ErrorLog,
}

impl ClientContext for FeedContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.warn(&error, reason);
    }
}

impl ProducerContext for FeedContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, bytes: usize) {
        let mut sent = lock(&self.sent);
        sent.unconfirmed_bytes -= bytes;
        match delivered {
            Ok(message) => {
                if self.windowed {
                    let at = (message.offset(), bytes);
                    sent.unread.entry(message.partition()).or_default().push_back(at);
                }
                self.progress.0.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                sent.failure = Some(Error::Client { what: "did not confirm a frame", source: error.clone() });
            }
        }
    }
}

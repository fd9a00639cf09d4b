//! Questions that any client may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::found::{Deadline, Reason, TopicUse};
use crate::kafka::source::view;
use crate::kafka::{Error, KafkaSettings, refusal};
use crate::pipeline::message::MessageView;

/// How long one poll waits for a message.
const POLL: Duration = Duration::from_millis(100);
/// Most partitions of which the newest message is read: it takes up to `kafka.max_value_bytes` each.
const MAX_READ_PARTITIONS: usize = 100;
/// Most that is fetched ahead.
const PREFETCH_KBYTES: &str = "16384";

/// First offset and the one behind the last, by partition.
pub(super) type Extents = BTreeMap<i32, Range<i64>>;

/// Remembers what a client was told, and passes its log lines on.
#[derive(Debug, Default)]
pub(super) struct Heard {
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// Whether it may not be in the group, which librdkafka says once.
    pub(super) not_in_group: AtomicBool,
}

impl Heard {
    pub(super) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Heard {
    pub(super) fn note(&self, code: RDKafkaErrorCode) {
        if code == RDKafkaErrorCode::GroupAuthorizationFailed {
            self.not_in_group.store(true, Ordering::Relaxed);
        }
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        self.note(code);
        // That all brokers are down says less than what came before it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none() || code != RDKafkaErrorCode::AllBrokersDown {
            *last = Some((code, reason.to_owned()));
        }
    }

    fn stats(&self, _: Statistics) {}
}

impl ConsumerContext for Heard {}

/// A client that looks on: it is in no group, and no topic comes to be because it was asked for.
pub(super) fn observer(settings: &KafkaSettings) -> Result<BaseConsumer<Heard>, Error> {
    let mut client = settings.consumer()?;
    client
        .remove("group.instance.id")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", "0")
        .set("queued.max.messages.kbytes", PREFETCH_KBYTES);
    BaseConsumer::from_config_and_context(&client, Heard::default())
        .map_err(|error| Error::create("observer", error))
}

/// What lies in every partition of a topic.
pub(super) fn extents(
    topic: &str,
    observer: &BaseConsumer<Heard>,
    partitions: usize,
    deadline: Deadline,
) -> Result<Extents, Reason> {
    let extent = |partition: i32| {
        let bounds = observer.fetch_watermarks(topic, partition, deadline.left());
        bounds.map(|(first, end)| (partition, first..end)).map_err(|error| {
            Reason::no_answer(&format!("offsets of partition {partition} of topic {topic}"), error)
        })
    };
    (0..i32::try_from(partitions).unwrap_or(i32::MAX)).map(extent).collect()
}

/// Shows the newest message of each partition to `each`; returns how many partitions were read.
pub(super) fn newest(
    used: &TopicUse,
    observer: &BaseConsumer<Heard>,
    extents: &Extents,
    deadline: Deadline,
    each: &mut dyn FnMut(&MessageView<'_>),
) -> Result<usize, Reason> {
    let topic = used.name.as_str();
    let failed = |error: KafkaError| {
        let code = error.rdkafka_error_code();
        let cause = code.and_then(|code| refusal::of_reader(code, topic, used.option));
        cause.map_or_else(
            || Reason::no_answer(&format!("topic {topic} is not handed over"), &error),
            |cause| Reason::from_refusal(&cause),
        )
    };
    let mut start = TopicPartitionList::new();
    let mut left = BTreeSet::new();
    for (partition, extent) in extents.iter().take(MAX_READ_PARTITIONS) {
        // The last offset may be the end of a transaction, which is not handed over.
        let from = extent.start.max(extent.end - 2);
        start.add_partition_offset(topic, *partition, Offset::Offset(from)).map_err(failed)?;
        left.insert(*partition);
    }
    let read = left.len();
    observer.assign(&start).map_err(failed)?;
    while !left.is_empty() {
        if deadline.is_over() {
            return Err(Reason::no_answer(&format!("topic {topic} is not handed over"), "it took too long"));
        }
        match observer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                each(&view(&message));
                let end = extents.get(&message.partition()).map_or(0, |extent| extent.end);
                if message.offset() + 1 >= end {
                    left.remove(&message.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            // Says nothing of the topic.
            Some(Err(error))
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {}
            Some(Err(error)) => return Err(failed(error)),
        }
    }
    observer.unassign().map_err(failed)?;
    Ok(read)
}

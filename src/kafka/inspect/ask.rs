//! Questions that any client may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::TURN;
use super::found::{Client, Deadline, Limits, Progress, Reason, TopicUse};
use crate::kafka::source::view;
use crate::kafka::{Error, KafkaSettings, LogContext, StartFrom, refusal};
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
    fn note(&self, code: RDKafkaErrorCode) {
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

/// What topics allow.
pub(super) fn limits(
    settings: &KafkaSettings,
    topics: &[TopicUse],
    runtime: &tokio::runtime::Handle,
    deadline: Deadline,
) -> Vec<Result<Limits, Reason>> {
    let describe = || {
        let client = settings.client(&BTreeMap::new()).map_err(|error| error.to_string())?;
        let admin = AdminClient::from_config_and_context(&client, LogContext::default())
            .map_err(|error| Error::create("admin client", error).to_string())?;
        let options = AdminOptions::new().request_timeout(Some(deadline.left()));
        let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
        let answer = admin.describe_configs(&asked, &options);
        runtime.block_on(answer).map_err(|error| error.to_string())
    };
    let mut described = describe().map(Vec::into_iter);
    let limits = topics.iter().map(|TopicUse { name: topic, .. }| match &mut described {
        Err(error) => Err(Reason::no_answer(&format!("settings of topic {topic} are not told"), error)),
        Ok(described) => match described.next() {
            // What may not be seen comes without entries, or with a code.
            Some(resource) => resource.ok().as_ref().and_then(limits_of).ok_or_else(|| {
                Reason::new(
                    format!("the settings of topic {topic} are not shown"),
                    format!(
                        "grant DESCRIBE_CONFIGS on topic {topic} to have this checked; the service does not need it"
                    ),
                )
            }),
            None => Err(Reason::no_answer(&format!("settings of topic {topic}"), "not told")),
        },
    });
    limits.collect()
}

fn limits_of(resource: &ConfigResource) -> Option<Limits> {
    let value = |name: &str| resource.get(name)?.value.as_deref();
    let policies: Vec<&str> = value("cleanup.policy")?.split(',').map(str::trim).collect();
    let (retention_ms, retention_bytes) =
        (value("retention.ms")?.parse().ok()?, value("retention.bytes")?.parse().ok()?);
    Some(Limits {
        max_message_bytes: value("max.message.bytes")?.parse().ok()?,
        min_insync_replicas: value("min.insync.replicas")?.parse().ok()?,
        compacts: policies.contains(&"compact"),
        deletes: policies.contains(&"delete") && (retention_ms >= 0 || retention_bytes >= 0),
        retention_ms,
        retention_bytes,
    })
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

/// How far the group has come.
pub(super) fn progress(
    client: &Client,
    observer: &BaseConsumer<Heard>,
    extents: &Extents,
    deadline: Deadline,
) -> Result<Progress, Reason> {
    let mut asked = TopicPartitionList::with_capacity(extents.len());
    for partition in extents.keys() {
        asked.add_partition(&client.follows, *partition);
    }
    let committed = loop {
        // A group that may not be seen has no coordinator to answer.
        let answer = observer.committed_offsets(asked.clone(), deadline.left().min(TURN));
        if let Some(Err(error)) = observer.poll(Duration::ZERO)
            && let Some(code) = error.rdkafka_error_code()
        {
            observer.context().note(code);
        }
        match answer {
            Ok(committed) => break committed,
            Err(error) => {
                let not_in_group = observer.context().not_in_group.load(Ordering::Relaxed);
                let code = error.rdkafka_error_code();
                if not_in_group || code == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
                    observer.context().note(RDKafkaErrorCode::GroupAuthorizationFailed);
                    return Err(not_in_the_group(client));
                }
                if deadline.is_over() {
                    let group = &client.kafka.group_id;
                    return Err(Reason::no_answer(&format!("offsets of group {group}"), error));
                }
            }
        }
    };
    let committed = committed.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(next) => Some((element.partition(), next)),
        _ => None,
    });
    Ok(progress_of(extents, &committed.collect(), client.kafka.start_from))
}

/// The group may not be joined, or, by whoever only asks, not be seen.
pub(super) fn not_in_the_group(client: &Client) -> Reason {
    let (group, option) = (&client.kafka.group_id, client.group_option);
    if !client.joins {
        let found = format!("not allowed to see how far group {group} ({option}) is");
        return Reason::new(found, "grant DESCRIBE on that group");
    }
    let cause = refusal::of_group(RDKafkaErrorCode::GroupAuthorizationFailed, group, option);
    Reason::from_refusal(&cause.unwrap_or_default())
}

fn progress_of(extents: &Extents, committed: &BTreeMap<i32, i64>, start_from: StartFrom) -> Progress {
    let mut progress = Progress { lag: 0, lost: 0, committed_partitions: committed.len() };
    for (partition, extent) in extents {
        let next = committed.get(partition).copied().unwrap_or(match start_from {
            StartFrom::Earliest => extent.start,
            StartFrom::Latest => extent.end,
        });
        progress.lost += (extent.start - next).max(0);
        progress.lag += (extent.end - next.max(extent.start)).max(0);
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_what_was_deleted_and_what_is_still_to_be_read_are_told_apart() {
        let extents = Extents::from([(0, 10..100), (1, 0..50), (2, 0..7)]);
        let committed = BTreeMap::from([(0, 4), (1, 50)]);
        let progress = progress_of(&extents, &committed, StartFrom::Earliest);
        assert_eq!(progress, Progress { lag: 90 + 7, lost: 6, committed_partitions: 2 });
        let progress = progress_of(&extents, &committed, StartFrom::Latest);
        assert_eq!((progress.lag, progress.lost), (90, 6));
    }
}

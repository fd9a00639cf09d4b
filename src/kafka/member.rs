//! What every consumer in a group has: a thread of its own, and what it makes of what librdkafka tells it.

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tokio::sync::oneshot;

use super::{Error, ErrorLog, refusal};
use crate::pipeline::ledger::NextOffset;
use crate::telemetry::health::Health;

/// Logs an error, and lets the probes name what an operator can mend: the connection, or what `refused` knows of a code.
pub(super) fn told(
    (errors, health): (&ErrorLog, &Health),
    error: &KafkaError,
    reason: &str,
    refused: impl FnOnce(RDKafkaErrorCode) -> Option<String>,
) {
    let code = error.rdkafka_error_code();
    if let Some(cause) = code.and_then(refusal::of_connection) {
        health.unreachable(cause);
    }
    match code.and_then(refused) {
        Some(cause) => {
            errors.warn(error, &format!("{reason}: {cause}"));
            health.refused(cause);
        }
        None => errors.warn(error, reason),
    }
}

/// Whether any broker answers.
pub(super) fn is_connected(statistics: &Statistics) -> bool {
    statistics.brokers.values().any(|broker| broker.state == "UP")
}

/// Messages of `topic` behind what is committed, all assigned partitions together.
pub(super) fn lag(statistics: &Statistics, topic: &str) -> i64 {
    let topic = statistics.topics.get(topic);
    let lags = topic.into_iter().flat_map(|topic| topic.partitions.values()).map(|it| it.consumer_lag);
    lags.filter(|lag| *lag > 0).sum()
}

/// The partitions of `topic` in a list.
pub(super) fn partitions(list: &TopicPartitionList, topic: &str) -> Vec<i32> {
    list.elements_for_topic(topic).iter().map(TopicPartitionListElem::partition).collect()
}

/// Where reading of `topic` goes on, as Kafka commits it.
pub(super) fn offsets(topic: &str, commits: &[NextOffset]) -> KafkaResult<TopicPartitionList> {
    let mut offsets = TopicPartitionList::with_capacity(commits.len());
    for (partition, next) in commits {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    Ok(offsets)
}

/// Ends a rebalance. A partition that was revoked while it was paused comes back paused; whoever is still full pauses it
/// again at the next turn.
pub(super) fn resume<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    rebalance: &Rebalance<'_>,
    health: &Health,
) {
    if let Rebalance::Assign(assigned) = rebalance
        && let Err(error) = consumer.resume(assigned)
    {
        tracing::error!(%error, "cannot resume");
    }
    // Without waiting for the next statistics: a rebalance is answered by a broker.
    health.connected(true);
}

/// Runs `work` on a thread. It gives its result, which comes out of the first receiver, and the consumer, which leaves the
/// group when it is dropped: after that the second receiver comes to its end.
pub(super) fn on_a_thread<T: Send + 'static, M>(
    name: &'static str,
    work: impl FnOnce() -> (T, M) + Send + 'static,
) -> Result<(oneshot::Receiver<T>, oneshot::Receiver<()>), Error> {
    let (ended, end) = oneshot::channel();
    let (goodbye, left) = oneshot::channel();
    let run = move || {
        let (result, member) = work();
        drop(ended.send(result));
        drop(member);
        drop(goodbye);
    };
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(|error| Error::Thread(name, error))?;
    Ok((end, left))
}

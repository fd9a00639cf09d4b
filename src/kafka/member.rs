//! What every consumer in a group makes of what librdkafka tells it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Statistics, TopicPartitionList};

use super::{ErrorLog, refusal};
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

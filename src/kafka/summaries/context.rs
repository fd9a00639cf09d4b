//! What the thread and its rebalance callbacks share, and the transaction that both may do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::kafka::source::start::Started;
use crate::kafka::transaction::{Failure, Transactor};
use crate::kafka::{Error, ErrorLog, record, refusal};
use crate::summaries::Keeper;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// After how long without an answer to a transaction nobody seems to be there.
const SILENCE: Duration = Duration::from_secs(3);

pub(super) struct State {
    pub(super) transactor: Transactor,
    pub(super) keeper: Keeper,
    /// Next offset of every partition whose state is here.
    pub(super) next: BTreeMap<i32, i64>,
    /// Whether something was read since the last transaction.
    pub(super) moved: bool,
    /// Assigned, and not read back.
    pub(super) to_restore: Vec<i32>,
    pub(super) failing_since: Option<Instant>,
    /// What ended it, if it happened within a callback, which cannot say it.
    pub(super) failed: Option<Error>,
}

pub(super) struct SummariesContext {
    pub(super) state: Mutex<State>,
    pub(super) started: Started,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    pub(super) grades_topic: String,
    pub(super) summaries_topic: String,
    pub(super) group_id: String,
    pub(super) stop: CancellationToken,
    /// Set once all is published: the revoke of closing the consumer has nothing left to do.
    pub(super) closing: Arc<AtomicBool>,
    pub(super) errors: ErrorLog,
}

impl SummariesContext {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes every summary that says something new and commits what was read, all or nothing.
    pub(super) fn transact(&self, consumer: &BaseConsumer<Self>) {
        let mut state = self.lock();
        let State { transactor, keeper, next, moved, failing_since, failed, .. } = &mut *state;
        // In this order: of a member that it has expelled the group knows nothing, and what it knows nothing of it
        // does not fence.
        let group = consumer.group_metadata();
        let Some(group) = group.filter(|_| !consumer.assignment_lost()) else { return };
        // Without an offset there would be no fence.
        let due = keeper.due(|partition| next.contains_key(&partition));
        if due.is_empty() && !*moved {
            return;
        }
        let began = Instant::now();
        let go_on = || {
            self.health.polled();
            if began.elapsed() > SILENCE {
                self.health.connected(false);
            }
            self.health.is_connected() || !self.stop.is_cancelled()
        };
        let records: Result<Vec<_>, _> = due
            .iter()
            .map(|(partition, it)| record::summary(&self.summaries_topic, *partition, it))
            .collect();
        let result = match (records, listed(&self.grades_topic, next)) {
            (Ok(records), Ok(offsets)) => {
                transactor.commit_records(&records, &offsets, &group, &go_on).map(|()| offsets)
            }
            (Err(error), _) => Err(Failure::Refused(format!("cannot write a summary: {error}"))),
            (_, Err(error)) => Err(Failure::Aborted(error.to_string())),
        };
        match result {
            Ok(offsets) => {
                *failing_since = None;
                *moved = false;
                keeper.published(&due);
                self.health.connected(true);
                for (_, summary) in &due {
                    self.metrics.summary_published(summary.status);
                }
                self.metrics.set_summaries_in_memory(keeper.embryos());
                tracing::debug!(summaries = due.len(), "transaction committed");
                // librdkafka works out the lag from what is stored.
                if let Err(error) = consumer.store_offsets(&offsets) {
                    tracing::debug!(%error, "lag is not brought up to date");
                }
            }
            Err(Failure::GivenUp) => {
                tracing::warn!(
                    "no broker answers: the last transaction is given up; its grades are read again"
                );
            }
            Err(Failure::Fatal(source)) => {
                *failed = Some(Error::Transaction("failed for good".into(), Some(source)));
            }
            Err(Failure::Aborted(reason))
                if failing_since.get_or_insert(began).elapsed() < transactor.patience =>
            {
                self.metrics.commit_failed();
                tracing::warn!(reason, "transaction was aborted; trying again");
            }
            Err(Failure::Aborted(reason) | Failure::Refused(reason)) => {
                *failed = Some(Error::Transaction(reason, None));
            }
        }
    }

    fn numbers(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.grades_topic)
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect()
    }
}

fn listed(topic: &str, next: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::with_capacity(next.len());
    for (partition, next) in next {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    Ok(offsets)
}

impl ClientContext for SummariesContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(cause) = error.rdkafka_error_code().and_then(refusal::of_connection) {
            self.health.unreachable(cause);
        }
        self.errors.warn(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let topic = statistics.topics.get(&self.grades_topic);
        let lags = topic.into_iter().flat_map(|topic| topic.partitions.values()).map(|it| it.consumer_lag);
        self.metrics.set_consumer_lag(lags.filter(|lag| *lag > 0).sum());
        self.health.connected(statistics.brokers.values().any(|broker| broker.state == "UP"));
    }
}

impl ConsumerContext for SummariesContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(assigned) => {
                let assigned = self.numbers(assigned);
                self.started.forget(&assigned);
                self.lock().to_restore.extend(&assigned);
                tracing::info!(partitions = ?assigned, "partitions assigned");
            }
            Rebalance::Revoke(revoked) => {
                let revoked = self.numbers(revoked);
                let lost = consumer.assignment_lost() || self.closing.load(Ordering::Relaxed);
                if !lost {
                    self.transact(consumer);
                }
                let mut state = self.lock();
                for partition in &revoked {
                    state.keeper.revoke(*partition);
                    state.next.remove(partition);
                }
                state.to_restore.retain(|partition| !revoked.contains(partition));
                tracing::info!(partitions = ?revoked, lost, "partitions revoked");
            }
            Rebalance::Error(error) => tracing::error!(%error, "rebalance failed"),
        }
        self.metrics.rebalance();
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        // Without waiting for the next statistics: a rebalance is answered by a broker.
        self.health.connected(true);
    }
}

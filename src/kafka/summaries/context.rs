//! What the thread and its rebalance callbacks share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use super::transact::Letter;
use crate::kafka::record::Topics;
use crate::kafka::source::start::Started;
use crate::kafka::transaction::Transactor;
use crate::kafka::{Error, ErrorLog, member, refusal};
use crate::summaries::Keeper;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// An assigned partition.
pub(super) struct Assigned {
    /// Tells this assignment from an earlier one of the same partition.
    pub(super) assignment: u64,
    /// Whether its state has been read back.
    pub(super) restored: bool,
    /// Next grade event, once that is known.
    pub(super) next_grade: Option<i64>,
    /// Next review, once that is known.
    pub(super) next_review: Option<i64>,
}

pub(super) struct State {
    pub(super) transactor: Transactor,
    pub(super) keeper: Keeper,
    pub(super) assigned: BTreeMap<i32, Assigned>,
    /// Partitions that were ever assigned.
    pub(super) assignments: u64,
    /// What could not be read since the last transaction.
    pub(super) letters: Vec<Letter>,
    pub(super) letters_bytes: usize,
    /// Whether something was read since the last transaction.
    pub(super) moved: bool,
    pub(super) failing_since: Option<Instant>,
    /// What ended it, if it happened within a callback, which cannot say it.
    pub(super) failed: Option<Error>,
}

impl State {
    /// The partition, if this is still the assignment that is meant.
    pub(super) fn held(&mut self, partition: i32, assignment: u64) -> Option<&mut Assigned> {
        self.assigned.get_mut(&partition).filter(|it| it.assignment == assignment)
    }

    /// Which assignment of a partition may take events.
    pub(super) fn ready(&self, partition: i32) -> Option<u64> {
        self.assigned.get(&partition).filter(|it| it.restored).map(|it| it.assignment)
    }

    /// Whether dead letters should not wait for the interval any longer.
    pub(super) fn is_in_a_hurry(&self, context: &SummariesContext) -> bool {
        self.letters_bytes >= context.max_letters_bytes
    }
}

pub(super) struct SummariesContext {
    pub(super) state: Mutex<State>,
    pub(super) started: Started,
    pub(super) topics: Topics,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    pub(super) grades_topic: String,
    pub(super) reviews_topic: String,
    pub(super) summaries_topic: String,
    pub(super) group_id: String,
    pub(super) drain_timeout: Duration,
    pub(super) max_letters_bytes: usize,
    pub(super) stop: CancellationToken,
    /// When the stop was noticed.
    pub(super) stopped_at: OnceLock<Instant>,
    /// Set once all is published: the revoke of closing the consumer has nothing left to do.
    pub(super) closing: AtomicBool,
    pub(super) errors: ErrorLog,
}

impl SummariesContext {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for SummariesContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        member::told((&self.errors, &self.health), &error, reason, |code| {
            refusal::of_reader(code, &self.grades_topic, "kafka.grades_topic")
                .or_else(|| refusal::of_group(code, &self.group_id, "summaries.group_id"))
        });
    }

    fn stats(&self, statistics: Statistics) {
        self.metrics.set_summaries_lag(member::lag(&statistics, &self.grades_topic));
        self.health.connected(member::is_connected(&statistics));
    }
}

impl ConsumerContext for SummariesContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(assigned) => {
                let assigned = member::partitions(assigned, &self.grades_topic);
                self.started.forget(&assigned);
                if !assigned.is_empty() {
                    self.health.admitted();
                }
                let mut state = self.lock();
                for partition in &assigned {
                    state.assignments += 1;
                    let assignment = state.assignments;
                    let fresh = Assigned { assignment, restored: false, next_grade: None, next_review: None };
                    state.assigned.insert(*partition, fresh);
                    state.keeper.revoke(*partition);
                }
                tracing::info!(partitions = ?assigned, "partitions assigned");
            }
            Rebalance::Revoke(revoked) => {
                let revoked = member::partitions(revoked, &self.grades_topic);
                let lost = consumer.assignment_lost() || self.closing.load(Ordering::Relaxed);
                if !lost {
                    self.transact(consumer, Some(self.drain_timeout));
                }
                self.forget(&revoked);
                tracing::info!(partitions = ?revoked, lost, "partitions revoked");
            }
            Rebalance::Error(error) => tracing::error!(%error, "rebalance failed"),
        }
        self.metrics.rebalance();
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Nothing is delivered before the state has been read back.
        if let Rebalance::Assign(assigned) = rebalance
            && let Err(error) = consumer.pause(assigned)
        {
            tracing::error!(%error, "cannot pause");
        }
        // Without waiting for the next statistics: a rebalance is answered by a broker.
        self.health.connected(true);
    }
}

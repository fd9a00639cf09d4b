//! Rebalances and commits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;

use crate::emr::Desk;
use crate::kafka::source::start::Started;
use crate::kafka::{ErrorLog, member, refusal};
use crate::pipeline::ledger::NextOffset;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

pub(super) struct EmrContext {
    pub(super) started: Started,
    pub(super) desk: Desk,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    pub(super) topic: String,
    pub(super) group_id: String,
    pub(super) drain_timeout: Duration,
    /// Set once everything is committed: the revoke of closing the consumer has nothing left to do.
    pub(super) closing: AtomicBool,
    pub(super) errors: ErrorLog,
}

impl EmrContext {
    pub(super) fn commit_what_is_due(&self, consumer: &BaseConsumer<Self>) {
        self.commit(consumer, &self.desk.take_commits(), CommitMode::Async);
    }

    /// Lets what is under way end, and commits it.
    pub(super) fn hand_back(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let commits = self.desk.drain(partitions, self.drain_timeout);
        if self.health.is_connected() {
            self.commit(consumer, &commits, CommitMode::Sync);
        } else {
            tracing::warn!("no broker answers: the last summaries are not committed and are sent again");
        }
    }

    /// A commit that fails loses nothing: the summaries are sent again, which changes nothing in the EMR.
    fn commit(&self, consumer: &BaseConsumer<Self>, commits: &[NextOffset], mode: CommitMode) {
        if commits.is_empty() {
            return;
        }
        if let Err(error) =
            member::offsets(&self.topic, commits).and_then(|offsets| consumer.commit(&offsets, mode))
        {
            tracing::warn!(%error, "offsets were not committed; trying again");
            self.commit_failed();
        }
    }

    fn commit_failed(&self) {
        self.metrics.commit_failed();
        self.desk.commit_failed();
    }
}

impl ClientContext for EmrContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The only way to hear of it: librdkafka tells a callback that rdkafka (0.39) does not register.
        if facility == "COMMITFAIL" {
            self.commit_failed();
        }
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        member::told((&self.errors, &self.health), &error, reason, |code| {
            refusal::of_reader(code, &self.topic, "summaries.topic")
                .or_else(|| refusal::of_group(code, &self.group_id, "emr.group_id"))
        });
    }

    fn stats(&self, statistics: Statistics) {
        self.metrics.set_emr_lag(member::lag(&statistics, &self.topic));
        self.health.connected(member::is_connected(&statistics));
    }
}

impl ConsumerContext for EmrContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(assigned) => {
                let assigned = member::partitions(assigned, &self.topic);
                self.started.forget(&assigned);
                if !assigned.is_empty() {
                    self.health.admitted();
                }
                tracing::info!(partitions = ?assigned, "partitions assigned");
            }
            Rebalance::Revoke(revoked) => {
                let revoked = member::partitions(revoked, &self.topic);
                let lost = consumer.assignment_lost() || self.closing.load(Ordering::Relaxed);
                if lost {
                    // Committing would move the offsets of whoever has them now.
                    drop(self.desk.forget(&revoked));
                } else {
                    self.hand_back(consumer, &revoked);
                }
                tracing::info!(partitions = ?revoked, lost, "partitions revoked");
            }
            Rebalance::Error(error) => tracing::error!(%error, "rebalance failed"),
        }
        self.metrics.rebalance();
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        member::resume(consumer, rebalance, &self.health);
    }
}

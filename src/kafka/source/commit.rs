//! How offsets are committed: on their own, or in one transaction with the events.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use super::SourceContext;
use crate::kafka::transaction::{Failure, Transactor};
use crate::kafka::{Error, KafkaSettings, member};
use crate::pipeline::ledger::NextOffset;
use crate::pipeline::outbox::Outbox;
use crate::pipeline::publish::{Spoken, outcome_of};
use crate::pipeline::receipt::Drained;

/// After how long without an answer to a transaction nobody seems to be there.
const SILENCE: Duration = Duration::from_secs(3);

/// What is needed to publish and to commit together.
pub(super) struct Transactions {
    transactor: Transactor,
    outbox: Outbox<Spoken>,
    failing_since: Option<Instant>,
    /// What ended it, if it happened within a callback, which cannot say it.
    failed: Option<Error>,
}

impl Transactions {
    pub(super) fn new(settings: &KafkaSettings, outbox: Outbox<Spoken>) -> Result<Self, Error> {
        Ok(Self { transactor: Transactor::new(settings)?, outbox, failing_since: None, failed: None })
    }
}

impl SourceContext {
    /// What there is of them with exactly once.
    fn transactions(&self) -> Option<MutexGuard<'_, Transactions>> {
        Some(self.transactions.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes what transactions need. Returns whether that is done; otherwise it is to be called again.
    pub(super) fn initialise(&self) -> Result<bool, Error> {
        self.transactions().map_or(Ok(true), |transactions| transactions.transactor.initialise())
    }

    /// Commits what can be committed. With transactions it blocks until that is done.
    pub(super) fn commit_what_is_due(&self, consumer: &BaseConsumer<Self>) {
        if self.transactions.is_some() {
            self.transact(consumer);
        } else {
            self.commit(consumer, &self.ledger.take_commits(), CommitMode::Async);
        }
    }

    /// Whether frames should not wait for the commit interval any longer.
    pub(super) fn is_in_a_hurry(&self) -> bool {
        self.transactions.is_some() && self.ledger.waits_for_transaction()
    }

    /// What ended the transactions for good.
    pub(super) fn failure(&self) -> Option<Error> {
        self.transactions()?.failed.take()
    }

    /// Finishes the frames of partitions that are given back, within `timeout`, and commits them.
    pub(super) fn hand_back(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
        timeout: Duration,
    ) -> Drained {
        if self.transactions.is_none() {
            let drained = self.ledger.drain(partitions, timeout);
            self.commit_now(consumer, &drained.commits);
            return drained;
        }
        self.ledger.await_decided(partitions, timeout);
        if self.health.is_connected() {
            self.transact(consumer);
        }
        self.forget(partitions)
    }

    /// Gives up the frames of partitions that belong to somebody else already: there is nothing to wait
    /// for, and committing would move that one's offsets.
    pub(super) fn forget(&self, partitions: &[i32]) -> Drained {
        let drained = self.ledger.drain(partitions, Duration::ZERO);
        if let Some(transactions) = self.transactions() {
            transactions.outbox.forget_reassigned();
        }
        drained
    }

    /// A commit that fails loses nothing: the frames are read and graded again under the same ids. It
    /// is tried again with the next watermarks.
    fn commit(&self, consumer: &BaseConsumer<Self>, commits: &[NextOffset], mode: CommitMode) {
        if commits.is_empty() {
            return;
        }
        if let Err(error) =
            member::offsets(&self.frames_topic, commits).and_then(|offsets| consumer.commit(&offsets, mode))
        {
            tracing::warn!(%error, "offsets were not committed; trying again");
            self.commit_failed();
        }
    }

    /// A commit of which the outcome is waited for. Nobody knows how long while no broker answers, and
    /// without it the frames are read again.
    fn commit_now(&self, consumer: &BaseConsumer<Self>, commits: &[NextOffset]) {
        if self.health.is_connected() {
            self.commit(consumer, commits, CommitMode::Sync);
        } else {
            tracing::warn!("no broker answers: the last frames are not committed and are read again");
        }
    }

    /// Hands out again, at the next interval, what was not committed.
    pub(super) fn commit_failed(&self) {
        self.metrics.commit_failed();
        self.ledger.commit_failed();
    }

    /// Shows, while a transaction takes its time, that the thread lives and who does not answer. Returns
    /// whether to go on: who is asked to stop does not wait for a broker that has gone.
    fn goes_on(&self, started: Instant) -> bool {
        self.health.polled();
        if started.elapsed() > SILENCE {
            // The statistics that say so come with a poll.
            self.health.connected(false);
        }
        self.health.is_connected() || !self.stop.is_cancelled()
    }

    /// Publishes and commits what waits for it.
    fn transact(&self, consumer: &BaseConsumer<Self>) {
        let Some(mut transactions) = self.transactions() else { return };
        let Transactions { transactor, outbox, failing_since, failed } = &mut *transactions;
        // In this order: of a member that it has expelled the group knows nothing, and what it knows nothing
        // of it does not fence. The callback that says so comes with the next poll.
        let group = consumer.group_metadata();
        let Some(group) = group.filter(|_| !consumer.assignment_lost()) else { return };
        let mut due = outbox.take();
        if due.offsets.is_empty() {
            return;
        }
        let started = Instant::now();
        let result = match member::offsets(&self.frames_topic, &due.offsets) {
            Ok(offsets) => {
                let go_on = || self.goes_on(started);
                transactor.commit(&mut due, &offsets, &group, &go_on).map(|()| offsets)
            }
            Err(error) => Err(Failure::Aborted(error.to_string())),
        };
        match result {
            Ok(offsets) => {
                *failing_since = None;
                tracing::debug!(offsets = ?due.offsets, events = due.envelopes.len(), "transaction committed");
                // Nothing is committed by it; librdkafka works out the lag from what is stored.
                if let Err(error) = consumer.store_offsets(&offsets) {
                    tracing::debug!(%error, "lag is not brought up to date");
                }
                self.metrics.stage_seconds("publish", started.elapsed());
                let outcomes = due.envelopes.into_iter().map(|envelope| {
                    let outcome = outcome_of(&envelope.body.verdict);
                    (envelope, outcome)
                });
                outbox.committed(outcomes);
            }
            Err(failure) => {
                outbox.aborted(due);
                self.commit_failed();
                let since = *failing_since.get_or_insert(started);
                match failure {
                    Failure::GivenUp => {
                        tracing::warn!(
                            "no broker answers: the last transaction is given up; its frames are read again"
                        );
                    }
                    Failure::Aborted(reason) if since.elapsed() < transactor.patience => {
                        tracing::warn!(reason, "transaction was aborted; trying again");
                    }
                    Failure::Aborted(reason) | Failure::Refused(reason) => {
                        *failed = Some(Error::Transaction(reason, None));
                    }
                    Failure::Fatal(source) => {
                        *failed = Some(Error::Transaction("failed for good".into(), Some(source)));
                    }
                }
            }
        }
    }
}

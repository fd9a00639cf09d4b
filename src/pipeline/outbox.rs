//! What waits for a transaction: frames of which it is known what becomes of them.
//!
//! Exactly once means that an event and the offset of its frame are committed together. A partition
//! has one offset, so what is published must be published in the order of the offsets: the event of a
//! frame waits here until nothing before it is open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::NextOffset;
use super::receipt::{Envelope, Outcome, SharedLedger};
use crate::domain::SkipReason;

/// Partition, assignment and offset.
type Place = (i32, u64, i64);
type Waiting<T> = BTreeMap<Place, Envelope<T>>;
type Settle<T> = dyn Fn(Envelope<T>, Outcome) + Send + Sync;

/// Shared by the publish stage, which fills it, and the poll thread, which empties it. Bounded by the
/// ledger: whatever waits here is in flight.
pub struct Outbox<T> {
    ledger: SharedLedger,
    waiting: Arc<Mutex<Waiting<T>>>,
    settle: Arc<Settle<T>>,
}

/// What one transaction is to hold.
#[derive(Debug)]
pub struct Due<T> {
    /// What is to be published.
    pub envelopes: Vec<Envelope<T>>,
    /// What is to be committed with it.
    pub offsets: Vec<NextOffset>,
}

impl<T> Outbox<T> {
    /// An empty one. `settle` is called with each frame once its transaction is committed.
    #[must_use]
    pub fn new(ledger: SharedLedger, settle: impl Fn(Envelope<T>, Outcome) + Send + Sync + 'static) -> Self {
        Self { ledger, waiting: Arc::default(), settle: Arc::new(settle) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a frame wait for its transaction.
    pub fn put(&self, envelope: Envelope<T>) {
        let receipt = &envelope.receipt;
        let place = (receipt.partition(), receipt.epoch(), receipt.offset());
        let mut waiting = self.lock();
        // While it is held, so that whoever sees it as due finds it here.
        receipt.decide();
        waiting.insert(place, envelope);
    }

    /// Takes what a transaction may hold now.
    #[must_use]
    pub fn take(&self) -> Due<T> {
        self.forget_reassigned();
        let mut waiting = self.lock();
        let offsets = self.ledger.take_due();
        let due = |place: &Place| offsets.iter().any(|(id, next)| *id == place.0 && place.2 < *next);
        let envelopes = waiting.extract_if(.., |place, _| due(place)).map(|(_, envelope)| envelope).collect();
        Due { envelopes, offsets }
    }

    /// The transaction was committed.
    pub fn committed(&self, envelopes: impl IntoIterator<Item = (Envelope<T>, Outcome)>) {
        for (envelope, outcome) in envelopes {
            (self.settle)(envelope, outcome);
        }
    }

    /// The transaction was aborted: its frames wait for the next one. Its offsets have to be handed out
    /// again, see [`SharedLedger::commit_failed`].
    pub fn aborted(&self, due: Due<T>) {
        for envelope in due.envelopes {
            self.put(envelope);
        }
    }

    /// Gives up what belongs to an assignment that is over: whoever has the partition now grades it.
    pub fn forget_reassigned(&self) {
        let gone: Vec<_> = self.lock().extract_if(.., |_, envelope| !envelope.receipt.is_current()).collect();
        for (_, envelope) in gone {
            envelope.receipt.settle(Outcome::Skipped(SkipReason::Reassigned));
        }
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            waiting: Arc::clone(&self.waiting),
            settle: Arc::clone(&self.settle),
        }
    }
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;

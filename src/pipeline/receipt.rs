//! Receipts: the only way to be done with a frame, and the ledger behind them, shared by threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::ledger::{Entry, Ledger, NextOffset};
use super::message::Position;
use crate::domain::{AbstainReason, Expansion, GradeClass, Head, Letter, RejectionCode, SkipReason};
use crate::telemetry::metrics::Metrics;

/// How the route of a frame ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A grade event was confirmed by the broker.
    Graded {
        /// Expansion.
        exp: Expansion,
        /// Inner cell mass, where it is defined.
        icm: Option<Letter>,
        /// Trophectoderm, where it is defined.
        te: Option<Letter>,
    },
    /// An abstained grade event was confirmed by the broker; the first of its reasons.
    Abstained(AbstainReason),
    /// The frame was not wanted, or had been received before.
    Skipped(SkipReason),
    /// A dead letter was confirmed by the broker.
    DeadLettered(RejectionCode),
}

impl Outcome {
    /// As the parts of the conservation law are called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Graded { .. } => "graded",
            Self::Abstained(_) => "abstained",
            Self::Skipped(SkipReason::Duplicate) => "duplicate",
            Self::Skipped(_) => "skipped",
            Self::DeadLettered(_) => "dead_lettered",
        }
    }

    /// Every frame is counted here and nowhere else, so that the conservation law holds.
    fn count(self, metrics: &Metrics) {
        match self {
            Self::Graded { exp, icm, te } => {
                let letters = [(Head::Icm, icm), (Head::Te, te)];
                let letters = letters.into_iter().filter_map(|(head, letter)| Some((head, letter?.label())));
                let grades = std::iter::once((Head::Exp, exp.label())).chain(letters);
                let grades: Vec<_> = grades.map(|(head, grade)| (head.as_str(), grade)).collect();
                metrics.grade_published(&grades);
            }
            Self::Abstained(reason) => metrics.abstained(reason.as_str()),
            Self::Skipped(reason) => metrics.frame_skipped(reason.as_str()),
            Self::DeadLettered(code) => metrics.dead_lettered(code.stage().as_str(), code.as_str()),
        }
    }
}

/// How much may be under way before the source pauses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSettings {
    /// Frames between being received and being settled.
    pub max_in_flight_frames: usize,
    /// Bytes of their messages.
    pub max_in_flight_bytes: usize,
    /// Offsets remembered behind an unsettled frame, sixteen bytes each.
    pub max_held_offsets: usize,
}

struct State {
    ledger: Ledger,
    in_flight_frames: usize,
    in_flight_bytes: usize,
    /// Receipts that were dropped unsettled; they will never be settled.
    abandoned: Vec<Entry>,
    /// Threads that wait for a change. Waking nobody would be a system call for every frame.
    waiting: usize,
}

impl State {
    fn lost(&self, partitions: &[i32]) -> usize {
        self.abandoned.iter().filter(|entry| partitions.contains(&entry.position.partition)).count()
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    settings: FlowSettings,
    metrics: Metrics,
    /// Cancelled when a receipt is dropped unsettled: the watermark can no longer move.
    broken: CancellationToken,
}

/// The ledger as threads share it: opened by the poll thread, settled from anywhere.
#[derive(Clone)]
pub struct SharedLedger {
    shared: Arc<Shared>,
}

/// The duty to say what became of a frame.
///
/// Dropping it unsettled holds the watermark for good; the service then stops and the frame is read
/// again after the restart. That is a defect or the end of the process, never a way of skipping.
#[must_use = "a receipt must be settled"]
pub struct Receipt {
    ledger: SharedLedger,
    entry: Entry,
    bytes: usize,
    settled: bool,
}

impl SharedLedger {
    /// An empty ledger. `broken` is cancelled when a frame can no longer be finished.
    #[must_use]
    pub fn new(settings: FlowSettings, metrics: Metrics, broken: CancellationToken) -> Self {
        let state = State {
            ledger: Ledger::default(),
            in_flight_frames: 0,
            in_flight_bytes: 0,
            abandoned: Vec::new(),
            waiting: 0,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
                settings,
                metrics,
                broken,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every update is complete before anything that could panic, so a poisoned state is sound.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a message of `bytes` was received.
    pub fn open(&self, position: Position, bytes: usize) -> Receipt {
        let mut state = self.lock();
        let entry = state.ledger.open(position);
        state.in_flight_frames += 1;
        state.in_flight_bytes += bytes;
        self.shared.metrics.set_frames_in_flight(i64::try_from(state.in_flight_frames).unwrap_or(i64::MAX));
        drop(state);
        Receipt { ledger: self.clone(), entry, bytes, settled: false }
    }

    /// Whether the source must stop delivering.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.fills(&self.lock(), 1)
    }

    /// Waits until no more than half of what is allowed is under way, or until `timeout`. Returns
    /// whether there is room. Also ends when a transaction would make room.
    #[must_use]
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        let room = |state: &State| !self.fills(state, 2);
        self.wait_until(Instant::now() + timeout, |state| room(state) || self.waits(state));
        room(&self.lock())
    }

    /// Whether the pipeline is full mostly of frames that wait for nothing but their transaction.
    #[must_use]
    pub fn waits_for_transaction(&self) -> bool {
        self.waits(&self.lock())
    }

    fn waits(&self, state: &State) -> bool {
        self.fills(state, 1) && state.ledger.ready() > state.in_flight_frames / 2
    }

    /// Frames between being received and being settled, of all epochs.
    #[must_use]
    pub fn in_flight_frames(&self) -> usize {
        self.lock().in_flight_frames
    }

    /// Watermarks that moved since the last call.
    #[must_use]
    pub fn take_commits(&self) -> Vec<NextOffset> {
        self.lock().ledger.take_commits()
    }

    /// Like [`Self::take_commits`], as if everything that waits for a transaction were settled.
    #[must_use]
    pub fn take_due(&self) -> Vec<NextOffset> {
        self.lock().ledger.take_due()
    }

    /// The last commit did not succeed: hand its watermarks out again.
    pub fn commit_failed(&self) {
        self.lock().ledger.commit_failed();
    }

    /// Blocks until it is known what becomes of every frame of `partitions`, or until `timeout`.
    pub fn await_decided(&self, partitions: &[i32], timeout: Duration) {
        let open = |state: &State| partitions.iter().map(|id| state.ledger.undecided(*id)).sum::<usize>();
        self.wait_until(Instant::now() + timeout, |state| open(state) <= state.lost(partitions));
    }

    /// Blocks until the frames of `partitions` are settled, or until `timeout`, and returns the
    /// watermarks that may be committed. Their epochs end: what settles later counts for nothing.
    #[must_use]
    pub fn drain(&self, partitions: &[i32], timeout: Duration) -> Drained {
        let pending = |state: &State| -> usize {
            let unsettled: usize = partitions.iter().map(|id| state.ledger.unsettled(*id)).sum();
            unsettled.saturating_sub(state.lost(partitions))
        };
        self.wait_until(Instant::now() + timeout, |state| pending(state) == 0);
        let mut state = self.lock();
        let unfinished_frames = partitions.iter().map(|id| state.ledger.unsettled(*id)).sum();
        let commits = partitions
            .iter()
            .filter_map(|id| state.ledger.watermark(*id).map(|watermark| (*id, watermark)))
            .collect();
        for id in partitions {
            state.ledger.revoke(*id);
        }
        Drained { commits, unfinished_frames }
    }

    /// Lets those who wait look again.
    fn wake(&self, state: MutexGuard<'_, State>) {
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.shared.changed.notify_all();
        }
    }

    fn wait_until(&self, deadline: Instant, condition: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if condition(&state) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state.waiting += 1;
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    /// Whether a part, one in `divisor`, of what is allowed is under way.
    fn fills(&self, state: &State, divisor: usize) -> bool {
        let settings = &self.shared.settings;
        state.in_flight_frames >= settings.max_in_flight_frames.div_ceil(divisor)
            || state.in_flight_bytes >= settings.max_in_flight_bytes.div_ceil(divisor)
            || state.ledger.held() >= settings.max_held_offsets.div_ceil(divisor)
    }

    fn close(&self, entry: Entry, bytes: usize, settled: bool) {
        let mut state = self.lock();
        // One of a revoked partition holds no watermark: whoever owns the partition next reads it again.
        let abandoned = !settled && state.ledger.is_current(entry);
        // A frame that nobody finishes stays in flight, so that all that was received is accounted for.
        if settled {
            state.in_flight_frames -= 1;
            state.in_flight_bytes -= bytes;
            state.ledger.settle(entry);
        } else if abandoned {
            state.abandoned.push(entry);
        }
        self.shared.metrics.set_frames_in_flight(i64::try_from(state.in_flight_frames).unwrap_or(i64::MAX));
        self.wake(state);
        if abandoned {
            tracing::error!(
                partition = entry.position.partition,
                offset = entry.position.offset,
                "frame was dropped unfinished; it is read again after the restart"
            );
            self.shared.broken.cancel();
        }
    }
}

/// What [`SharedLedger::drain`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Next offsets to commit.
    pub commits: Vec<NextOffset>,
    /// Frames that were not settled in time; they will be read again.
    pub unfinished_frames: usize,
}

impl Receipt {
    /// The frame is done with.
    pub fn settle(mut self, outcome: Outcome) {
        self.settled = true;
        outcome.count(&self.ledger.shared.metrics);
        self.ledger.close(self.entry, self.bytes, true);
    }

    /// What becomes of the frame is known; it waits for the transaction that says it.
    pub fn decide(&self) {
        let mut state = self.ledger.lock();
        state.ledger.decide(self.entry);
        self.ledger.wake(state);
    }

    /// Whether the partition is still assigned as it was when the message was received.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.ledger.lock().ledger.is_current(self.entry)
    }

    /// Partition of the message.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.entry.position.partition
    }

    /// Offset of the message.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.entry.position.offset
    }

    /// Assignment of the partition it was received under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.entry.epoch
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            self.ledger.close(self.entry, self.bytes, false);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Receipt").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// The only thing that moves through the pipeline: a body and the duty that comes with it.
#[derive(Debug)]
pub struct Envelope<T> {
    /// What is carried.
    pub body: T,
    /// The duty to say what became of it.
    pub receipt: Receipt,
    /// When its message was received.
    pub received_at: Instant,
}

impl<T> Envelope<T> {
    /// Changes the body and keeps the duty.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Envelope<U> {
        Envelope { body: change(self.body), receipt: self.receipt, received_at: self.received_at }
    }
}

#[cfg(test)]
#[path = "receipt/tests.rs"]
mod tests;

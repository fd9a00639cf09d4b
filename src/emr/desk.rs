//! The queue, shared by the thread that polls and the tasks that send.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::queue::{Job, Queue};
use crate::pipeline::ledger::NextOffset;
use crate::pipeline::message::RawMessage;
use crate::telemetry::metrics::Metrics;

/// Most offsets between the last one that may be committed and the newest: what is read again after a crash.
const MAX_OFFSETS: usize = 10_000;
/// Most bytes of summaries in memory; one has 20 kB as a rule, 300 kB with all its frames.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What became of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It is where it should be.
    Sent,
    /// It is a dead letter.
    Refused,
}

/// Cheap to clone: all clones share one queue.
#[derive(Clone)]
pub struct Desk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There may be something to send.
    work: Notify,
    /// Something was finished or given back.
    done: Condvar,
    metrics: Metrics,
}

struct State {
    queue: Queue,
    polled_at: Instant,
}

impl Desk {
    /// Nothing to send yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let state = Mutex::new(State { queue: Queue::default(), polled_at: Instant::now() });
        Self(Arc::new(Shared { state, work: Notify::new(), done: Condvar::new(), metrics }))
    }

    /// A summary was read.
    pub fn receive(&self, message: RawMessage) {
        let mut state = self.lock();
        if state.queue.receive(message) {
            self.0.metrics.emr_superseded();
        }
        self.show(&state.queue);
        drop(state);
        self.0.work.notify_one();
    }

    /// Whether no more should be read for now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        full(&self.lock().queue, 1)
    }

    /// Blocks until half of what is allowed is free, or until `timeout`. Returns whether it is.
    #[must_use]
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        self.wait_until(timeout, |state| !full(&state.queue, 2))
    }

    /// The group was polled: what is assigned here is known anew.
    pub fn polled(&self) {
        self.lock().polled_at = Instant::now();
    }

    /// How long ago that was.
    #[must_use]
    pub fn since_poll(&self) -> Duration {
        self.lock().polled_at.elapsed()
    }

    /// The next summary to send.
    pub async fn next(&self) -> Job {
        loop {
            let notified = self.0.work.notified();
            if let Some(job) = self.lock().queue.next() {
                // Where there is one there may be more.
                self.0.work.notify_one();
                return job;
            }
            notified.await;
        }
    }

    /// Makes a job that is to be tried again one of the newest version.
    pub fn renew(&self, job: &mut Job) {
        let mut state = self.lock();
        if state.queue.renew(job) {
            self.0.metrics.emr_superseded();
            self.show(&state.queue);
        }
    }

    /// The summary is done with.
    pub fn finish(&self, job: Job, how: Delivered) {
        let mut state = self.lock();
        let age = job.message().timestamp_ms.and_then(age);
        state.queue.finish(job);
        self.show(&state.queue);
        drop(state);
        match how {
            Delivered::Sent => self.0.metrics.emr_delivered(age),
            Delivered::Refused => self.0.metrics.emr_refused(),
        }
        self.0.work.notify_one();
        self.0.done.notify_all();
    }

    /// The summary was not sent, and is read again by whoever has its partition next.
    pub fn give_back(&self, job: Job) {
        let mut state = self.lock();
        state.queue.give_back(job);
        self.show(&state.queue);
        drop(state);
        self.0.work.notify_one();
        self.0.done.notify_all();
    }

    /// Begins nothing more of these partitions, lets what is under way end within `timeout`, and forgets them.
    /// Returns what may be committed.
    #[must_use]
    pub fn drain(&self, partitions: &[i32], timeout: Duration) -> Vec<NextOffset> {
        self.lock().queue.hold(partitions);
        if !self.wait_until(timeout, |state| state.queue.sending(partitions) == 0) {
            tracing::warn!("an attempt to send is broken off: it did not end within kafka.drain_timeout_ms");
        }
        self.forget(partitions)
    }

    /// Forgets these partitions at once.
    pub fn forget(&self, partitions: &[i32]) -> Vec<NextOffset> {
        let mut state = self.lock();
        let commits = state.queue.forget(partitions);
        self.show(&state.queue);
        commits
    }

    /// Watermarks that moved since they were last handed out.
    #[must_use]
    pub fn take_commits(&self) -> Vec<NextOffset> {
        self.lock().queue.take_commits()
    }

    /// The last commit did not succeed: hand its watermarks out again.
    pub fn commit_failed(&self) {
        self.lock().queue.commit_failed();
    }

    fn wait_until(&self, timeout: Duration, condition: impl Fn(&State) -> bool) -> bool {
        let waited = self.0.done.wait_timeout_while(self.lock(), timeout, |state| !condition(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        condition(&state)
    }

    fn show(&self, queue: &Queue) {
        self.0.metrics.set_emr_waiting(queue.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a part, one in `divisor`, of what is allowed is held.
fn full(queue: &Queue, divisor: usize) -> bool {
    let (offsets, bytes) = queue.load();
    offsets >= MAX_OFFSETS / divisor || bytes >= MAX_BYTES / divisor
}

/// Since the summary was published; nothing when the clocks contradict each other.
fn age(timestamp_ms: i64) -> Option<Duration> {
    (chrono::Utc::now() - chrono::DateTime::from_timestamp_millis(timestamp_ms)?).to_std().ok()
}

//! What is to be sent: per embryo the newest summary, one at a time, and what may be committed when it is there.
//!
//! # Why an older version never overwrites a newer one
//! All versions of an embryo lie in one partition in the order of their making, one process has the partition, and here
//! an embryo that is being sent is not handed out again before that has ended. A version that waits is replaced by the
//! one that comes after it; its offset is settled with the one that was sent in its place.
//!
//! Pure bookkeeping; [`super::desk`] shares it between threads.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use tokio_util::sync::CancellationToken;

use crate::pipeline::ledger::{Entry, Ledger, NextOffset};
use crate::pipeline::message::{Position, RawMessage};

/// One embryo; a message without a key is alone.
type Slot = (Vec<u8>, Option<Position>);

/// A summary to send, and the earlier ones that it stands for.
#[derive(Debug)]
struct Waiting {
    message: RawMessage,
    entries: Vec<Entry>,
}

/// A summary that somebody is sending.
#[derive(Debug)]
pub struct Job {
    slot: Slot,
    waiting: Waiting,
    /// No further attempt is to be begun.
    pub hold: CancellationToken,
    /// The attempt under way is to be broken off: the partition belongs to somebody else.
    pub abandon: CancellationToken,
}

impl Job {
    /// The summary's message.
    #[must_use]
    pub fn message(&self) -> &RawMessage {
        &self.waiting.message
    }
}

#[derive(Debug, Default)]
struct Tokens {
    hold: CancellationToken,
    abandon: CancellationToken,
}

/// The queue of the assigned partitions.
#[derive(Debug, Default)]
pub struct Queue {
    ledger: Ledger,
    waiting: HashMap<Slot, Waiting>,
    /// Slots that wait and that nobody is sending, in the order in which they came.
    ready: VecDeque<Slot>,
    sending: HashMap<Slot, i32>,
    held: HashSet<i32>,
    tokens: BTreeMap<i32, Tokens>,
    bytes: usize,
}

impl Queue {
    /// Takes in a message. Returns whether it replaced one that was waiting.
    pub fn receive(&mut self, message: RawMessage) -> bool {
        let position = message.position;
        let entry = self.ledger.open(position);
        if message.value.is_none() {
            // A tombstone: nothing is to be said, and what an EMR has is not ours to delete.
            self.ledger.settle(entry);
            return false;
        }
        let slot = match &message.key {
            Some(key) => (key.clone(), None),
            None => (Vec::new(), Some(position)),
        };
        self.bytes += size(&message);
        match self.waiting.get_mut(&slot) {
            Some(waiting) => {
                self.bytes -= size(&waiting.message);
                waiting.message = message;
                waiting.entries.push(entry);
                true
            }
            None => {
                if !self.sending.contains_key(&slot) {
                    self.ready.push_back(slot.clone());
                }
                self.waiting.insert(slot, Waiting { message, entries: vec![entry] });
                false
            }
        }
    }

    /// The summary that has waited longest. It has to be finished or given back.
    pub fn next(&mut self) -> Option<Job> {
        let held = &self.held;
        let waiting = &self.waiting;
        let may = |slot: &Slot| waiting.get(slot).is_some_and(|it| !held.contains(&partition(it)));
        let index = self.ready.iter().position(may)?;
        let slot = self.ready.remove(index)?;
        let waiting = self.waiting.remove(&slot)?;
        self.sending.insert(slot.clone(), partition(&waiting));
        let tokens = self.tokens.entry(partition(&waiting)).or_default();
        Some(Job { slot, hold: tokens.hold.clone(), abandon: tokens.abandon.clone(), waiting })
    }

    /// Makes a job that has to be tried again one of the newest version, if that has come meanwhile.
    pub fn renew(&mut self, job: &mut Job) -> bool {
        let Some(newer) = self.waiting.remove(&job.slot) else { return false };
        self.bytes -= size(&job.waiting.message);
        let older = std::mem::replace(&mut job.waiting, newer);
        job.waiting.entries.extend(older.entries);
        true
    }

    /// The summary is where it should be, or a dead letter.
    pub fn finish(&mut self, job: Job) {
        for entry in &job.waiting.entries {
            self.ledger.settle(*entry);
        }
        self.give_back(job);
    }

    /// The summary is not sent: its partition is being given back, and it is read again.
    pub fn give_back(&mut self, job: Job) {
        self.bytes -= size(&job.waiting.message);
        self.sending.remove(&job.slot);
        if self.waiting.contains_key(&job.slot) {
            self.ready.push_back(job.slot);
        }
    }

    /// Begins nothing more of these partitions.
    pub fn hold(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.held.insert(*partition);
            self.tokens.entry(*partition).or_default().hold.cancel();
        }
    }

    /// How many summaries of these partitions are being sent.
    #[must_use]
    pub fn sending(&self, partitions: &[i32]) -> usize {
        self.sending.values().filter(|it| partitions.contains(it)).count()
    }

    /// Forgets these partitions. Returns what may be committed of them.
    pub fn forget(&mut self, partitions: &[i32]) -> Vec<NextOffset> {
        let mut commits = Vec::new();
        for number in partitions {
            commits.extend(self.ledger.watermark(*number).map(|next| (*number, next)));
            self.ledger.revoke(*number);
            self.held.remove(number);
            if let Some(tokens) = self.tokens.remove(number) {
                tokens.hold.cancel();
                tokens.abandon.cancel();
            }
        }
        let gone = self.waiting.extract_if(|_, it| partitions.contains(&partition(it)));
        self.bytes -= gone.map(|(_, it)| size(&it.message)).sum::<usize>();
        let waiting = &self.waiting;
        self.ready.retain(|slot| waiting.contains_key(slot));
        commits
    }

    /// Watermarks that moved since they were last handed out.
    pub fn take_commits(&mut self) -> Vec<NextOffset> {
        self.ledger.take_commits()
    }

    /// The last commit did not succeed.
    pub fn commit_failed(&mut self) {
        self.ledger.commit_failed();
    }

    /// Summaries that wait or are being sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len() + self.sending.len()
    }

    /// Offsets that are held, also those of versions that were replaced, and bytes of the messages.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.ledger.held(), self.bytes)
    }
}

fn partition(waiting: &Waiting) -> i32 {
    waiting.message.position.partition
}

fn size(message: &RawMessage) -> usize {
    message.view().size_bytes()
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;

//! What may be committed: one watermark per partition over the frames received.
//!
//! Most frames are skipped at once while a few wait in a batch, so "the last offset seen" would
//! commit past frames that are still being graded. The ledger keeps the offsets of a partition in
//! the order in which they were *received* and lets the watermark pass only what is settled. It does
//! not expect consecutive offsets: compaction and transaction markers leave gaps.
//!
//! Where events and offsets are committed together, a frame is *decided* before it is settled: what
//! becomes of it is known, and waits for a transaction. What a transaction may hold is the decided
//! frames of a partition's *prefix*, before which nothing is open.
//!
//! Pure bookkeeping without locks or I/O; [`super::receipt`] shares it between threads.

use std::collections::{BTreeMap, VecDeque};

use super::message::Position;

/// A partition and the offset of the next message to read, as Kafka commits it.
pub type NextOffset = (i32, i64);

/// What one receipt stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the message lies.
    pub position: Position,
    /// Which assignment of the partition it was received under.
    pub epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    Decided,
    Settled,
}

#[derive(Debug)]
struct Held {
    offset: i64,
    progress: Progress,
}

#[derive(Debug)]
struct PartitionLedger {
    epoch: u64,
    /// From the oldest unsettled message on, in the order received.
    held: VecDeque<Held>,
    unsettled: usize,
    /// How many are decided and not settled.
    decided: usize,
    /// How many at the front of `held` are not open.
    prefix: usize,
    /// How many of those are decided and not settled.
    ready: usize,
    /// Next offset to commit; `None` until something has been settled.
    watermark: Option<i64>,
    /// The watermark that was last handed out for a commit.
    handed_out: Option<i64>,
}

impl PartitionLedger {
    fn new(epoch: u64) -> Self {
        Self {
            epoch,
            held: VecDeque::new(),
            unsettled: 0,
            decided: 0,
            prefix: 0,
            ready: 0,
            watermark: None,
            handed_out: None,
        }
    }

    /// Changes how far a message is, unless it is that far already. Returns whether it did.
    fn move_on(&mut self, offset: i64, to: Progress) -> bool {
        let Ok(index) = self.held.binary_search_by_key(&offset, |held| held.offset) else { return false };
        let Some(held) = self.held.get_mut(index) else { return false };
        match (held.progress, to) {
            (Progress::Open, Progress::Decided) => self.decided += 1,
            (Progress::Open, Progress::Settled) => self.unsettled -= 1,
            (Progress::Decided, Progress::Settled) => {
                self.unsettled -= 1;
                self.decided -= 1;
                self.ready -= usize::from(index < self.prefix);
            }
            _ => return false,
        }
        held.progress = to;
        while let Some(held) = self.held.get(self.prefix).filter(|held| held.progress != Progress::Open) {
            self.ready += usize::from(held.progress == Progress::Decided);
            self.prefix += 1;
        }
        true
    }

    /// What the watermark would be if everything decided in the prefix were settled.
    fn due(&self) -> Option<i64> {
        let last = self.prefix.checked_sub(1).and_then(|last| self.held.get(last));
        last.map_or(self.watermark, |last| Some(last.offset + 1))
    }
}

/// The offsets of every assigned partition that are not yet committable.
#[derive(Debug, Default)]
pub struct Ledger {
    partitions: BTreeMap<i32, PartitionLedger>,
    /// Epoch of the next assignment; never reused, so that late settlements can be told apart.
    next_epoch: u64,
    held: usize,
}

impl Ledger {
    /// Notes that a message was received.
    ///
    /// An offset that is not beyond the last one means that the partition was rewound: what was held
    /// counts for nothing and a new epoch begins.
    pub fn open(&mut self, position: Position) -> Entry {
        let last = self.partitions.get(&position.partition).and_then(|partition| partition.held.back());
        if last.is_some_and(|last| position.offset <= last.offset) {
            self.revoke(position.partition);
        }
        let next_epoch = &mut self.next_epoch;
        let partition = self.partitions.entry(position.partition).or_insert_with(|| {
            *next_epoch += 1;
            PartitionLedger::new(*next_epoch)
        });
        partition.held.push_back(Held { offset: position.offset, progress: Progress::Open });
        partition.unsettled += 1;
        self.held += 1;
        Entry { position, epoch: partition.epoch }
    }

    /// Notes that what becomes of a message is known, and is yet to be said.
    pub fn decide(&mut self, entry: Entry) {
        if let Some(partition) = self.current(entry) {
            partition.move_on(entry.position.offset, Progress::Decided);
        }
    }

    /// Notes that a message is done with. Settlements of an earlier epoch count for nothing.
    pub fn settle(&mut self, entry: Entry) {
        let Some(partition) = self.current(entry) else { return };
        if !partition.move_on(entry.position.offset, Progress::Settled) {
            return;
        }
        let mut done = 0;
        while let Some(first) = partition.held.pop_front_if(|held| held.progress == Progress::Settled) {
            partition.watermark = Some(first.offset + 1);
            partition.prefix -= 1;
            done += 1;
        }
        self.held -= done;
    }

    fn current(&mut self, entry: Entry) -> Option<&mut PartitionLedger> {
        self.partitions.get_mut(&entry.position.partition).filter(|partition| partition.epoch == entry.epoch)
    }

    /// The next offset that may be committed for a partition, if anything of it is settled.
    #[must_use]
    pub fn watermark(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.watermark
    }

    /// Watermarks that moved since they were last handed out.
    pub fn take_commits(&mut self) -> Vec<NextOffset> {
        self.take_moved(|partition| partition.watermark)
    }

    /// Like [`Self::take_commits`], as if everything decided in the prefixes were settled.
    pub fn take_due(&mut self) -> Vec<NextOffset> {
        self.take_moved(PartitionLedger::due)
    }

    fn take_moved(&mut self, next: impl Fn(&PartitionLedger) -> Option<i64>) -> Vec<NextOffset> {
        let mut moved = Vec::new();
        for (id, partition) in &mut self.partitions {
            if let Some(next) = next(partition).filter(|next| partition.handed_out != Some(*next)) {
                partition.handed_out = Some(next);
                moved.push((*id, next));
            }
        }
        moved
    }

    /// Forgets what was handed out: the commit did not succeed and is to be tried again.
    pub fn commit_failed(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.handed_out = None;
        }
    }

    /// Ends the epoch of a partition: everything held is forgotten, it will be read again by whoever
    /// owns the partition next.
    pub fn revoke(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.remove(&partition) {
            self.held -= partition.held.len();
        }
    }

    /// Whether the assignment that a message was received under still holds.
    #[must_use]
    pub fn is_current(&self, entry: Entry) -> bool {
        self.partitions.get(&entry.position.partition).is_some_and(|partition| partition.epoch == entry.epoch)
    }

    /// Messages of a partition's current epoch that are not settled.
    #[must_use]
    pub fn unsettled(&self, partition: i32) -> usize {
        self.partitions.get(&partition).map_or(0, |partition| partition.unsettled)
    }

    /// Messages of a partition's current epoch of which nothing is known yet.
    #[must_use]
    pub fn undecided(&self, partition: i32) -> usize {
        self.partitions.get(&partition).map_or(0, |partition| partition.unsettled - partition.decided)
    }

    /// Decided messages that a transaction could hold now, in all partitions.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.partitions.values().map(|partition| partition.ready).sum()
    }

    /// Offsets held in memory: unsettled ones and settled ones behind an unsettled one.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;

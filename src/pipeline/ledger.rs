//! What may be committed: one watermark per partition over the frames received.
//!
//! Most frames are skipped at once while a few wait in a batch, so "the last offset seen" would
//! commit past frames that are still being graded. The ledger keeps the offsets of a partition in
//! the order in which they were *received* and lets the watermark pass only what is settled. It does
//! not expect consecutive offsets: compaction and transaction markers leave gaps.
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

#[derive(Debug)]
struct Held {
    offset: i64,
    settled: bool,
}

#[derive(Debug)]
struct PartitionLedger {
    epoch: u64,
    /// From the oldest unsettled message on, in the order received.
    held: VecDeque<Held>,
    unsettled: usize,
    /// Next offset to commit; `None` until something has been settled.
    watermark: Option<i64>,
    /// The watermark that was last handed out for a commit.
    handed_out: Option<i64>,
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
            PartitionLedger {
                epoch: *next_epoch,
                held: VecDeque::new(),
                unsettled: 0,
                watermark: None,
                handed_out: None,
            }
        });
        partition.held.push_back(Held { offset: position.offset, settled: false });
        partition.unsettled += 1;
        self.held += 1;
        Entry { position, epoch: partition.epoch }
    }

    /// Notes that a message is done with. Settlements of an earlier epoch count for nothing.
    pub fn settle(&mut self, entry: Entry) {
        let Some(partition) = self.partitions.get_mut(&entry.position.partition) else { return };
        if partition.epoch != entry.epoch {
            return;
        }
        let offset = entry.position.offset;
        let Ok(index) = partition.held.binary_search_by_key(&offset, |held| held.offset) else { return };
        let Some(held) = partition.held.get_mut(index).filter(|held| !held.settled) else { return };
        held.settled = true;
        partition.unsettled -= 1;
        while let Some(done) = partition.held.pop_front_if(|held| held.settled) {
            partition.watermark = Some(done.offset + 1);
            self.held -= 1;
        }
    }

    /// The next offset that may be committed for a partition, if anything of it is settled.
    #[must_use]
    pub fn watermark(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.watermark
    }

    /// Watermarks that moved since they were last handed out.
    pub fn take_commits(&mut self) -> Vec<NextOffset> {
        let mut commits = Vec::new();
        for (id, partition) in &mut self.partitions {
            if let Some(watermark) =
                partition.watermark.filter(|_| partition.watermark != partition.handed_out)
            {
                partition.handed_out = Some(watermark);
                commits.push((*id, watermark));
            }
        }
        commits
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

    /// Offsets held in memory: unsettled ones and settled ones behind an unsettled one.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    #[test]
    fn a_run_of_skipped_frames_moves_the_watermark_without_a_batch() {
        let mut ledger = Ledger::default();
        for offset in 10..20 {
            let entry = ledger.open(at(offset));
            ledger.settle(entry);
        }
        assert_eq!(ledger.watermark(0), Some(20));
        assert_eq!(ledger.held(), 0);
    }

    #[test]
    fn the_watermark_waits_for_the_oldest_unsettled_frame() {
        let mut ledger = Ledger::default();
        let first = ledger.open(at(5));
        let second = ledger.open(at(6));
        ledger.settle(second);
        assert_eq!(ledger.watermark(0), None);
        ledger.settle(first);
        assert_eq!(ledger.watermark(0), Some(7));
    }

    #[test]
    fn settlements_of_a_revoked_epoch_count_for_nothing() {
        let mut ledger = Ledger::default();
        let old = ledger.open(at(5));
        ledger.revoke(0);
        let again = ledger.open(at(5));
        assert!(ledger.is_current(again) && !ledger.is_current(old));
        ledger.settle(old);
        assert_eq!(ledger.watermark(0), None);
        ledger.settle(again);
        assert_eq!(ledger.watermark(0), Some(6));
    }

    #[test]
    fn a_rewound_partition_starts_a_new_epoch() {
        let mut ledger = Ledger::default();
        let old = ledger.open(at(50));
        let rewound = ledger.open(at(7));
        ledger.settle(old);
        assert_eq!(ledger.watermark(0), None);
        ledger.settle(rewound);
        assert_eq!(ledger.watermark(0), Some(8));
        assert_eq!(ledger.held(), 0);
    }

    #[test]
    fn a_watermark_is_handed_out_once_and_again_after_a_failed_commit() {
        let mut ledger = Ledger::default();
        let entry = ledger.open(at(0));
        ledger.settle(entry);
        assert_eq!(ledger.take_commits(), [(0, 1)]);
        assert_eq!(ledger.take_commits(), []);
        ledger.commit_failed();
        assert_eq!(ledger.take_commits(), [(0, 1)]);
    }

    proptest! {
        /// Against the definition: the watermark is one past the longest settled prefix of what was
        /// received, however the settlements are ordered and however the offsets are spaced.
        #[test]
        fn the_watermark_is_the_end_of_the_settled_prefix(
            gaps in prop::collection::vec(1_i64..5, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        ) {
            let mut ledger = Ledger::default();
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let entries: Vec<Entry> = offsets.iter().map(|offset| ledger.open(at(*offset))).collect();
            let mut settled = BTreeSet::new();
            for pick in &order {
                let entry = entries[pick.index(entries.len())];
                ledger.settle(entry);
                settled.insert(entry.position.offset);
                let prefix = offsets.iter().take_while(|offset| settled.contains(offset)).last();
                prop_assert_eq!(ledger.watermark(0), prefix.map(|offset| offset + 1));
                prop_assert_eq!(ledger.unsettled(0), offsets.len() - settled.len());
            }
        }
    }
}

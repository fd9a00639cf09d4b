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

#[test]
fn what_is_decided_is_due_up_to_the_first_open_frame_and_holds_the_watermark() {
    let mut ledger = Ledger::default();
    let [first, second, third] = [5, 6, 9].map(|offset| ledger.open(at(offset)));
    ledger.decide(third);
    assert_eq!((ledger.ready(), ledger.undecided(0)), (0, 2));
    assert_eq!(ledger.take_due(), []);
    ledger.settle(first);
    ledger.decide(second);
    assert_eq!((ledger.ready(), ledger.undecided(0)), (2, 0));
    assert_eq!((ledger.watermark(0), ledger.take_due()), (Some(6), vec![(0, 10)]));
    assert_eq!(ledger.take_due(), []);
    ledger.commit_failed();
    assert_eq!(ledger.take_due(), [(0, 10)]);
    ledger.settle(third);
    ledger.settle(second);
    assert_eq!((ledger.ready(), ledger.watermark(0), ledger.held()), (0, Some(10), 0));
    assert_eq!(ledger.take_due(), [], "it was handed out before");
}

proptest! {
    /// Against the definition: due is one past the longest prefix without an open frame, ready are the
    /// decided frames in it.
    #[test]
    fn due_is_the_end_of_the_prefix_in_which_nothing_is_open(
        gaps in prop::collection::vec(1_i64..5, 1..60),
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..90),
    ) {
        let mut ledger = Ledger::default();
        let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        let entries: Vec<Entry> = offsets.iter().map(|offset| ledger.open(at(*offset))).collect();
        let (mut decided, mut settled) = (BTreeSet::new(), BTreeSet::new());
        for (pick, settle) in &moves {
            let entry = entries[pick.index(entries.len())];
            if *settle {
                ledger.settle(entry);
                settled.insert(entry.position.offset);
            } else {
                ledger.decide(entry);
                decided.insert(entry.position.offset);
            }
            let known = |offset: &&i64| decided.contains(offset) || settled.contains(offset);
            let prefix: Vec<i64> = offsets.iter().take_while(known).copied().collect();
            let ready = prefix.iter().filter(|offset| !settled.contains(offset)).count();
            ledger.commit_failed();
            let due: Vec<NextOffset> = prefix.last().map(|last| (0, last + 1)).into_iter().collect();
            prop_assert_eq!(ledger.take_due(), due);
            prop_assert_eq!(ledger.ready(), ready);
            prop_assert_eq!(ledger.undecided(0), offsets.iter().filter(|offset| !known(offset)).count());
        }
    }

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

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::RejectionCode;
use crate::pipeline::message::Position;
use crate::pipeline::receipt::FlowSettings;
use crate::telemetry::metrics::Metrics;

const SAID: Outcome = Outcome::DeadLettered(RejectionCode::InvalidJson);
const SKIPPED: Outcome = Outcome::Skipped(SkipReason::TooEarly);

struct House {
    ledger: SharedLedger,
    outbox: Outbox<i64>,
    metrics: Metrics,
}

fn house() -> House {
    let settings =
        FlowSettings { max_in_flight_frames: 4, max_in_flight_bytes: 1_000, max_held_offsets: 1_000 };
    let metrics = Metrics::new(&[]).unwrap();
    let ledger = SharedLedger::new(settings, metrics.clone(), CancellationToken::new());
    let outbox =
        Outbox::new(ledger.clone(), |envelope: Envelope<i64>, outcome| envelope.receipt.settle(outcome));
    House { ledger, outbox, metrics }
}

impl House {
    fn receive(&self, partition: i32, offset: i64) -> Envelope<i64> {
        let receipt = self.ledger.open(Position { partition, offset }, 1);
        Envelope { body: offset, receipt, received_at: Instant::now() }
    }

    /// What a committed transaction held, and the offsets in it.
    fn transact(&self) -> (Vec<i64>, Vec<NextOffset>) {
        let Due { envelopes, offsets } = self.outbox.take();
        let bodies = envelopes.iter().map(|envelope| envelope.body).collect();
        self.outbox.committed(envelopes.into_iter().map(|envelope| (envelope, SAID)));
        (bodies, offsets)
    }
}

#[test]
fn nothing_is_published_before_what_came_before_it() {
    let house = house();
    let [first, second, third] = [10, 11, 12].map(|offset| house.receive(0, offset));
    house.outbox.put(third);
    house.outbox.put(second);
    assert_eq!(house.transact(), (vec![], vec![]));
    house.outbox.put(first);
    assert_eq!(house.transact(), (vec![10, 11, 12], vec![(0, 13)]));
    assert_eq!(house.transact(), (vec![], vec![]), "once");
    assert_eq!(house.ledger.in_flight_frames(), 0);
}

#[test]
fn a_stream_of_which_nothing_is_wanted_commits_its_offsets() {
    let house = house();
    for offset in 0..100 {
        house.receive(0, offset).receipt.settle(SKIPPED);
    }
    assert_eq!(house.transact(), (vec![], vec![(0, 100)]));
}

#[test]
fn what_was_aborted_is_in_the_next_transaction_again() {
    let house = house();
    house.outbox.put(house.receive(0, 5));
    let aborted = house.outbox.take();
    assert_eq!(aborted.offsets, [(0, 6)]);
    house.outbox.aborted(aborted);
    house.ledger.commit_failed();
    assert_eq!(house.transact(), (vec![5], vec![(0, 6)]));
}

#[test]
fn frames_of_an_assignment_that_is_over_are_accounted_for_and_never_published() {
    let house = house();
    let [early, late] = [5, 6].map(|offset| house.receive(0, offset));
    house.outbox.put(early);
    let drained = house.ledger.drain(&[0], Duration::ZERO);
    assert_eq!(drained.unfinished_frames, 2);
    house.outbox.forget_reassigned();
    // One that is decided only after its partition has gone.
    house.outbox.put(late);
    house.outbox.put(house.receive(0, 5));
    assert_eq!(house.transact(), (vec![5], vec![(0, 6)]), "of the new assignment alone");
    assert_eq!(house.metrics.totals().skipped.get("reassigned"), Some(&2));
    assert_eq!(house.ledger.in_flight_frames(), 0);
}

#[test]
fn a_pipeline_full_of_decided_frames_asks_for_a_transaction_and_one_full_of_open_ones_does_not() {
    let house = house();
    let mut frames: Vec<_> = (0..4).map(|offset| house.receive(0, offset)).collect();
    let first = frames.remove(0);
    for frame in frames {
        house.outbox.put(frame);
    }
    assert!(!house.ledger.waits_for_transaction(), "the first one is open");
    house.outbox.put(first);
    assert!(house.ledger.waits_for_transaction());
    assert!(!house.ledger.wait_for_room(Duration::from_secs(60)), "at once, as nothing else would make room");
    house.transact();
    assert!(house.ledger.wait_for_room(Duration::ZERO));
}

proptest! {
    /// Whatever is decided in whatever order, with transactions and aborts in between: every frame is
    /// published once, and none before its offset is committed with it.
    #[test]
    fn every_frame_is_in_one_transaction_and_the_offsets_cover_it(
        partitions in prop::collection::vec(0_i32..3, 1..40),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 0..60),
    ) {
        let house = house();
        let mut open: Vec<_> = (0..).zip(&partitions).map(|(offset, id)| house.receive(*id, offset)).collect();
        let (mut published, mut committed) = (Vec::new(), BTreeMap::new());
        let mut transact = |house: &House| {
            let before: Vec<i64> = published.clone();
            let (bodies, offsets) = house.transact();
            committed.extend(offsets);
            for body in bodies {
                assert!(!before.contains(&body), "{body} twice");
                assert!(committed[&partitions[usize::try_from(body).unwrap()]] > body, "{body} uncovered");
                published.push(body);
            }
        };
        for (pick, then) in order {
            if open.is_empty() {
                break;
            }
            house.outbox.put(open.swap_remove(pick.index(open.len())));
            match then {
                0 => {
                    house.outbox.aborted(house.outbox.take());
                    house.ledger.commit_failed();
                }
                1 => transact(&house),
                _ => {}
            }
        }
        open.into_iter().for_each(|frame| house.outbox.put(frame));
        transact(&house);
        published.sort_unstable();
        prop_assert_eq!(published, (0..).take(partitions.len()).collect::<Vec<i64>>());
        prop_assert_eq!(house.ledger.in_flight_frames(), 0);
    }
}

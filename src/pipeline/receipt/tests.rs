use super::*;

fn ledger(
    max_in_flight_frames: usize,
    max_in_flight_bytes: usize,
) -> (SharedLedger, Metrics, CancellationToken) {
    let settings = FlowSettings { max_in_flight_frames, max_in_flight_bytes, max_held_offsets: 100 };
    let (metrics, broken) = (Metrics::new(&[]).unwrap(), CancellationToken::new());
    (SharedLedger::new(settings, metrics.clone(), broken.clone()), metrics, broken)
}

fn at(partition: i32, offset: i64) -> Position {
    Position { partition, offset }
}

const SKIPPED: Outcome = Outcome::Skipped(SkipReason::TooEarly);

#[test]
fn every_outcome_is_counted_once_and_the_totals_balance() {
    let (ledger, metrics, _) = ledger(100, 1_000);
    let outcomes = [
        SKIPPED,
        Outcome::Skipped(SkipReason::Duplicate),
        Outcome::Abstained(AbstainReason::Blurred),
        Outcome::DeadLettered(RejectionCode::InvalidJson),
        Outcome::Graded { exp: Expansion::E4, icm: Some(Letter::A), te: Some(Letter::B) },
        Outcome::Graded { exp: Expansion::E2, icm: None, te: None },
    ];
    for (offset, outcome) in (0..).zip(outcomes) {
        metrics.frame_received("");
        ledger.open(at(0, offset), 1).settle(outcome);
    }
    metrics.frame_received("");
    let open = ledger.open(at(0, 99), 1);
    let totals = metrics.totals();
    let skipped: u64 = totals.skipped.values().sum();
    assert_eq!((totals.graded, totals.abstained, skipped), (2, 1, 1));
    assert_eq!((totals.duplicate, totals.dead_lettered, totals.in_flight), (1, 1, 1));
    assert_eq!(totals.received, 7);
    open.settle(SKIPPED);
    assert_eq!(metrics.totals().in_flight, 0);
}

#[test]
fn a_receipt_dropped_unsettled_breaks_the_service_and_holds_the_watermark() {
    let (ledger, _, broken) = ledger(100, 1_000);
    drop(ledger.open(at(0, 0), 1));
    assert!(broken.is_cancelled());
    ledger.open(at(0, 1), 1).settle(SKIPPED);
    assert_eq!(ledger.take_commits(), []);
    // It will never settle, so draining does not wait for it.
    let drained = ledger.drain(&[0], Duration::from_secs(60));
    assert_eq!(drained, Drained { commits: vec![], unfinished_frames: 1 });
}

#[test]
fn frames_and_bytes_both_fill_the_pipeline_and_half_is_room_again() {
    let (by_frames, ..) = ledger(2, 1_000);
    let first = by_frames.open(at(0, 0), 1);
    assert!(!by_frames.is_full());
    let second = by_frames.open(at(0, 1), 1);
    assert!(by_frames.is_full());
    first.settle(SKIPPED);
    assert!(!by_frames.is_full());
    assert!(!by_frames.wait_for_room(Duration::ZERO), "one of two is still half");
    second.settle(SKIPPED);
    assert!(by_frames.wait_for_room(Duration::ZERO));

    let (by_bytes, ..) = ledger(100, 1_000);
    let large = by_bytes.open(at(0, 0), 5_000);
    assert!(by_bytes.is_full(), "a message beyond the limit is taken, alone");
    large.settle(SKIPPED);
    assert!(!by_bytes.is_full());
}

#[test]
fn offsets_held_behind_an_unsettled_frame_fill_the_pipeline_too() {
    let (ledger, ..) = ledger(1_000, 1_000);
    let stuck = ledger.open(at(0, 0), 1);
    for offset in 1..100 {
        assert!(!ledger.is_full());
        ledger.open(at(0, offset), 1).settle(SKIPPED);
    }
    assert!(ledger.is_full());
    stuck.settle(SKIPPED);
    assert!(!ledger.is_full());
    assert_eq!(ledger.take_commits(), [(0, 100)]);
}

#[test]
fn draining_waits_for_the_frames_of_its_partitions_only() {
    let (ledger, ..) = ledger(100, 1_000);
    let (revoked, kept) = (ledger.open(at(0, 7), 1), ledger.open(at(1, 3), 1));
    let finishing = std::thread::spawn(move || revoked.settle(SKIPPED));
    let drained = ledger.drain(&[0], Duration::from_secs(60));
    assert_eq!(drained, Drained { commits: vec![(0, 8)], unfinished_frames: 0 });
    finishing.join().unwrap();
    kept.settle(SKIPPED);
    assert_eq!(ledger.take_commits(), [(1, 4)], "the other partition goes on");
}

#[test]
fn what_settles_after_a_drain_has_given_up_moves_no_watermark() {
    let (ledger, metrics, broken) = ledger(100, 1_000);
    let late = ledger.open(at(0, 7), 1);
    let drained = ledger.drain(&[0], Duration::ZERO);
    assert_eq!(drained, Drained { commits: vec![], unfinished_frames: 1 });
    let again = ledger.open(at(0, 7), 1);
    late.settle(SKIPPED);
    assert_eq!(ledger.take_commits(), []);
    again.settle(SKIPPED);
    assert_eq!(ledger.take_commits(), [(0, 8)]);
    assert_eq!(metrics.totals().in_flight, 0);
    assert!(!broken.is_cancelled());
}

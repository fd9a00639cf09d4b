//! Partitions move between processes while frames flow, and the delivery guarantee holds.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::{thread, time::Duration};

use common::kafka::Kafka;
use process::{Memebg, grade_events, metric, wait_for};
use stream::{Stream, day_5_frames};

const PATIENCE: Duration = Duration::from_secs(90);
const END_TIMEOUT: Duration = Duration::from_secs(35);

fn serve(stream: &Stream<'_>) -> Memebg {
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend([("flow.max_in_flight_frames", "24"), ("kafka.drain_timeout_ms", "30000")]);
    Memebg::start(&["serve"], &options)
}

/// Waits until this process alone has counted at least so much.
fn await_count(what: &str, least: f64, count: impl Fn() -> Option<f64>) {
    wait_for(what, PATIENCE, || count().filter(|value| *value >= least));
}

#[tokio::test]
async fn a_process_that_joins_late_and_one_that_leaves_lose_and_repeat_nothing() {
    let await_events = |address, least| await_count("grade events", least, || grade_events(address));
    let rebalances = |address| metric(address, "memebg_rebalances_total");
    let await_rebalances = |address, least| await_count("rebalances", least, || rebalances(address));
    let stream = Stream::create(Kafka::shared(), "rebalance", 6).await;
    stream.send(day_5_frames(24, 0..3));
    let mut first = serve(&stream);
    let first_at = first.address(PATIENCE);
    await_events(first_at, 5.0);
    let before = rebalances(first_at).expect("a metric");

    thread::scope(|scope| {
        // Frames go on coming while the partitions move.
        scope.spawn(|| (3..8).for_each(|run| stream.send(day_5_frames(24, run..run + 1))));
        let mut second = serve(&stream);
        let second_at = second.address(PATIENCE);
        await_events(second_at, 5.0);
        await_rebalances(first_at, before + 1.0);
        let joined = rebalances(second_at).expect("a metric");
        assert!(joined >= 1.0, "{joined}");

        first.signal("TERM");
        assert_eq!(first.end(END_TIMEOUT).code(), Some(0), "{}", first.log());
        await_rebalances(second_at, joined + 1.0);
        stream.await_committed(PATIENCE);
        second.signal("TERM");
        assert_eq!(second.end(END_TIMEOUT).code(), Some(0), "{}", second.log());
    });
    let tally = stream.check();
    eprintln!("rebalance: {tally:?}");
    assert_eq!((tally.wanted, tally.repeated), (24 * 8, 0));
}

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
use rdkafka::producer::Producer;
use stream::{Stream, day_5_frames};

const PATIENCE: Duration = Duration::from_secs(90);
const END_TIMEOUT: Duration = Duration::from_secs(35);

/// `memebg serve` on this stream, with these options beside the usual ones.
fn serve(stream: &Stream<'_>, more: &[(&str, &str)]) -> Memebg {
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend([("flow.max_in_flight_frames", "24"), ("kafka.drain_timeout_ms", "30000")]);
    options.extend(more);
    Memebg::start(&["serve"], &options)
}

/// Waits until this process alone has counted at least so much.
fn await_count(what: &str, least: f64, count: impl Fn() -> Option<f64>) {
    wait_for(what, PATIENCE, || count().filter(|value| *value >= least));
}

/// Waits until this process alone has published so many grade events.
fn await_events(process: &Memebg, least: f64) {
    let address = process.address(PATIENCE);
    await_count("grade events", least, || grade_events(address));
}

fn rebalances(process: &Memebg) -> Option<f64> {
    metric(process.address(PATIENCE), "memebg_rebalances_total")
}

fn await_rebalances(process: &Memebg, least: f64) {
    await_count("rebalances", least, || rebalances(process));
}

/// A process joins while frames come, then the first one leaves.
async fn one_joins_and_one_leaves(name: &str, options: &[(&str, &str)]) {
    let stream = Stream::create(Kafka::shared(), name, 6).await;
    stream.send(day_5_frames(24, 0..3));
    let mut first = serve(&stream, options);
    await_events(&first, 5.0);
    let before = rebalances(&first).expect("a metric");

    thread::scope(|scope| {
        // Frames go on coming while the partitions move.
        scope.spawn(|| (3..8).for_each(|run| stream.send(day_5_frames(24, run..run + 1))));
        let mut second = serve(&stream, options);
        await_events(&second, 5.0);
        await_rebalances(&first, before + 1.0);
        let joined = rebalances(&second).expect("a metric");
        assert!(joined >= 1.0, "{joined}");

        first.stop_in_peace(END_TIMEOUT);
        await_rebalances(&second, joined + 1.0);
        stream.await_committed(PATIENCE);
        second.stop_in_peace(END_TIMEOUT);
    });
    let tally = stream.check();
    eprintln!("{name}: {tally:?}");
    assert_eq!((tally.wanted, tally.repeated), (24 * 8, 0));
}

#[tokio::test]
async fn a_process_that_joins_late_and_one_that_leaves_lose_and_repeat_nothing() {
    one_joins_and_one_leaves("rebalance", &[]).await;
}

#[tokio::test]
async fn the_same_holds_when_events_and_offsets_are_committed_together() {
    one_joins_and_one_leaves("rebalance-exactly-once", &[("kafka.delivery", "exactly_once")]).await;
}

#[tokio::test]
async fn the_same_holds_when_the_broker_assigns_the_partitions() {
    // KIP-848.
    one_joins_and_one_leaves(
        "rebalance-kip-848",
        &[("kafka.consumer_properties.group_protocol", "consumer")],
    )
    .await;
}

#[tokio::test]
async fn a_static_member_that_restarts_gets_its_partitions_back_without_a_rebalance() {
    let stream = Stream::create(Kafka::shared(), "static", 6).await;
    stream.send(day_5_frames(24, 0..3));
    let member = |name| serve(&stream, &[("kafka.consumer_properties.group_instance_id", name)]);
    let (mut first, mut second) = (member("north-0"), member("north-1"));
    await_events(&first, 1.0);
    await_events(&second, 1.0);
    stream.await_committed(PATIENCE);
    let before = rebalances(&second).expect("a metric");
    first.stop_in_peace(END_TIMEOUT);
    let mut first = member("north-0");
    stream.send(day_5_frames(24, 3..5));
    await_events(&first, 1.0);
    stream.await_committed(PATIENCE);
    assert_eq!(rebalances(&second), Some(before));
    first.stop_in_peace(END_TIMEOUT);
    second.stop_in_peace(END_TIMEOUT);
    let tally = stream.check();
    assert_eq!((tally.wanted, tally.repeated), (24 * 5, 0));
}

/// A process stops for longer than its session lasts, as a paused virtual machine does, and goes on as if nothing had
/// happened. Returns how often a frame was graded again.
async fn one_is_frozen(delivery: &str) -> usize {
    let stream = Stream::create(Kafka::shared(), &format!("frozen-{delivery}"), 6).await;
    let options = [
        ("kafka.delivery", delivery),
        ("kafka.consumer_properties.session_timeout_ms", "6000"),
        ("kafka.delivery_timeout_ms", "20000"),
    ];
    stream.send(day_5_frames(24, 0..4));
    let (mut first, mut second) = (serve(&stream, &options), serve(&stream, &options));
    await_events(&first, 5.0);
    await_events(&second, 1.0);
    let before = rebalances(&first).expect("a metric");
    first.signal("STOP");
    stream.send(day_5_frames(24, 4..6));
    stream.await_committed(PATIENCE);
    first.signal("CONT");
    // It hears that it was expelled, and joins again.
    await_rebalances(&first, before + 2.0);
    stream.send(day_5_frames(24, 6..8));
    stream.await_committed(PATIENCE);
    first.stop_in_peace(END_TIMEOUT);
    second.stop_in_peace(END_TIMEOUT);
    let tally = stream.check();
    eprintln!("frozen, {delivery}: {tally:?}");
    assert_eq!(tally.wanted, 24 * 8);
    tally.repeated
}

#[tokio::test]
async fn a_frozen_process_is_replaced_and_does_no_harm_when_it_thaws() {
    one_is_frozen("at_least_once").await;
}

#[tokio::test]
async fn a_frozen_process_that_thaws_is_fenced_where_each_grade_is_published_once() {
    assert_eq!(one_is_frozen("exactly_once").await, 0);
}

#[tokio::test]
async fn a_partition_starts_at_what_is_committed_even_if_a_transaction_is_about_to_change_that() {
    let stream = Stream::create(Kafka::shared(), "open-transaction", 2).await;
    stream.send(day_5_frames(10, 0..2));
    let mut first = serve(&stream, &[]);
    stream.await_committed(PATIENCE);
    first.stop_in_peace(END_TIMEOUT);

    // As if the former owner of the partitions had died within its transaction.
    let open = stream.commit_within_a_transaction();
    let mut first = serve(&stream, &[]);
    first.logged("partitions assigned", PATIENCE);
    // The assignment of the first one changes while it waits for what is committed.
    let mut second = serve(&stream, &[]);
    second.logged("partitions assigned", PATIENCE);
    await_rebalances(&second, 2.0);
    open.abort_transaction(PATIENCE).expect("aborted");
    stream.send(day_5_frames(10, 2..4));
    stream.await_committed(PATIENCE);
    first.stop_in_peace(END_TIMEOUT);
    second.stop_in_peace(END_TIMEOUT);
    let tally = stream.check();
    assert_eq!((tally.wanted, tally.repeated), (10 * 4, 0));
}

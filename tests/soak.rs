//! A day of a large room in some minutes: memory stays where it is, and nothing is left over.
//! `cargo test --release --features broker-tests --test soak -- --ignored --nocapture`

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::time::{Duration, Instant};

use common::kafka::Kafka;
use process::{Memebg, metric, wait_for};
use stream::{Stream, a_day};

const PATIENCE: Duration = Duration::from_secs(900);
/// 1,001,088 frames in a day, 480 of them of day 5 and the central plane.
const EMBRYOS: u64 = 316;
const WANTED: usize = 480;
/// What an allocator may keep back between two looks at it.
const SLACK_BYTES: u64 = 32 << 20;

async fn soak(delivery: &str) {
    let stream = Stream::create(Kafka::shared(), &format!("soak-{delivery}"), 6).await;
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.push(("kafka.delivery", delivery));
    let mut service = Memebg::start(&["serve"], &options);
    let address = service.address(PATIENCE);
    let received = || metric(address, "memebg_frames_received_total");
    let began = Instant::now();
    let mut sizes = Vec::new();
    let mut sent = 0;
    let mut frames = a_day(EMBRYOS).peekable();
    // Twenty looks at a memory that has something to do.
    while frames.peek().is_some() {
        let part: Vec<_> = frames.by_ref().take(50_055).collect();
        sent += part.len();
        stream.send(part);
        wait_for("the frames received", PATIENCE, || received().filter(|received| *received >= sent as f64));
        sizes.push(service.resident_bytes());
    }
    stream.await_committed(PATIENCE);
    wait_for("no lag", PATIENCE, || metric(address, "memebg_consumer_lag_frames").filter(|lag| *lag == 0.0));
    let seconds = began.elapsed().as_secs();
    service.stop_in_peace(PATIENCE);
    let mib: Vec<u64> = sizes.iter().map(|bytes| bytes >> 20).collect();
    eprintln!("soak {delivery}: {sent} frames in {seconds} s, resident MiB {mib:?}");
    let events = stream.grade_events();
    assert_eq!((events.len(), events.values().sum::<usize>()), (WANTED, WANTED));
    let (early, late) = (sizes[sizes.len() / 4], sizes.iter().rev().take(5).max().expect("sizes"));
    assert!(*late <= early + SLACK_BYTES, "memory grows: {mib:?} MiB");
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_day_of_a_million_frames_leaves_memory_flat_and_no_lag() {
    soak("at_least_once").await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn so_does_one_with_transactions() {
    soak("exactly_once").await;
}

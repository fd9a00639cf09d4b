//! What exactly once costs beside at least once: the built program against a real broker, in turn within one run.
//! `cargo bench --features broker-tests --bench delivery`

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must end the run, with its reason")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/process.rs"]
mod process;
#[path = "../tests/common/stream.rs"]
mod stream;

use std::time::{Duration, Instant};

use common::kafka::Kafka;
use process::{Memebg, metric, wait_for};
use stream::{Stream, day_5_frames, skipped_frames};

const PATIENCE: Duration = Duration::from_secs(600);
const ROUNDS: usize = 5;
const DELIVERIES: [&str; 2] = ["at_least_once", "exactly_once"];

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (what, frames) in [
        ("frames that are skipped", skipped_frames(20, 0..5_000)),
        ("frames of which one in four is graded", day_5_frames(10, 0..10)),
    ] {
        let mut seconds = [const { Vec::new() }; 2];
        for round in 0..ROUNDS {
            for (delivery, seconds) in DELIVERIES.iter().zip(&mut seconds) {
                let name = format!("{delivery}-{}-{round}", frames.len());
                seconds.push(runtime.block_on(run(&name, delivery, frames.clone())));
            }
        }
        println!("{ROUNDS} rounds in turn, {} {what}, median (least to most)", frames.len());
        let [once, exactly] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds
        });
        for (delivery, seconds) in DELIVERIES.iter().zip([&once, &exactly]) {
            let rate = |index: usize| frames.len() as f64 / seconds[index];
            println!(
                "  {delivery}: {:.0} frames/s ({:.0} to {:.0})",
                rate(ROUNDS / 2),
                rate(ROUNDS - 1),
                rate(0)
            );
        }
        println!("  exactly once takes {:.2} times as long", exactly[ROUNDS / 2] / once[ROUNDS / 2]);
    }
}

/// Seconds from the first frame that is received to the commit of the last one; all lie in the topic before.
async fn run(name: &str, delivery: &str, frames: Vec<(String, Vec<u8>)>) -> f64 {
    let stream = Stream::create(Kafka::shared(), name, 6).await;
    stream.send(frames);
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend([("kafka.delivery", delivery), ("kafka.commit_interval_ms", "1000")]);
    let mut service = Memebg::start(&["serve"], &options);
    let address = service.address(PATIENCE);
    wait_for("the first frame", PATIENCE, || {
        metric(address, "memebg_frames_received_total").filter(|received| *received > 0.0)
    });
    let began = Instant::now();
    stream.await_committed(PATIENCE);
    let seconds = began.elapsed().as_secs_f64();
    service.stop_in_peace(PATIENCE);
    seconds
}

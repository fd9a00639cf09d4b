//! Several processes of one group, stopped and killed at random while frames come and the broker restarts: nothing is
//! lost, nothing contradicts itself, and with exactly once nothing is said twice.
//!
//! What is done to whom follows from a seed; `STORM_SEED` sets another one.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::{
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use common::kafka::Kafka;
use memebg::random::Random;
use process::{Memebg, wait_for};
use stream::{Stream, Tally, day_5_frames, poison_frames, skipped_frames};

const PATIENCE: Duration = Duration::from_secs(120);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const PARTITIONS: usize = 6;
const PROCESSES: usize = 3;
const ROUNDS: u64 = 9;
/// The round in which the broker restarts.
const OUTAGE: u64 = 4;
const EMBRYOS: u64 = 20;

fn serve(stream: &Stream<'_>, delivery: &str) -> Memebg {
    let drain_timeout_ms = DRAIN_TIMEOUT.as_millis().to_string();
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend([
        ("kafka.delivery", delivery),
        ("kafka.drain_timeout_ms", &drain_timeout_ms),
        ("flow.max_in_flight_frames", "24"),
        // The least that a broker allows: so long do the partitions wait for a member that died.
        ("kafka.consumer_properties.session_timeout_ms", "6000"),
        // So long do they wait for one that died within a transaction, and longer than the broker is away.
        ("kafka.delivery_timeout_ms", "20000"),
        ("model.intra_op_threads", "1"),
    ]);
    Memebg::start(&["serve"], &options)
}

/// What comes in during one round, in an order of its own: day 5, what is not wanted, what cannot be graded, and
/// `repeated` of the wanted twice.
fn frames_of(round: u64, repeated: usize, random: &mut Random) -> Vec<(String, Vec<u8>)> {
    let mut frames = day_5_frames(EMBRYOS, 2 * round..2 * round + 2);
    frames.extend(skipped_frames(EMBRYOS, 4 * round..4 * round + 4));
    frames.extend(poison_frames(4 * round..4 * round + 4));
    frames.extend_from_within(..repeated);
    for index in (1..frames.len()).rev() {
        let other = random.next_u64() % (index as u64 + 1);
        frames.swap(index, other as usize);
    }
    frames
}

/// A storm, and what the topics hold when it is over.
async fn storm(delivery: &str, repeated: usize) -> Tally {
    let seed = std::env::var("STORM_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let (began, mut random) = (Instant::now(), Random::new(seed));
    let mut kafka = Kafka::start();
    let Stream { name, partitions, .. } = Stream::create(&kafka, delivery, PARTITIONS).await;
    let mut sent = 0;
    let (mut terminated, mut killed) = (0, 0);
    let mut processes: Vec<Memebg> = {
        let stream = Stream { kafka: &kafka, name: name.clone(), partitions };
        (0..PROCESSES).map(|_| serve(&stream, delivery)).collect()
    };
    for round in 0..ROUNDS {
        let frames = frames_of(round, repeated, &mut random);
        sent += frames.len();
        if round == OUTAGE {
            kafka.restart();
        }
        let stream = Stream { kafka: &kafka, name: name.clone(), partitions };
        thread::scope(|scope| {
            let before = stream.published();
            scope.spawn(|| stream.send(frames));
            wait_for("something published", PATIENCE, || (stream.published() > before).then_some(()));
            let process = &mut processes[(random.next_u64() % PROCESSES as u64) as usize];
            if random.chance(0.5) {
                process.stop_in_peace(DRAIN_TIMEOUT + Duration::from_secs(15));
                terminated += 1;
            } else {
                process.signal("KILL");
                assert_eq!(process.end(PATIENCE).signal(), Some(9), "{}", process.log());
                killed += 1;
            }
            *process = serve(&stream, delivery);
        });
    }
    let stream = Stream { kafka: &kafka, name, partitions };
    stream.await_committed(PATIENCE);
    for process in &mut processes {
        process.stop_in_peace(DRAIN_TIMEOUT);
    }
    let tally = stream.check();
    let seconds = began.elapsed().as_secs();
    eprintln!(
        "storm {delivery}, seed {seed}: {sent} frames, {terminated} terminated, {killed} killed, {seconds} s, {tally:?}"
    );
    assert_eq!(tally.wanted as u64, 2 * ROUNDS * EMBRYOS);
    assert_eq!(tally.dead_lettered as u64, 4 * ROUNDS);
    assert!(sent > 3_000 && terminated + killed == ROUNDS, "{sent} frames");
    tally
}

#[tokio::test]
async fn at_least_once_loses_nothing_in_a_storm_and_repeats_only_identical_events() {
    storm("at_least_once", 8).await;
}

#[tokio::test]
async fn exactly_once_loses_and_repeats_nothing_in_a_storm() {
    let tally = storm("exactly_once", 0).await;
    assert_eq!((tally.repeated, tally.repeated_letters), (0, 0));
}

//! A cluster of three nodes loses one, the leader of partitions and maybe the coordinator: the others go on, and so
//! does the service.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::time::Duration;

use common::kafka::Kafka;
use process::{Memebg, grade_events, wait_for};
use stream::{Stream, Tally, day_5_frames};

const PATIENCE: Duration = Duration::from_secs(120);

async fn one_node_dies(delivery: &str) -> Tally {
    let [first, second, third] = Kafka::cluster();
    let stream = Stream::create(&second, delivery, 6).await;
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend([("kafka.delivery", delivery), ("flow.max_in_flight_frames", "24")]);
    stream.send(day_5_frames(20, 0..4));
    let mut service = Memebg::start(&["serve"], &options);
    let address = service.address(PATIENCE);
    wait_for("grade events", PATIENCE, || grade_events(address).filter(|events| *events >= 10.0));
    drop(first);
    stream.send(day_5_frames(20, 4..6));
    stream.await_committed(PATIENCE);
    service.stop_in_peace(PATIENCE);
    let tally = stream.check();
    eprintln!("failover {delivery}: {tally:?}");
    drop(third);
    tally
}

#[tokio::test]
async fn the_death_of_a_node_loses_nothing() {
    assert_eq!(one_node_dies("at_least_once").await.wanted, 20 * 6);
}

#[tokio::test]
async fn the_death_of_a_node_repeats_nothing_where_each_grade_is_published_once() {
    let tally = one_node_dies("exactly_once").await;
    assert_eq!((tally.wanted, tally.repeated), (20 * 6, 0));
}

//! The tests' own Kafka broker keeps what the other broker tests rely on: Java's partitioning, large messages where a
//! topic allows them, commits that survive a restart, and nothing left behind.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;

use std::{
    collections::BTreeMap,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use common::kafka::Kafka;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaErrorCode,
    util::Timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn producer(kafka: &Kafka) -> FutureProducer {
    kafka
        .client()
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", "33554432")
        .create()
        .expect("a producer")
}

fn consumer(kafka: &Kafka, group: &str) -> BaseConsumer {
    kafka
        .client()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer")
}

async fn send(producer: &FutureProducer, topic: &str, key: &str, payload: &[u8]) -> Result<i32, KafkaError> {
    let record = FutureRecord::to(topic).key(key).payload(payload);
    let delivery = producer.send(record, Timeout::After(PATIENCE)).await;
    delivery.map(|delivery| delivery.partition).map_err(|(error, _)| error)
}

/// The payloads of the next `count` messages, which the broker must hand over within a minute. Errors on the way are
/// no failure by themselves: librdkafka reports a coordinator that is still loading like any other and tries again.
fn receive(consumer: &BaseConsumer, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut payloads, mut errors) = (Vec::new(), Vec::new());
    while payloads.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} messages came; {errors:?}", payloads.len());
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => payloads.push(message.payload().expect("a payload").to_vec()),
            Some(Err(error)) => errors.push(error),
            None => {}
        }
    }
    payloads
}

/// What the group has committed on the `partitions` of `topic`, asked again while its coordinator is still loading.
fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> TopicPartitionList {
    let deadline = Instant::now() + PATIENCE;
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions {
        asked.add_partition(topic, partition);
    }
    loop {
        match consumer.committed_offsets(asked.clone(), Duration::from_secs(5)) {
            Ok(offsets) => return offsets,
            Err(error) => assert!(Instant::now() < deadline, "no committed offsets: {error}"),
        }
    }
}

#[tokio::test]
async fn a_key_lands_on_the_partition_that_a_java_client_would_pick() {
    let kafka = Kafka::shared();
    kafka.create_topic("java-keys", 7, &[]).await;
    let producer = producer(kafka);
    // The murmur2 hashes are those that Apache Kafka's own unit tests state.
    for (key, murmur2) in [("21", -973_932_308), ("foobar", -790_332_482), ("abc", 479_470_107)] {
        let partition = send(&producer, "java-keys", key, b"x").await.expect("delivered");
        assert_eq!(partition, (murmur2 & 0x7fff_ffff) % 7, "key {key}");
    }
}

#[tokio::test]
async fn a_message_of_20_mb_passes_only_where_the_topic_allows_it() {
    let kafka = Kafka::shared();
    kafka.create_topic("stacks", 1, &[("max.message.bytes", "33554432")]).await;
    kafka.create_topic("default-size", 1, &[]).await;
    let producer = producer(kafka);
    let stack: Vec<u8> = (0_u8..=250).cycle().take(20_000_000).collect();

    let refused = send(&producer, "default-size", "embryo", &stack).await.expect_err("above 1 MiB");
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));

    send(&producer, "stacks", "embryo", &stack).await.expect("delivered");
    let consumer = consumer(kafka, "large-messages");
    consumer.subscribe(&["stacks"]).expect("subscribed");
    assert!(receive(&consumer, 1) == [stack], "the 20 MB came back changed");
}

#[tokio::test]
async fn a_group_goes_on_behind_its_commit_after_the_broker_restarts() {
    let mut kafka = Kafka::start();
    kafka.create_topic("frames", 3, &[]).await;
    let producer = producer(&kafka);
    let mut sent_per_partition = BTreeMap::new();
    for frame in 0..30 {
        let embryo = format!("embryo-{}", frame % 10);
        let partition = send(&producer, "frames", &embryo, b"before").await.expect("delivered");
        *sent_per_partition.entry(partition).or_insert(0_i64) += 1;
    }
    {
        let first = consumer(&kafka, "graders");
        first.subscribe(&["frames"]).expect("subscribed");
        receive(&first, 30);
        first.commit_consumer_state(CommitMode::Sync).expect("committed");
    }

    kafka.restart();

    let second = consumer(&kafka, "graders");
    let committed = committed(&second, "frames", 3);
    for (partition, sent) in sent_per_partition {
        let kept = committed.find_partition("frames", partition).map(|found| found.offset());
        assert_eq!(kept, Some(Offset::Offset(sent)), "partition {partition}");
    }
    send(&producer, "frames", "embryo-0", b"after").await.expect("delivered by the producer of before");
    second.subscribe(&["frames"]).expect("subscribed");
    assert_eq!(receive(&second, 1), [b"after"], "a frame committed before the restart came again");
}

#[test]
fn a_test_that_panics_leaves_no_broker_and_no_files() {
    let kafka = Kafka::start();
    let (address, state) = (kafka.bootstrap(), kafka.state_dir());
    assert!(TcpStream::connect(&address).is_ok() && state.exists(), "the broker is up before");
    let panicked = thread::spawn(move || {
        let _kafka = kafka;
        panic!("as a failing test would");
    });
    assert!(panicked.join().is_err());
    assert!(TcpStream::connect(&address).is_err(), "the broker still listens on {address}");
    assert!(!state.exists(), "{} is still there", state.display());
}

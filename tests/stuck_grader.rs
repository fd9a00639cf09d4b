//! A model that hangs holds up its own frames and not the group: the partitions move, the membership stays.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use common::{kafka::Kafka, service::config};
use memebg::{
    domain::{GraderIdentity, ModelIdentity, Picture, Population},
    kafka::{
        sink::KafkaSink,
        source::{self, Source, SourceParts},
    },
    pipeline::{
        self, Parts,
        grade::{GradedBatch, Grader, GraderError},
        publish::Destination,
    },
    telemetry::{health::Health, metrics::Metrics, traces::Traces},
};
use process::wait_for;
use rdkafka::consumer::{BaseConsumer, Consumer};
use stream::{Stream, day_5_frames};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);
/// The least that goes with the least session time-out of a broker.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(6);
const PARTITIONS: usize = 6;

/// A fake grader: says that it has begun, hangs until it is released, and fails.
struct StuckGrader {
    identity: GraderIdentity,
    began: mpsc::Sender<()>,
    release: mpsc::Receiver<()>,
}

impl Grader for StuckGrader {
    fn identity(&self) -> &GraderIdentity {
        &self.identity
    }

    fn population(&self) -> Option<Arc<Population>> {
        None
    }

    fn input_side_px(&self) -> usize {
        224
    }

    fn max_batch_frames(&self) -> usize {
        8
    }

    fn warm_up(&mut self) -> Result<(), GraderError> {
        Ok(())
    }

    fn grade(&mut self, _: &[&Picture]) -> Result<GradedBatch, GraderError> {
        self.began.send(()).map_err(|error| GraderError(error.to_string()))?;
        let Err(end) = self.release.recv() else { return Err(GraderError("it hung".into())) };
        Err(GraderError(end.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grader_that_hangs_neither_stalls_a_rebalance_nor_costs_the_membership() {
    let stream = Stream::create(Kafka::shared(), "stuck", PARTITIONS).await;
    stream.send(day_5_frames(24, 0..2));
    let usual = stream.options();
    let mut set: Vec<String> = usual.iter().map(|(option, value)| format!("{option}={value}")).collect();
    let interval_ms = MAX_POLL_INTERVAL.as_millis();
    set.extend([
        format!("kafka.consumer_properties.session_timeout_ms={interval_ms}"),
        format!("kafka.consumer_properties.max_poll_interval_ms={interval_ms}"),
        "kafka.drain_timeout_ms=1500".to_owned(),
        "focus.max_wait_ms=100".to_owned(),
        "batch.max_wait_ms=100".to_owned(),
        "flow.max_in_flight_frames=8".to_owned(),
    ]);
    let config = config(&set.iter().map(String::as_str).collect::<Vec<_>>());

    let (began, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let model =
        ModelIdentity { name: "stuck".into(), version: "1".into(), digest: "0".repeat(64), untrained: true };
    let identity = GraderIdentity { model, device: "fake".into(), precision: "fake".into() };
    let metrics = Metrics::new(&[]).expect("metrics");
    let health = Health::new(PATIENCE, PATIENCE);
    let (broken, stop) = (CancellationToken::new(), CancellationToken::new());
    let pipeline = pipeline::start(Parts {
        settings: config.pipeline(),
        max_value_bytes: config.kafka.max_value_bytes,
        shadow: None,
        graders: vec![Box::new(StuckGrader { identity, began, release: released })],
        destination: Destination::Sink(Arc::new(KafkaSink::new(&config.kafka).expect("a sink"))),
        metrics: metrics.clone(),
        traces: Traces::default(),
        health: health.clone(),
        broken: broken.clone(),
    })
    .expect("a pipeline");
    let Source { end, .. } = source::start(SourceParts {
        settings: config.kafka,
        intake: pipeline.intake,
        ledger: pipeline.ledger,
        outbox: pipeline.outbox,
        metrics,
        health,
        stop: stop.clone(),
    })
    .expect("a source");
    has_begun.recv_timeout(PATIENCE).expect("a batch in the grader");

    let second = another_member(&stream);
    let partitions = || {
        // Its messages do not matter; polling is what makes it a member.
        drop(second.poll(Duration::from_millis(100)));
        second.assignment().expect("an assignment").count()
    };
    wait_for("partitions for the second member", PATIENCE, || Some(partitions()).filter(|count| *count > 0));
    // For longer than a member may go without polling.
    let until = Instant::now() + MAX_POLL_INTERVAL + Duration::from_secs(2);
    while Instant::now() < until {
        let count = partitions();
        assert!(count < PARTITIONS, "the first member was expelled");
    }
    assert!(!broken.is_cancelled());

    stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, end).await.expect("it ends in time").expect("no panic");
    ended.expect("a clean end");
    // What hangs may lie in partitions that have gone, in those that stayed, or in both.
    let (committed, first_wanted) = (stream.committed(), stream.first_wanted());
    assert_eq!(first_wanted.len(), PARTITIONS, "a wanted frame in every partition");
    for (partition, first) in first_wanted {
        assert!(committed[&partition] <= first, "what hangs is read again: {committed:?}");
    }
    drop(release);
}

fn another_member(stream: &Stream<'_>) -> BaseConsumer {
    let mut client = stream.kafka.client();
    client
        .set("group.id", &stream.name)
        .set("enable.auto.commit", "false")
        .set("partition.assignment.strategy", "cooperative-sticky");
    let consumer: BaseConsumer = client.create().expect("a consumer");
    consumer.subscribe(&[&stream.frames()]).expect("subscribed");
    consumer
}

//! `memebg summarize` against a real Kafka: whatever is killed or moved in the middle, the last summary of every embryo
//! is the one that all its grade events make together.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use common::kafka::Kafka;
use memebg::{
    domain::{Embryo, EmbryoSummary, GradeEvent, SummaryStatus, Window},
    random::Random,
};
use process::{Memebg, metric, wait_for};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};

const PATIENCE: Duration = Duration::from_secs(90);
const PARTITIONS: usize = 4;

struct Stream {
    kafka: &'static Kafka,
    name: &'static str,
}

impl Stream {
    async fn create(name: &'static str, summary_partitions: usize) -> Self {
        let stream = Self { kafka: Kafka::shared(), name };
        stream.kafka.create_topic(&stream.grades(), PARTITIONS, &[]).await;
        let compact = [("cleanup.policy", "compact")];
        stream.kafka.create_topic(&stream.summaries(), summary_partitions, &compact).await;
        stream
    }

    fn grades(&self) -> String {
        format!("{}.grades", self.name)
    }

    fn summaries(&self) -> String {
        format!("{}.summaries", self.name)
    }

    fn summarize(&self, more: &[(&str, &str)]) -> Memebg {
        let (brokers, grades, summaries) = (self.kafka.bootstrap(), self.grades(), self.summaries());
        let mut options = vec![
            ("kafka.brokers", brokers.as_str()),
            ("kafka.group_id", self.name),
            ("kafka.grades_topic", &grades),
            ("summaries.topic", &summaries),
            ("summaries.publish_interval_ms", "200"),
            ("kafka.delivery_timeout_ms", "10000"),
            ("kafka.consumer_properties.session_timeout_ms", "6000"),
            ("kafka.consumer_properties.statistics_interval_ms", "200"),
            ("telemetry.listen", "127.0.0.1:0"),
            ("telemetry.log_format", "json"),
        ];
        options.extend(more);
        Memebg::start(&["summarize"], &options)
    }

    fn send<'a>(&self, events: impl IntoIterator<Item = &'a GradeEvent>) {
        let mut client = self.kafka.client();
        client.set("partitioner", "murmur2_random").set("enable.idempotence", "true");
        let producer: BaseProducer = client.create().expect("a producer");
        let topic = self.grades();
        for event in events {
            let value = serde_json::to_vec(event).expect("JSON");
            let record = BaseRecord::to(&topic).key(&event.embryo_id).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("there is room");
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE).expect("the grades are confirmed");
    }

    /// Every published summary, by embryo, in order.
    fn published(&self) -> BTreeMap<String, Vec<EmbryoSummary>> {
        let mut client = self.kafka.client();
        client.set("group.id", "reads-summaries").set("enable.auto.commit", "false");
        client.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = client.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in (0..).take(PARTITIONS) {
            all.add_partition_offset(&self.summaries(), partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("an assignment");
        let (deadline, mut ended, mut found) = (Instant::now() + PATIENCE, 0, BTreeMap::new());
        while ended < PARTITIONS {
            assert!(Instant::now() < deadline, "the end of the summaries did not come");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let summary: EmbryoSummary =
                        serde_json::from_slice(message.payload().expect("a value")).expect("a summary");
                    assert_eq!(message.key(), Some(summary.embryo_id.as_bytes()));
                    found.entry(summary.embryo_id.clone()).or_insert_with(Vec::new).push(summary);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                _ => {}
            }
        }
        found
    }

    /// Waits until the last summaries are those of `events`, and checks that versions rise by one without a gap.
    fn await_summaries_of(&self, events: &[GradeEvent]) {
        let expected = expected(events);
        wait_for("the expected summaries", PATIENCE, || {
            let last = self.published().into_iter().filter_map(|(id, all)| Some((id, content(all.last()?))));
            (last.collect::<BTreeMap<_, _>>() == expected).then_some(())
        });
        for (id, all) in self.published() {
            let versions: Vec<u64> = all.iter().map(|summary| summary.version).collect();
            assert_eq!(versions, (1..).take(all.len()).collect::<Vec<_>>(), "versions of {id}");
            assert!(all.windows(2).all(|two| content(&two[0]) != content(&two[1])), "{id} was said twice");
        }
    }
}

/// A summary without its version, which says how often and not what.
fn content(summary: &EmbryoSummary) -> EmbryoSummary {
    EmbryoSummary { version: 0, ..summary.clone() }
}

/// What the events say together, worked out at once. Their windows ended long ago.
fn expected(events: &[GradeEvent]) -> BTreeMap<String, EmbryoSummary> {
    let mut embryos: BTreeMap<String, Embryo> = BTreeMap::new();
    for event in events {
        match embryos.get_mut(&event.embryo_id) {
            Some(embryo) => drop(embryo.add(event).expect("sound")),
            None => {
                let embryo = Embryo::first(Window::new(110.0, 120.0), event).expect("sound").expect("within");
                embryos.insert(event.embryo_id.clone(), embryo);
            }
        }
    }
    let ended = |mut embryo: Embryo| {
        embryo.end();
        content(&embryo.summary())
    };
    embryos.into_iter().map(|(id, embryo)| (id, ended(embryo))).collect()
}

/// `runs` grades of each of `embryos`, shuffled, every tenth of them twice.
fn grades(embryos: u64, runs: std::ops::Range<u64>, seed: u64) -> Vec<GradeEvent> {
    let examples = [
        include_str!("../schemas/examples/grade/graded.json"),
        include_str!("../schemas/examples/grade/graded_expansion_2_without_letters.json"),
        include_str!("../schemas/examples/grade/abstained_low_confidence.json"),
    ];
    let mut events = Vec::new();
    for (embryo, run) in (0..embryos).flat_map(|embryo| runs.clone().map(move |run| (embryo, run))) {
        let mut event: GradeEvent =
            serde_json::from_str(examples[((embryo + run) % 3) as usize]).expect("a grade event");
        event.embryo_id = format!("E-{embryo:04}");
        event.run = run;
        event.hpi = 111.0 + run as f64 / 10.0;
        let insemination: DateTime<Utc> = "2026-01-26T16:00:00Z".parse().expect("a time");
        event.captured_at = insemination + TimeDelta::minutes(6 * (1_110 + run as i64));
        events.push(event.clone());
        if (embryo + run) % 10 == 0 {
            events.push(event);
        }
    }
    let mut random = Random::new(seed);
    for index in (1..events.len()).rev() {
        events.swap(index, (random.next_u64() % (index as u64 + 1)) as usize);
    }
    events
}

fn end_in_peace(process: &mut Memebg) {
    process.signal("TERM");
    assert_eq!(process.end(PATIENCE).code(), Some(0), "{}", process.log());
}

/// Waits until this process alone has published so many summaries.
fn await_published(process: &Memebg, least: f64) {
    let address = process.address(PATIENCE);
    let published = || metric(address, "memebg_summaries_published_total").filter(|count| *count >= least);
    wait_for("published summaries", PATIENCE, published);
}

#[tokio::test]
async fn grades_become_summaries_and_late_ones_amend_them_even_after_they_were_forgotten() {
    let stream = Stream::create("summaries-plain", PARTITIONS).await;
    let early = grades(12, 0..8, 1);
    stream.send(&early);
    let forgetful = [("summaries.max_embryos", "3")];
    let mut process = stream.summarize(&forgetful);
    stream.await_summaries_of(&early);
    assert!(stream.published().values().flatten().all(|it| it.version > 1 || it.frames.total > 0));
    let late = grades(12, 8..12, 2);
    stream.send(&late);
    stream.await_summaries_of(&[early.clone(), late.clone()].concat());
    end_in_peace(&mut process);
    // A process that starts anew knows of them only from the topic.
    let later = grades(12, 12..14, 3);
    stream.send(&later);
    let mut process = stream.summarize(&forgetful);
    stream.await_summaries_of(&[early, late, later].concat());
    let last = stream.published().remove("E-0000").expect("a summary").pop().expect("one");
    assert_eq!((last.status, last.frames.total), (SummaryStatus::Final, 14));
    end_in_peace(&mut process);
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_changes_nothing() {
    let stream = Stream::create("summaries-killed", PARTITIONS).await;
    let events = grades(40, 0..40, 4);
    let parts: Vec<&[GradeEvent]> = events.chunks(events.len() / 4).collect();
    for part in &parts {
        stream.send(*part);
        let mut process = stream.summarize(&[]);
        await_published(&process, 1.0);
        process.signal("KILL");
        assert_eq!(process.end(PATIENCE).signal(), Some(9));
    }
    let mut process = stream.summarize(&[]);
    stream.await_summaries_of(&events);
    end_in_peace(&mut process);
}

#[tokio::test]
async fn partitions_that_move_between_processes_change_nothing() {
    let stream = Stream::create("summaries-moved", PARTITIONS).await;
    let events = grades(40, 0..30, 5);
    let parts: Vec<&[GradeEvent]> = events.chunks(events.len() / 3 + 1).collect();
    stream.send(parts[0]);
    let mut first = stream.summarize(&[]);
    await_published(&first, 1.0);
    let mut second = stream.summarize(&[]);
    // Only once it has partitions of its own: the first one would read everything.
    second.logged("state restored", PATIENCE);
    stream.send(parts[1]);
    await_published(&second, 1.0);
    end_in_peace(&mut first);
    stream.send(parts[2]);
    stream.await_summaries_of(&events);
    end_in_peace(&mut second);
}

#[tokio::test]
async fn topics_that_do_not_fit_together_are_refused() {
    let stream = Stream::create("summaries-uneven", PARTITIONS - 1).await;
    let mut process = stream.summarize(&[]);
    assert_eq!(process.end(PATIENCE).code(), Some(2), "{}", process.log());
    assert!(process.log().contains("has 4 partitions"), "{}", process.log());
}

#[tokio::test]
async fn a_grade_event_that_cannot_be_read_is_not_passed_over() {
    let stream = Stream::create("summaries-poison", PARTITIONS).await;
    let mut events = grades(1, 0..2, 6);
    events[1].hpi = -1.0;
    stream.send(&events);
    let mut process = stream.summarize(&[]);
    assert_eq!(process.end(PATIENCE).code(), Some(1), "{}", process.log());
    assert!(process.log().contains("cannot be read"), "{}", process.log());
}

//! Topics of grades, reviews, summaries and dead letters, the processes between them, and what must come out.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use memebg::{
    domain::{
        Embryo, EmbryoSummary, Expansion, GradeEvent, Letter, Review, ReviewReason, ReviewedSummary, Window,
    },
    random::Random,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::common::kafka::Kafka;
use crate::process::{Memebg, metric, wait_for};

pub const PATIENCE: Duration = Duration::from_secs(90);
pub const PARTITIONS: usize = 4;

/// A dead letter: headers by name, and the value.
pub type DeadLetter = (BTreeMap<String, String>, Option<Vec<u8>>);

pub struct Stream<'a> {
    pub kafka: &'a Kafka,
    pub name: &'static str,
    pub partitions: usize,
}

impl Stream<'static> {
    pub async fn create(name: &'static str, partitions: usize) -> Self {
        Self::create_at(Kafka::shared(), name, partitions).await
    }
}

impl<'a> Stream<'a> {
    pub async fn create_at(kafka: &'a Kafka, name: &'static str, partitions: usize) -> Self {
        let stream = Self { kafka, name, partitions };
        for topic in [stream.grades(), stream.reviews()] {
            stream.kafka.create_topic(&topic, partitions, &[]).await;
        }
        stream.kafka.create_topic(&stream.summaries(), partitions, &[("cleanup.policy", "compact")]).await;
        stream.kafka.create_topic(&stream.dead_letters(), 1, &[("max.message.bytes", "20000")]).await;
        stream
    }

    pub fn grades(&self) -> String {
        format!("{}.grades", self.name)
    }

    pub fn reviews(&self) -> String {
        format!("{}.reviews", self.name)
    }

    pub fn summaries(&self) -> String {
        format!("{}.summaries", self.name)
    }

    pub fn dead_letters(&self) -> String {
        format!("{}.dlq", self.name)
    }

    pub fn summarize(&self, more: &[(&str, &str)]) -> Memebg {
        let topics = [self.grades(), self.reviews(), self.summaries(), self.dead_letters()];
        let brokers = self.kafka.bootstrap();
        let mut options = vec![
            ("kafka.brokers", brokers.as_str()),
            ("kafka.group_id", self.name),
            ("kafka.grades_topic", &topics[0]),
            ("reviews.topic", &topics[1]),
            ("summaries.topic", &topics[2]),
            ("kafka.dead_letters_topic", &topics[3]),
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

    fn producer(&self) -> BaseProducer {
        let mut client = self.kafka.client();
        client.set("partitioner", "murmur2_random").set("enable.idempotence", "true");
        client.create().expect("a producer")
    }

    /// Sends values under keys.
    pub fn put<'r>(&self, topic: &str, records: impl IntoIterator<Item = (&'r str, Vec<u8>)>) {
        self.put_slowly(records.into_iter().map(|(key, value)| (topic, key, value)), Duration::ZERO);
    }

    /// Sends values under keys to topics, in this order and with `pause` after each.
    pub fn put_slowly<'r>(
        &self,
        records: impl IntoIterator<Item = (&'r str, &'r str, Vec<u8>)>,
        pause: Duration,
    ) {
        let producer = self.producer();
        for (topic, key, value) in records {
            let record = BaseRecord::to(topic).key(key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("there is room");
            producer.poll(Duration::ZERO);
            std::thread::sleep(pause);
        }
        producer.flush(PATIENCE).expect("the events are confirmed");
    }

    pub fn send<'r>(&self, events: impl IntoIterator<Item = &'r GradeEvent>) {
        let value = |event: &GradeEvent| serde_json::to_vec(event).expect("JSON");
        let records = events.into_iter().map(|event| (event.embryo_id.as_str(), value(event)));
        self.put(&self.grades(), records);
    }

    pub fn post<'r>(&self, reviews: impl IntoIterator<Item = &'r Review>) {
        let records = reviews.into_iter();
        let records = records.map(|it| (it.embryo_id.as_str(), it.to_json().expect("JSON")));
        self.put(&self.reviews(), records);
    }

    /// Shows everything that lies in a topic.
    fn each(
        &self,
        topic: &str,
        partitions: usize,
        isolation: &str,
        mut show: impl FnMut(&BorrowedMessage<'_>),
    ) {
        let mut client = self.kafka.client();
        client.set("group.id", "reads-summaries").set("enable.auto.commit", "false");
        client.set("enable.partition.eof", "true").set("isolation.level", isolation);
        let consumer: BaseConsumer = client.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in (0..).take(partitions) {
            all.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("an assignment");
        let (deadline, mut ended) = (Instant::now() + PATIENCE, 0);
        while ended < partitions {
            assert!(Instant::now() < deadline, "the end of {topic} did not come");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => show(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                _ => {}
            }
        }
    }

    /// How many summaries were written, whether their transaction was committed or not.
    pub fn written(&self) -> usize {
        let mut written = 0;
        self.each(&self.summaries(), self.partitions, "read_uncommitted", |_| written += 1);
        written
    }

    /// Every published summary, by embryo, in order.
    pub fn published(&self) -> BTreeMap<String, Vec<EmbryoSummary>> {
        let mut found = BTreeMap::new();
        self.each(&self.summaries(), self.partitions, "read_committed", |message| {
            let summary: EmbryoSummary =
                serde_json::from_slice(message.payload().expect("a value")).expect("a summary");
            assert_eq!(message.key(), Some(summary.embryo_id.as_bytes()));
            found.entry(summary.embryo_id.clone()).or_insert_with(Vec::new).push(summary);
        });
        found
    }

    /// The last summary of one embryo.
    pub fn last(&self, embryo_id: &str) -> Option<EmbryoSummary> {
        self.published().remove(embryo_id)?.pop()
    }

    pub fn letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        self.each(&self.dead_letters(), 1, "read_committed", |message| {
            let headers = message.headers().expect("headers").iter();
            let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            let headers = headers.map(|header| (header.key.to_owned(), text(header.value)));
            letters.push((headers.collect(), message.payload().map(<[u8]>::to_vec)));
        });
        letters
    }

    /// Waits until the last summaries are those of `events` and `reviews`, and checks that versions rise by one without
    /// a gap and that nothing is said twice.
    pub fn await_summaries_of(&self, events: &[GradeEvent], reviews: &[Review]) {
        let expected = expected(events, reviews);
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
fn expected(events: &[GradeEvent], reviews: &[Review]) -> BTreeMap<String, EmbryoSummary> {
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
    for review in reviews {
        embryos.get_mut(&review.embryo_id).expect("one with grades").review(review);
    }
    let ended = |mut embryo: Embryo| {
        embryo.end();
        content(&embryo.summary())
    };
    embryos.into_iter().map(|(id, embryo)| (id, ended(embryo))).collect()
}

pub fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for index in (1..items.len()).rev() {
        items.swap(index, (random.next_u64() % (index as u64 + 1)) as usize);
    }
}

/// `runs` grades of each of `embryos`, shuffled, every tenth of them twice.
pub fn grades(embryos: u64, runs: std::ops::Range<u64>, seed: u64) -> Vec<GradeEvent> {
    let examples = [
        include_str!("../../schemas/examples/grade/graded.json"),
        include_str!("../../schemas/examples/grade/graded_expansion_2_without_letters.json"),
        include_str!("../../schemas/examples/grade/abstained_low_confidence.json"),
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
    shuffle(&mut events, &mut Random::new(seed));
    events
}

/// A review, seconds after a fixed time: `4AB`, or `2` where it is `early`.
pub fn review(embryo_id: &str, second: u32, early: bool) -> Review {
    Review {
        embryo_id: embryo_id.to_owned(),
        site_id: "north".to_owned(),
        reviewer: "embryologist-07".to_owned(),
        reviewed_at: "2026-01-31T15:00:00Z".parse::<DateTime<Utc>>().expect("a time")
            + TimeDelta::seconds(second.into()),
        blinded: second.is_multiple_of(2),
        exp: if early { Expansion::E2 } else { Expansion::E4 },
        icm: (!early).then_some(Letter::A),
        te: (!early).then_some(Letter::B),
        reason: ReviewReason::Routine,
        summary: ReviewedSummary { version: 1, gardner: None, model_digest: "ab".repeat(32) },
    }
}

pub fn end_in_peace(process: &mut Memebg) {
    process.signal("TERM");
    assert_eq!(process.end(PATIENCE).code(), Some(0), "{}", process.log());
}

/// Waits until this process alone has published so many summaries.
pub fn await_published(process: &Memebg, least: f64) {
    let address = process.address(PATIENCE);
    let published = || metric(address, "memebg_summaries_published_total").filter(|count| *count >= least);
    wait_for("published summaries", PATIENCE, published);
}

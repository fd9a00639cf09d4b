//! What goes into the service and what must hold of what comes out.
//!
//! What is expected is worked out here from the frames topic itself, by the definition of day 5 and not by the code
//! under test, so it does not matter who produced the frames.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use base64_simd::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use memebg::incubator::{Embryo, Renderer};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::kafka::Kafka;

const PATIENCE: Duration = Duration::from_secs(30);
/// The smallest that the quality gate lets through.
const SIDE_PX: u32 = 224;
/// Embryo ids of messages that are JSON and cannot be graded begin with this.
const POISON: &str = "X-";
/// Different photographs; the frames share them.
const PHOTOGRAPHS: u64 = 8;

/// The topics and the group of one test.
pub struct Stream<'a> {
    pub kafka: &'a Kafka,
    pub name: String,
    pub partitions: usize,
}

/// Partition and offset.
type Place = (i32, i64);

/// A message as it was read.
struct Record {
    place: Place,
    value: Vec<u8>,
    headers: BTreeMap<String, String>,
}

impl Record {
    /// The frame event, unless the message is one that cannot be graded.
    fn sound_event(&self) -> Option<Value> {
        let event: Value = serde_json::from_slice(&self.value).ok()?;
        (!text(&event["embryo_id"]).starts_with(POISON)).then_some(event)
    }

    /// Where the original of a dead letter lies.
    fn original_place(&self) -> Place {
        let header = |name: &str| self.headers.get(&format!("__connect.errors.{name}")).expect("a header");
        (header("partition").parse().expect("a number"), header("offset").parse().expect("a number"))
    }
}

/// Embryo, run, focal plane.
pub type FrameKey = (String, u64, u64);

/// What the topics hold at the end.
#[derive(Debug)]
pub struct Tally {
    /// Day-5 frames of the central plane.
    pub wanted: usize,
    /// All other frames.
    pub unwanted: usize,
    /// Grade events beyond the first of a frame.
    pub repeated: usize,
    /// Messages that cannot be graded.
    pub dead_lettered: usize,
    /// Dead letters beyond the first of a message.
    pub repeated_letters: usize,
}

impl<'a> Stream<'a> {
    /// Creates the topics `name.frames`, `name.grades` and `name.dead`.
    pub async fn create(kafka: &'a Kafka, name: &str, partitions: usize) -> Self {
        let stream = Self { kafka, name: name.to_owned(), partitions };
        for topic in [stream.frames(), stream.grades(), stream.dead_letters()] {
            kafka.create_topic(&topic, partitions, &[]).await;
        }
        stream
    }

    pub fn frames(&self) -> String {
        format!("{}.frames", self.name)
    }

    pub fn grades(&self) -> String {
        format!("{}.grades", self.name)
    }

    pub fn dead_letters(&self) -> String {
        format!("{}.dead", self.name)
    }

    /// Options with which `memebg` works on this stream.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("kafka.brokers", self.kafka.bootstrap()),
            ("kafka.group_id", self.name.clone()),
            ("kafka.frames_topic", self.frames()),
            ("kafka.grades_topic", self.grades()),
            ("kafka.dead_letters_topic", self.dead_letters()),
            ("kafka.commit_interval_ms", "200".to_owned()),
            ("kafka.properties.reconnect_backoff_max_ms", "200".to_owned()),
            ("kafka.consumer_properties.statistics_interval_ms", "200".to_owned()),
            ("model.graders", "1".to_owned()),
            ("telemetry.listen", "127.0.0.1:0".to_owned()),
            ("telemetry.log_format", "json".to_owned()),
        ]
    }

    /// Sends frame events, in order, and waits for their confirmation.
    pub fn send(&self, frames: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let mut client = self.kafka.client();
        client.set("partitioner", "murmur2_random").set("enable.idempotence", "true");
        let producer: BaseProducer = client.create().expect("a producer");
        let topic = self.frames();
        for (embryo, event) in frames {
            let mut record = BaseRecord::to(&topic).key(&embryo).payload(&event);
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE).expect("the frames are confirmed");
    }

    /// Waits until the group has committed the end of every partition of the frames topic.
    pub fn await_committed(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let (committed, ends) = (self.committed(), self.ends_of_frames());
            if committed == ends {
                return;
            }
            assert!(Instant::now() < deadline, "not within {within:?}: committed {committed:?} of {ends:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the group has committed of every partition of the frames topic; 0 for nothing.
    pub fn committed(&self) -> BTreeMap<i32, i64> {
        let deadline = Instant::now() + PATIENCE;
        let (consumer, topic) = (self.consumer(), self.frames());
        let next = |offset| if let Offset::Offset(next) = offset { next } else { 0 };
        loop {
            match consumer.committed_offsets(self.list(&topic, Offset::Invalid), PATIENCE) {
                Ok(list) => {
                    return list.elements().iter().map(|it| (it.partition(), next(it.offset()))).collect();
                }
                // A coordinator that is still loading, or a broker that is away.
                Err(error) => assert!(Instant::now() < deadline, "no committed offsets: {error}"),
            }
        }
    }

    /// Log end of every partition of the frames topic.
    pub fn ends_of_frames(&self) -> BTreeMap<i32, i64> {
        self.ends(&self.consumer(), &self.frames())
    }

    /// Offset of the first wanted frame of every partition that has one: without a grade none may commit beyond it.
    pub fn first_wanted(&self) -> BTreeMap<i32, i64> {
        let frames = self.read(&self.frames());
        let wanted = frames.iter().filter(|it| it.sound_event().is_some_and(|event| is_wanted(&event)));
        // Backwards, so that the first of a partition stays.
        wanted.rev().map(|it| it.place).collect()
    }

    /// Reads all topics and checks what must hold however often the service was stopped: every wanted frame has a
    /// grade event and no other frame has one; a frame has one grade id, a grade id one content; what cannot be graded
    /// has a dead letter, and nothing else has one.
    pub fn check(&self) -> Tally {
        let mut wanted: BTreeMap<FrameKey, bool> = BTreeMap::new();
        let mut poison = BTreeSet::new();
        for frame in self.read(&self.frames()) {
            match frame.sound_event() {
                Some(event) => {
                    *wanted.entry(frame_key(&event, "focal_plane_index")).or_default() |= is_wanted(&event)
                }
                None => drop(poison.insert(frame.place)),
            }
        }
        let mut contents: BTreeMap<String, Value> = BTreeMap::new();
        let mut ids: BTreeMap<FrameKey, BTreeSet<String>> = BTreeMap::new();
        let events = self.read(&self.grades());
        let total = events.len();
        for event in &events {
            let mut event: Value = serde_json::from_slice(&event.value).expect("JSON");
            event.as_object_mut().expect("a grade event").remove("timings").expect("timings");
            let id = event["id"].as_str().expect("a grade id").to_owned();
            let key =
                (text(&event["embryo_id"]), number(&event["run"]), number(&event["focal_plane"]["index"]));
            assert_eq!(wanted.get(&key), Some(&true), "{key:?} was graded and not wanted");
            ids.entry(key).or_default().insert(id.clone());
            let known = contents.entry(id).or_insert_with(|| event.clone());
            assert_eq!(*known, event, "one grade id with two contents");
        }
        let lost: Vec<_> = wanted.iter().filter(|(key, wanted)| **wanted && !ids.contains_key(key)).collect();
        assert!(lost.is_empty(), "{} wanted frames without a grade event: {lost:?}", lost.len());
        let ambiguous: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() != 1).collect();
        assert!(ambiguous.is_empty(), "frames with several grade ids: {ambiguous:?}");
        let letters: Vec<Place> =
            self.read(&self.dead_letters()).iter().map(Record::original_place).collect();
        let dead: BTreeSet<Place> = letters.iter().copied().collect();
        assert_eq!(dead, poison, "what was dead-lettered, and what cannot be graded");
        Tally {
            wanted: ids.len(),
            unwanted: wanted.len() - ids.len(),
            repeated: total - ids.len(),
            dead_lettered: dead.len(),
            repeated_letters: letters.len() - dead.len(),
        }
    }

    /// Opens a transaction that commits the end of every partition for the group.
    pub fn commit_within_a_transaction(&self) -> BaseProducer {
        let mut client = self.kafka.client();
        let producer: BaseProducer =
            client.set("transactional.id", &self.name).create().expect("a transactional producer");
        let consumer = self.consumer();
        let mut offsets = TopicPartitionList::new();
        for (partition, end) in self.ends_of_frames() {
            offsets.add_partition_offset(&self.frames(), partition, Offset::Offset(end)).expect("an offset");
        }
        producer.init_transactions(PATIENCE).expect("initialised");
        producer.begin_transaction().expect("begun");
        let group = consumer.group_metadata().expect("a group");
        producer.send_offsets_to_transaction(&offsets, &group, PATIENCE).expect("sent");
        producer
    }

    /// Every grade event, by the frame that it is about.
    pub fn grade_events(&self) -> BTreeMap<FrameKey, usize> {
        let mut events = BTreeMap::new();
        for event in self.read(&self.grades()) {
            let event: Value = serde_json::from_slice(&event.value).expect("JSON");
            let id =
                (text(&event["embryo_id"]), number(&event["run"]), number(&event["focal_plane"]["index"]));
            *events.entry(id).or_default() += 1;
        }
        events
    }

    /// How much is published, counted in offsets: grade events, dead letters and ends of transactions.
    pub fn published(&self) -> i64 {
        let consumer = self.consumer();
        let topics = [self.grades(), self.dead_letters()];
        topics.iter().flat_map(|topic| self.ends(&consumer, topic).into_values()).sum()
    }

    fn consumer(&self) -> BaseConsumer {
        let mut client = self.kafka.client();
        client.set("group.id", &self.name).set("enable.auto.commit", "false");
        client.create().expect("a consumer")
    }

    /// Log end of every partition, asked again while the broker is away.
    fn ends(&self, consumer: &BaseConsumer, topic: &str) -> BTreeMap<i32, i64> {
        let deadline = Instant::now() + PATIENCE;
        let end = |partition| loop {
            match consumer.fetch_watermarks(topic, partition, Duration::from_secs(5)) {
                Ok((_, end)) => return (partition, end),
                Err(error) => {
                    assert!(Instant::now() < deadline, "no log end of {topic}/{partition}: {error}")
                }
            }
        };
        (0..).take(self.partitions).map(end).collect()
    }

    fn list(&self, topic: &str, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in (0..).take(self.partitions) {
            list.add_partition_offset(topic, partition, offset).expect("an offset");
        }
        list
    }

    /// Every committed message of a topic, once no transaction is open any more.
    fn read(&self, topic: &str) -> Vec<Record> {
        let deadline = Instant::now() + PATIENCE;
        let consumer = self.reader("read_committed");
        let all = self.ends(&self.reader("read_uncommitted"), topic);
        while self.ends(&consumer, topic) != all {
            assert!(Instant::now() < deadline, "a transaction on {topic} stays open");
            std::thread::sleep(Duration::from_millis(100));
        }
        consumer.assign(&self.list(topic, Offset::Beginning)).expect("an assignment");
        let (mut records, mut read) = (Vec::new(), BTreeSet::new());
        while read.len() < self.partitions {
            assert!(Instant::now() < deadline, "the end of {topic} did not come: {} messages", records.len());
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(read.insert(partition)),
                _ => {}
            }
        }
        records
    }

    fn reader(&self, isolation: &str) -> BaseConsumer {
        let mut client = self.kafka.client();
        client.set("group.id", &self.name).set("enable.auto.commit", "false");
        client.set("enable.partition.eof", "true").set("isolation.level", isolation);
        client.create().expect("a consumer")
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Record {
        place: (message.partition(), message.offset()),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers.map(|it| (it.key.to_owned(), it.value.map(text).unwrap_or_default())).collect(),
    }
}

/// Day-5 frames of the central plane: `runs` captures of each of `embryos`, one run of all after the other, each
/// beside two planes and an earlier capture that are not wanted.
pub fn day_5_frames(embryos: u64, runs: std::ops::Range<u64>) -> Vec<(String, Vec<u8>)> {
    let mut renderer = Renderer::new(SIDE_PX);
    let photographs: Vec<Vec<u8>> = (0..PHOTOGRAPHS)
        .map(|seed| renderer.render(&Embryo::new(seed), 116.0, 0.0))
        .map(|picture| Renderer::jpeg(&picture).expect("a JPEG"))
        .collect();
    let each = runs.flat_map(|run| (0..embryos).map(move |embryo| (run, embryo)));
    each.flat_map(|(run, embryo)| {
        let photograph = &photographs[((run + embryo) % PHOTOGRAPHS) as usize];
        let shot = |run, hpi, plane| frame(embryo, run, hpi, plane, photograph);
        [shot(1_000 + run, 60.0, 1), shot(run, 112.0, 0), shot(run, 112.0, 1), shot(run, 112.0, 2)]
    })
    .collect()
}

/// What a room of `embryos` sends in a day, at 11 focal planes every five minutes. One in 80 embryos is at the end of
/// its day 5. The images of the others are never looked at, and small.
pub fn a_day(embryos: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    const PLANES: u32 = 11;
    const CAPTURES: u64 = 24 * 12;
    let photograph =
        Renderer::jpeg(&Renderer::new(SIDE_PX).render(&Embryo::new(1), 116.0, 0.0)).expect("a JPEG");
    let each = (0..CAPTURES).flat_map(move |capture| (0..embryos).map(move |embryo| (capture, embryo)));
    each.flat_map(move |(capture, embryo)| {
        let at_start = if embryo % 80 == 0 { 108.0 } else { (embryo % 4) as f64 * 24.0 };
        let hpi = at_start + capture as f64 / 12.0;
        let photograph = photograph.clone();
        (0..PLANES).map(move |plane| {
            let wanted = (110.0..120.0).contains(&hpi) && plane == PLANES / 2;
            let image: &[u8] = if wanted { &photograph } else { b"never looked at" };
            frame_of(embryo, capture, hpi, (plane, PLANES), image)
        })
    })
}

/// Frames of which none is wanted: too early, too late, or of another focal plane.
pub fn skipped_frames(embryos: u64, runs: std::ops::Range<u64>) -> Vec<(String, Vec<u8>)> {
    let each = runs.flat_map(|run| (0..embryos).map(move |embryo| (run, embryo)));
    each.flat_map(|(run, embryo)| {
        [(30.0, 1), (109.99, 1), (116.0, 0), (120.0, 1)]
            .map(|(hpi, plane)| frame(embryo, run * 10 + hpi as u64 * 1_000, hpi, plane, b"never looked at"))
    })
    .collect()
}

/// What comes in and cannot be graded, in every stage: one message per number.
pub fn poison_frames(numbers: std::ops::Range<u64>) -> Vec<(String, Vec<u8>)> {
    let spoilt = |index: u64, spoil: &dyn Fn(&mut Value)| {
        let (_, event) = frame(index, 1, 112.0, 1, b"not a picture");
        let mut event: Value = serde_json::from_slice(&event).expect("JSON");
        let embryo_id = format!("{POISON}{index:04}");
        event["embryo_id"] = json!(embryo_id);
        spoil(&mut event);
        (embryo_id, event.to_string().into_bytes())
    };
    let each = numbers.map(|index| match index % 4 {
        0 => (format!("{POISON}{index:04}"), format!("{{ no JSON {index}").into_bytes()),
        1 => spoilt(index, &|event| event["insemination_time"] = json!("2100-01-01T00:00:00Z")),
        2 => spoilt(index, &|event| event["image"]["sha256"] = json!("0".repeat(64))),
        _ => spoilt(index, &|_| {}),
    });
    each.collect()
}

fn frame(embryo: u64, run: u64, hpi: f64, plane: u32, photograph: &[u8]) -> (String, Vec<u8>) {
    frame_of(embryo, run, hpi, (plane, 3), photograph)
}

fn frame_of(
    embryo: u64,
    run: u64,
    hpi: f64,
    (plane, planes): (u32, u32),
    photograph: &[u8],
) -> (String, Vec<u8>) {
    let embryo_id = format!("E-{embryo:04}");
    let insemination = DateTime::<Utc>::from_timestamp(1_700_000_000, 0).expect("a time");
    let event = json!({
        "site_id": "north", "instrument": {"vendor": "v", "model": "m", "serial": "1"}, "slide_id": "S-1",
        "well": 1, "embryo_id": embryo_id, "run": run, "focal_plane_index": plane,
        "focal_offset_um": 15.0 * (f64::from(plane) - f64::from(planes / 2)), "focal_plane_count": planes,
        "captured_at": insemination + TimeDelta::milliseconds((hpi * 3_600_000.0) as i64),
        "insemination_time": insemination, "insemination_method": "IVF", "time_zero_source": "incubator",
        "image": {
            "data": STANDARD.encode_to_string(photograph),
            "sha256": hex::encode(Sha256::digest(photograph)), "media_type": "image/jpeg",
            "bytes": photograph.len(), "width": SIDE_PX, "height": SIDE_PX,
        },
    });
    (embryo_id, event.to_string().into_bytes())
}

fn is_wanted(frame: &Value) -> bool {
    let time = |field: &str| text(&frame[field]).parse::<DateTime<Utc>>().expect("a time");
    let hpi = (time("captured_at") - time("insemination_time")).as_seconds_f64() / 3_600.0;
    let central = number(&frame["focal_plane_index"]) == number(&frame["focal_plane_count"]) / 2;
    (110.0..120.0).contains(&hpi) && central
}

fn frame_key(frame: &Value, plane: &str) -> FrameKey {
    (text(&frame["embryo_id"]), number(&frame["run"]), number(&frame[plane]))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a whole number")
}

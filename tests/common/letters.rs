//! `memebg dlq` as a child process, letters written by hand, and what lies in the topics afterwards.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::process::{Memebg, wait_for};
use crate::stream::Stream;

pub const PATIENCE: Duration = Duration::from_secs(90);
/// When the frames behind the letters were sent, one second after the other. Not longer ago than the broker's
/// retention, which goes by this time.
pub static SENT_AT_MS: LazyLock<i64> = LazyLock::new(|| (Utc::now() - TimeDelta::days(2)).timestamp_millis());
pub const REPLAYED_FROM: &str = "memebg.replayed.from";

/// How a run of the program ended.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Its output, which must be that of a success.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }

    /// Its output, which must be that of a failure with this code.
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self.out + &self.err
    }
}

pub fn command(stream: &Stream<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MEMEBG__")) {
        command.env_remove(name);
    }
    for (option, value) in stream.options() {
        command.env(format!("MEMEBG__{}", option.replace('.', "__").to_uppercase()), value);
    }
    command.arg("dlq").args(arguments).stdin(Stdio::null());
    command
}

pub fn dlq(stream: &Stream<'_>, arguments: &[&str]) -> Ended {
    let output = command(stream, arguments).output().expect("memebg can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The letters and the counts of `ls --json`.
pub fn ls(stream: &Stream<'_>, arguments: &[&str]) -> (Vec<Value>, BTreeMap<String, u64>) {
    let out = dlq(stream, &[&["ls", "--json"], arguments].concat()).ok();
    let mut lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let summary = lines.pop().expect("a summary");
    let counts = summary["summary"]["counts"].as_array().expect("counts").iter();
    let counts =
        counts.map(|it| (it["code"].as_str().unwrap_or("-").to_owned(), it["letters"].as_u64().unwrap()));
    (lines, counts.collect())
}

/// A record to put somewhere by hand, and what is read back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Raw {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp_ms: Option<i64>,
}

impl Raw {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name)?;
        std::str::from_utf8(&found.1).ok()
    }
}

pub fn producer(stream: &Stream<'_>, more: &[(&str, &str)]) -> BaseProducer {
    let mut client = stream.kafka.client();
    client.set("enable.idempotence", "true").set("message.max.bytes", "33554432");
    client.set("partitioner", "murmur2_random").set("queue.buffering.max.kbytes", "65536");
    for (property, value) in more {
        client.set(*property, *value);
    }
    client.create().expect("a producer")
}

/// Sends `record`; partition -1 is where its key leads.
pub fn enqueue(producer: &BaseProducer, topic: &str, record: &Raw) {
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let mut sent = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
    (sent.key, sent.payload, sent.timestamp) =
        (record.key.as_deref(), record.value.as_deref(), record.timestamp_ms);
    sent.partition = Some(record.partition).filter(|partition| *partition >= 0);
    while let Err((error, back)) = producer.send(sent) {
        assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(50));
        sent = back;
    }
    producer.poll(Duration::ZERO);
}

pub fn put(stream: &Stream<'_>, topic: &str, records: &[Raw]) {
    let producer = producer(stream, &[]);
    records.iter().for_each(|record| enqueue(&producer, topic, record));
    producer.flush(PATIENCE).expect("confirmed");
}

/// Everything that is committed in a topic, in the order of each partition.
pub fn read(stream: &Stream<'_>, topic: &str) -> Vec<Raw> {
    let mut client = stream.kafka.client();
    client.set("group.id", "tests-read-back").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    let partitions = i32::try_from(stream.partitions).expect("few");
    (0..partitions).for_each(|it| all.add_partition_offset(topic, it, Offset::Beginning).expect("an offset"));
    consumer.assign(&all).expect("assigned");
    let (mut found, mut left, deadline) = (Vec::new(), partitions, Instant::now() + PATIENCE);
    while left > 0 {
        assert!(Instant::now() < deadline, "{topic} could not be read to its end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let headers = message.headers().into_iter().flat_map(Headers::iter);
                found.push(Raw {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(Into::into),
                    value: message.payload().map(Into::into),
                    headers: headers.map(|it| (it.key.into(), it.value.unwrap_or_default().into())).collect(),
                    timestamp_ms: message.timestamp().to_millis(),
                });
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => left -= 1,
            _ => {}
        }
    }
    found.sort_by_key(|it| (it.partition, it.offset));
    found
}

/// A letter as the service writes them, number `n` of partition 0.
pub fn letter(topic: &str, n: i64, stage: &str, code: &str, value: impl Into<Vec<u8>>) -> Raw {
    let headers = [
        ("__connect.errors.topic", topic),
        ("__connect.errors.partition", "0"),
        ("__connect.errors.offset", &n.to_string()),
        ("__connect.errors.stage", stage),
        ("__connect.errors.exception.class.name", "memebg::domain::Rejection"),
        ("__connect.errors.exception.message", "by hand"),
        ("memebg.error.code", code),
        ("x-lab", "\u{1b}[2J"),
    ];
    Raw {
        key: Some(format!("E-{n}").into()),
        value: Some(value.into()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into())).into(),
        timestamp_ms: Some(*SENT_AT_MS + n * 1_000),
        ..Raw::default()
    }
}

pub fn event(site: &str) -> String {
    json!({ "image": { "data": "AAAA" }, "site_id": site, "patient_name": "Ada Invented" }).to_string()
}

pub fn serve(stream: &Stream<'_>, more: &[(&str, &str)]) -> Memebg {
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend(more);
    Memebg::start(&["serve"], &options)
}

/// Serves until everything in the frames topic is settled.
pub fn serve_to_the_end(stream: &Stream<'_>, more: &[(&str, &str)]) {
    let ends: BTreeMap<i32, i64> =
        read(stream, &stream.frames()).iter().map(|frame| (frame.partition, frame.offset + 1)).collect();
    let mut service = serve(stream, more);
    let mut client = stream.kafka.client();
    client.set("group.id", &stream.name);
    let group: BaseConsumer = client.create().expect("a consumer");
    // Not to the end of the log: behind the last frame lies the end of its transaction, which nobody commits.
    wait_for("everything is committed", PATIENCE, || {
        let mut asked = TopicPartitionList::new();
        ends.keys().for_each(|partition| {
            asked.add_partition(&stream.frames(), *partition);
        });
        let committed = group.committed_offsets(asked, PATIENCE).ok()?;
        let is_settled = |(partition, end): (&i32, &i64)| {
            committed.find_partition(&stream.frames(), *partition).is_some_and(|it| match it.offset() {
                Offset::Offset(next) => next >= *end,
                _ => false,
            })
        };
        ends.iter().all(is_settled).then_some(())
    });
    service.signal("TERM");
    assert_eq!(service.end(PATIENCE).code(), Some(0), "{}", service.log());
}

//! The real service, with the real model, on a broker and topics of its own. The model's limits are off, so that what
//! passes the quality gate is graded.
//!
//! Tests share one where they can ([`shared`]): a start takes some seconds. Whoever lets go of it last stops it, and
//! then it has to have kept its promises for everything that all of them sent.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use memebg::config::{Config, Layers};
use memebg::domain::{GradeEvent, GraderIdentity};
use memebg::kafka::Delivery;
use memebg::kafka::embedded::EmbeddedBroker;
use memebg::kafka::source::SourceEnd;
use memebg::pipeline::message::{Position, RawMessage};
use memebg::service::Service;
use memebg::telemetry::metrics::{Metrics, Totals};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bundle;
use super::frames::{Record, SENT_AT_MS};
use super::published::Published;

/// Far above what anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PARTITIONS: i32 = 4;
/// How often a condition that nobody signals is looked at.
const GLANCE: Duration = Duration::from_millis(5);

static GRADE_SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = include_str!("../../schemas/grade.v1.schema.json");
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema")
});

/// The one instance that all who ask while it is in use share; the next one after that starts anew.
pub fn shared<T>(slot: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *slot = Arc::downgrade(&started);
        started
    })
}

/// A running service. Dropping it stops it and checks that no frame was lost.
pub struct TestService {
    pub metrics: Metrics,
    pub address: SocketAddr,
    pub identity: GraderIdentity,
    pub config: Config,
    runtime: Runtime,
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<SourceEnd>>>,
    producer: FutureProducer,
    published: Published,
    /// Frames sent, by partition.
    sent: Mutex<BTreeMap<i32, i64>>,
    client: ClientConfig,
    _bundle: TempDir,
    /// Last, so that it outlives its clients.
    _broker: Option<EmbeddedBroker>,
}

impl TestService {
    /// With the demo's configuration and `section.key=value` on top of it, on an embedded broker.
    pub fn start(set: &[&str]) -> Self {
        let mut config = config(set);
        let kafka = &config.kafka;
        let broker = EmbeddedBroker::start(&[
            (&kafka.frames_topic, PARTITIONS),
            (&kafka.grades_topic, 1),
            (&kafka.dead_letters_topic, 1),
            (&config.shadow.topic, 1),
        ])
        .expect("a broker");
        config.kafka.brokers = broker.bootstrap_servers().to_owned();
        Self::connect(config, Some(broker))
    }

    /// On the broker of `config`, where the topics are: [`PARTITIONS`] of frames, and one of each of the others.
    pub fn connect(mut config: Config, broker: Option<EmbeddedBroker>) -> Self {
        let bundle = tempfile::tempdir().expect("a temporary folder");
        bundle::copy_without_limits(bundle.path());
        bundle.path().clone_into(&mut config.model.bundle);
        let runtime = Runtime::new().expect("a runtime");
        let stop = CancellationToken::new();
        let service = runtime.block_on(Service::start(config.clone(), stop.clone())).expect("a service");
        let (metrics, address, identity) =
            (service.metrics.clone(), service.address, service.identity.clone());
        let running = Some(runtime.spawn(service.run()));

        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &config.kafka.brokers);
        let producer = client
            .clone()
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("message.max.bytes", "33554432")
            .create()
            .expect("a producer");
        let topics = [config.kafka.grades_topic.as_str(), config.kafka.dead_letters_topic.as_str()];
        let published = Published::follow(client.clone().set("fetch.wait.max.ms", "20"), &topics);
        let sent = Mutex::default();
        Self {
            metrics,
            address,
            identity,
            config,
            runtime,
            stop,
            running,
            producer,
            published,
            sent,
            client,
            _bundle: bundle,
            _broker: broker,
        }
    }

    /// Sends a record and returns where it lies.
    pub fn send(&self, record: &Record) -> Position {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut future = FutureRecord::<[u8], [u8]>::to(&self.config.kafka.frames_topic)
            .headers(headers)
            .timestamp(SENT_AT_MS);
        (future.partition, future.key, future.payload) =
            (record.partition, record.key.as_deref(), record.value.as_deref());
        // Counted before the service can have received it, and held so that nobody sees one without the other.
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let delivery = self.runtime.block_on(self.producer.send(future, PATIENCE)).expect("delivered");
        *sent.entry(delivery.partition).or_default() += 1;
        Position { partition: delivery.partition, offset: delivery.offset }
    }

    /// The first `count` grade events of an embryo, in the order of their publication.
    pub fn grades_of(&self, embryo_id: &str, count: usize) -> Vec<(RawMessage, GradeEvent)> {
        self.wait_for(&format!("{count} grade events of {embryo_id}"), |messages| {
            let own: Vec<_> = self.grades_in(messages, embryo_id).take(count).collect();
            (own.len() == count).then_some(own)
        })
    }

    /// How many grade events of an embryo have been published by now.
    pub fn count_grades_of(&self, embryo_id: &str) -> usize {
        let topic = self.config.kafka.grades_topic.as_str();
        let published = self.grades_in_the_log();
        self.wait_for("copy of the grades topic", |messages| {
            let read = messages.iter().filter(|message| &*message.topic == topic).count();
            (read >= published).then(|| self.grades_in(messages, embryo_id).count())
        })
    }

    fn grades_in<'a>(
        &'a self,
        messages: &'a [RawMessage],
        embryo_id: &'a str,
    ) -> impl Iterator<Item = (RawMessage, GradeEvent)> + 'a {
        let topic = self.config.kafka.grades_topic.as_str();
        let own = messages.iter().filter(move |message| {
            &*message.topic == topic && message.key.as_deref() == Some(embryo_id.as_bytes())
        });
        own.map(|message| (message.clone(), grade_event(message)))
    }

    /// The dead letter of the record that lies at `position`.
    pub fn dead_letter_of(&self, position: Position) -> RawMessage {
        self.wait_for(&format!("a dead letter of {position:?}"), |messages| {
            messages.iter().find(|message| origin(message) == Some(position)).cloned()
        })
    }

    fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&[RawMessage]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = self.published.wait_for(Duration::from_secs(1), &mut find) {
                return found;
            }
            assert!(self.is_running(), "the service ended while the test waited for {what}");
        }
        panic!("nothing within {PATIENCE:?} of what was awaited, {what}; {:?}", self.totals());
    }

    /// Waits for a condition that nobody signals, such as a counter.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not {what} within {PATIENCE:?}; {:?}", self.totals());
            assert!(self.is_running(), "the service ended while the test waited for {what}");
            std::thread::park_timeout(GLANCE);
        }
    }

    /// Waits until the frame at `position` is settled and committed.
    pub fn wait_until_committed(&self, position: Position) {
        let group = self.group();
        self.wait_until("committed", || {
            let committed = self.committed(&group);
            committed.get(&position.partition).is_some_and(|next| *next > position.offset)
        });
    }

    /// The first `count` messages of another topic.
    pub fn read_topic(&self, topic: &str, count: usize) -> Vec<RawMessage> {
        let published = Published::follow(&self.client, &[topic]);
        let first = |messages: &[RawMessage]| messages.get(..count).map(<[RawMessage]>::to_vec);
        published.wait_for(PATIENCE, first).unwrap_or_else(|| panic!("no {count} messages in {topic}"))
    }

    pub fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    /// Messages in the grades topic.
    pub fn grades_in_the_log(&self) -> usize {
        usize::try_from(self.log_end(&self.group(), &self.config.kafka.grades_topic, 0)).expect("few")
    }

    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_finished())
    }

    /// A client that looks things up for the service's group and never joins it.
    fn group(&self) -> BaseConsumer {
        self.client.clone().set("group.id", &self.config.kafka.group_id).create().expect("a client")
    }

    fn committed(&self, group: &BaseConsumer) -> BTreeMap<i32, i64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.config.kafka.frames_topic, 0, PARTITIONS - 1);
        let committed = group.committed_offsets(asked, PATIENCE).expect("committed offsets");
        let next = |offset| if let Offset::Offset(next) = offset { next } else { 0 };
        committed.elements().iter().map(|found| (found.partition(), next(found.offset()))).collect()
    }

    fn log_end(&self, client: &BaseConsumer, topic: &str, partition: i32) -> i64 {
        client.fetch_watermarks(topic, partition, PATIENCE).expect("watermarks").1
    }

    /// Stops the service and holds it to its promises: nothing lost, nothing twice, everything committed.
    fn finish(&mut self) {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent_frames = u64::try_from(sent.values().sum::<i64>()).expect("not negative");
        self.wait_until("everything settled", || {
            let totals = self.totals();
            totals.received >= sent_frames && totals.in_flight == 0
        });
        self.stop.cancel();
        let running = self.running.take().expect("it runs until here");
        let end = self.runtime.block_on(running).expect("no panic").expect("a clean end");
        assert_eq!(end.unfinished_frames, 0);

        let totals = self.totals();
        let Totals { received, graded, abstained, skipped, duplicate, dead_lettered, in_flight } = &totals;
        assert_eq!((*received, *in_flight), (sent_frames, 0), "{totals:?}");
        let accounted = graded + abstained + skipped.values().sum::<u64>() + duplicate + dead_lettered;
        assert_eq!(accounted, *received, "the conservation law: {totals:?}");

        let group = self.group();
        let committed: Vec<_> = self.committed(&group).into_iter().filter(|(_, next)| *next > 0).collect();
        assert_eq!(committed, Vec::from_iter(sent), "committed offsets are the ends of the log");

        let ends = [&self.config.kafka.grades_topic, &self.config.kafka.dead_letters_topic]
            .map(|topic| usize::try_from(self.log_end(&group, topic, 0)).expect("not negative"));
        let all: usize = match self.config.kafka.delivery {
            Delivery::AtLeastOnce => ends.iter().sum(),
            // The ends of transactions take offsets too.
            Delivery::ExactlyOnce => usize::try_from(graded + abstained + dead_lettered).expect("few"),
        };
        let read = |messages: &[RawMessage]| (messages.len() >= all).then(|| messages.to_vec());
        let published = self.published.wait_for(PATIENCE, read).expect("the logs can be read to their ends");
        let (grades, dead_letters): (Vec<_>, Vec<_>) =
            published.iter().partition(|message| *message.topic == *self.config.kafka.grades_topic);
        assert_eq!(grades.len() as u64, graded + abstained, "one grade event per graded or abstained frame");
        assert_eq!(dead_letters.len() as u64, *dead_lettered, "one dead letter per refused frame");
        let ids: HashSet<_> = grades.iter().map(|message| grade_event(message).id).collect();
        assert_eq!(ids.len(), grades.len(), "no grade was published twice");
        let origins: HashSet<_> = dead_letters.iter().map(|message| origin(message)).collect();
        assert_eq!(origins.len(), dead_letters.len(), "no frame was dead-lettered twice");
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        let _stop = self.stop.clone().drop_guard();
        // A test that has failed already says more than what follows from its failure.
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// The demo's configuration, with probes on a free port. Of the environment only what says where ONNX Runtime is.
pub fn config(set: &[&str]) -> Config {
    // The embedded broker answers a fetch that found nothing only when its time is up, by default after half a second.
    let ours = [
        "telemetry.listen=127.0.0.1:0",
        "model.device=cpu",
        // Tests run beside each other.
        "model.graders=1",
        "kafka.consumer_properties.fetch_wait_max_ms=20",
    ];
    let set = ours.iter().chain(set).map(|it| (*it).to_owned()).collect();
    let runtime = std::env::vars_os()
        .filter(|(name, _)| name.to_string_lossy().starts_with("MEMEBG__MODEL__RUNTIME__"));
    Config::load(&Layers { demo: true, set, ..Layers::default() }, runtime).expect("a valid configuration")
}

/// The grade event in a message, which must satisfy its schema.
pub fn grade_event(message: &RawMessage) -> GradeEvent {
    let value = serde_json::from_slice(message.value.as_deref().expect("a value")).expect("JSON");
    let complaints: Vec<_> = GRADE_SCHEMA.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(complaints.is_empty(), "{complaints:?} in {value}");
    serde_json::from_value(value).expect("a grade event")
}

/// The last value of a header, as text.
pub fn header<'a>(message: &'a RawMessage, name: &str) -> Option<&'a str> {
    let (_, value) = message.headers.iter().rfind(|(present, _)| present == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

/// Where a dead letter's record lies in the frames topic.
fn origin(message: &RawMessage) -> Option<Position> {
    Some(Position {
        partition: header(message, "__connect.errors.partition")?.parse().ok()?,
        offset: header(message, "__connect.errors.offset")?.parse().ok()?,
    })
}

/// Status and body of `GET path`.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: tests\r\n\r\n").as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

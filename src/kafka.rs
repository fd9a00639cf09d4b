//! Kafka: the only place that names rdkafka.

pub mod dead_letters;
pub mod embedded;
pub mod emr;
pub mod feed;
pub mod frames;
pub mod history;
pub mod inspect;
mod member;
pub mod review_sink;
pub mod sink;
pub mod source;
pub mod summaries;
pub mod tail;
pub mod watch;

mod reader;
mod record;
mod refusal;
mod transaction;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rdkafka::ClientConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use serde::{Deserialize, Serialize};

use crate::telemetry::seldom::Seldom;

/// Where the cluster is and how the topics are called.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// Bootstrap servers, `host:port` separated by commas.
    pub brokers: String,
    /// Consumer group: processes of one group share the partitions.
    pub group_id: String,
    /// Topic of frame events.
    pub frames_topic: String,
    /// Topic of grade events.
    pub grades_topic: String,
    /// Topic of dead letters.
    pub dead_letters_topic: String,
    /// How often a frame may be graded when something fails.
    pub delivery: Delivery,
    /// Where a group without committed offsets starts.
    pub start_from: StartFrom,
    /// Largest accepted value of a frame event; a larger one is dead-lettered.
    pub max_value_bytes: usize,
    /// Largest event that is sent; must leave room for a dead letter of the largest frame event.
    pub max_send_bytes: usize,
    /// Messages fetched ahead, in all partitions together.
    pub prefetch_bytes: usize,
    /// How often the watermarks are committed.
    pub commit_interval_ms: u64,
    /// How long a revoked partition, or the whole service on SIGTERM, may take to finish its frames.
    pub drain_timeout_ms: u64,
    /// How long the broker may take to confirm an event before the service gives up.
    pub delivery_timeout_ms: u64,
    /// Any librdkafka property for every client: TLS, SASL, time-outs.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Properties whose value is read from a file: passwords, keys.
    #[serde(default)]
    pub property_files: BTreeMap<String, PathBuf>,
    /// Any librdkafka property for the consumer alone.
    #[serde(default)]
    pub consumer_properties: BTreeMap<String, String>,
    /// Any librdkafka property for the producer alone.
    #[serde(default)]
    pub producer_properties: BTreeMap<String, String>,
}

/// How often the events of a frame can be seen when something fails; never less than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Now and then twice, under the same id.
    AtLeastOnce,
    /// Once, for readers that read committed events only: each event is in one transaction with the
    /// offset of its frame.
    ExactlyOnce,
}

/// Where a group without committed offsets starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartFrom {
    /// With the oldest frame: nothing is missed.
    Earliest,
    /// With the next frame.
    Latest,
}

/// What can go wrong with Kafka for good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A property that would break the delivery guarantee, or a secret that cannot be read.
    #[error("{0}")]
    Settings(String),
    /// An event that cannot be read, where reading on would lose it.
    #[error("{0}")]
    Event(String),
    /// A thread could not be started.
    #[error("cannot start thread {0}")]
    Thread(&'static str, #[source] std::io::Error),
    /// Events and offsets cannot be committed together any more.
    #[error("kafka transaction: {0}")]
    Transaction(String, #[source] Option<KafkaError>),
    /// librdkafka refuses or gives up.
    #[error("kafka {what}")]
    Client {
        /// What was attempted.
        what: &'static str,
        /// librdkafka's answer.
        #[source]
        source: KafkaError,
    },
}

impl Error {
    /// Why a client could not be made. A refused property is named without its value, which may be a
    /// secret.
    fn create(client: &str, error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, property, _) => {
                // librdkafka's own reason may repeat the value.
                let known = !reason.starts_with("No such configuration property");
                let wrong = if known { "has a value that librdkafka refuses" } else { "does not exist" };
                Self::Settings(format!("kafka property {property} {wrong} ({client})"))
            }
            source => Self::Client { what: "client cannot be created", source },
        }
    }
}

const LIBRDKAFKA_MAX_POLL_INTERVAL_MS: u64 = 300_000;
/// So long do readers of committed events, and whoever takes over the partitions, wait for a process that
/// died within a transaction.
const MAX_TRANSACTION_TIMEOUT_MS: u64 = 60_000;

/// Older names of properties; librdkafka takes both, and which one would win is not defined.
const ALIASES: &[(&str, &str)] = &[
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
];

/// Properties on which the delivery guarantee rests, and the setting to use instead.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.brokers"),
    ("group.id", "kafka.group_id"),
    ("enable.auto.commit", "kafka.commit_interval_ms"),
    ("enable.auto.offset.store", "kafka.commit_interval_ms"),
    ("auto.offset.reset", "kafka.start_from"),
    ("enable.idempotence", "nothing: it is always on"),
    ("acks", "nothing: it is always all"),
    ("partitioner", "nothing: it is always murmur2_random"),
    ("message.timeout.ms", "kafka.delivery_timeout_ms"),
    ("message.max.bytes", "kafka.max_send_bytes"),
    ("queued.max.messages.kbytes", "kafka.prefetch_bytes"),
    ("transactional.id", "kafka.delivery"),
    ("transaction.timeout.ms", "kafka.delivery_timeout_ms"),
    ("isolation.level", "nothing: only committed frames are read"),
];

impl KafkaSettings {
    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// When a property is set that the delivery guarantee rests on.
    pub fn validate(&self) -> Result<(), Error> {
        let tables = [&self.properties, &self.consumer_properties, &self.producer_properties];
        let plain = tables.into_iter().flat_map(BTreeMap::keys);
        for property in plain.chain(self.property_files.keys()) {
            if let Some((_, instead)) = OURS.iter().find(|(ours, _)| *ours == canonical(property)) {
                return Err(Error::Settings(format!(
                    "kafka property {property} cannot be set here; use {instead}"
                )));
            }
        }
        Ok(())
    }

    /// After how long without a poll the group expels a consumer, milliseconds.
    ///
    /// # Errors
    /// When the property is set to something that is no number.
    pub fn max_poll_interval_ms(&self) -> Result<u64, Error> {
        const PROPERTY: &str = "max.poll.interval.ms";
        self.consumer_property(PROPERTY).map_or(Ok(LIBRDKAFKA_MAX_POLL_INTERVAL_MS), |value| {
            value.parse().map_err(|_| Error::Settings(format!("kafka property {PROPERTY} is not a number")))
        })
    }

    /// What a property of the consumer is set to, by its canonical name.
    fn consumer_property(&self, property: &str) -> Option<&str> {
        let set = self.properties.iter().chain(&self.consumer_properties);
        set.rev().find(|(name, _)| canonical(name) == property).map(|(_, value)| value.as_str())
    }

    /// How long a transaction may be open, milliseconds.
    fn transaction_timeout_ms(&self) -> u64 {
        self.delivery_timeout_ms.min(MAX_TRANSACTION_TIMEOUT_MS)
    }

    fn client(&self, own: &BTreeMap<String, String>) -> Result<ClientConfig, Error> {
        self.validate()?;
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "memebg");
        for (property, value) in self.properties.iter().chain(own) {
            client.set(canonical(property), value);
        }
        for (property, file) in &self.property_files {
            let secret = std::fs::read_to_string(file).map_err(|error| {
                Error::Settings(format!(
                    "cannot read {} for kafka property {property}: {error}",
                    file.display()
                ))
            })?;
            client.set(canonical(property), secret.trim_end_matches(['\r', '\n']));
        }
        client.set_log_level(RDKafkaLogLevel::Warning);
        Ok(client)
    }

    /// Configuration of the consumer: commits are ours, prefetch is bounded in bytes.
    fn consumer(&self) -> Result<ClientConfig, Error> {
        let mut client = self.client(&self.consumer_properties)?;
        let start_from = match self.start_from {
            StartFrom::Earliest => "earliest",
            StartFrom::Latest => "latest",
        };
        client
            .set("group.id", &self.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", start_from)
            .set("queued.max.messages.kbytes", (self.prefetch_bytes / 1024).max(1).to_string());
        // With the protocol of KIP-848 the broker assigns, and the property is refused.
        if self.consumer_property("group.protocol") != Some("consumer") {
            set_default(&mut client, "partition.assignment.strategy", "cooperative-sticky");
        }
        // What is fetched ahead is bounded, so the bound is met all the time; librdkafka then waits for a second.
        set_default(&mut client, "fetch.queue.backoff.ms", "10");
        set_default(&mut client, "statistics.interval.ms", "5000");
        // A topic that is created, or may be read, only later is found by this; librdkafka's own is 5 minutes.
        set_default(&mut client, "topic.metadata.refresh.interval.ms", "30000");
        Ok(client)
    }

    /// A consumer that looks on without joining the group.
    fn observer(&self) -> Result<BaseConsumer<LogContext>, Error> {
        let mut client = self.consumer()?;
        client.set("statistics.interval.ms", "0");
        BaseConsumer::from_config_and_context(&client, LogContext::default())
            .map_err(|error| Error::create("observer", error))
    }

    /// Configuration of the producer: idempotent, keyed like the Java clients.
    fn producer(&self) -> Result<ClientConfig, Error> {
        let mut client = self.client(&self.producer_properties)?;
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", self.delivery_timeout_ms.to_string())
            .set("message.max.bytes", self.max_send_bytes.to_string());
        set_default(
            &mut client,
            "queue.buffering.max.kbytes",
            &(self.max_send_bytes / 1024 * 4).max(1024).to_string(),
        );
        set_default(&mut client, "compression.type", "zstd");
        set_default(&mut client, "linger.ms", "5");
        Ok(client)
    }
}

fn set_default(client: &mut ClientConfig, property: &str, value: &str) {
    if client.get(property).is_none() {
        client.set(property, value);
    }
}

/// The name librdkafka documents first. Environment variables cannot hold dots, so `sasl_password` is
/// `sasl.password`; no property that is of use here has an underscore in its name.
fn canonical(property: &str) -> String {
    let dotted = property.replace('_', ".");
    let alias = ALIASES.iter().find(|(alias, _)| *alias == dotted);
    alias.map_or(dotted, |(_, name)| (*name).to_owned())
}

/// Adds text headers to those that are there.
fn with_headers(headers: OwnedHeaders, added: &[(&str, &str)]) -> OwnedHeaders {
    added.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
}

/// Forwards a log line of librdkafka. That a connection failed comes as an error too, see [`ErrorLog`].
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        _ if facility == "FAIL" => tracing::debug!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
    }
}

/// Logs errors of a client, the same kind not more often than every half minute: while a broker is
/// away there are several a second.
#[derive(Debug, Default)]
struct ErrorLog(Seldom<Option<i32>>);

impl ErrorLog {
    fn warn(&self, error: &KafkaError, reason: &str) {
        // What was asked for, and told by the poll: no error.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let Some(suppressed) = self.0.due(error.rdkafka_error_code().map(|code| code as i32)) else { return };
        match error.rdkafka_error_code().and_then(refusal::of_connection) {
            Some(cause) => tracing::warn!(%error, suppressed, "{cause} (librdkafka: {reason})"),
            None => tracing::warn!(%error, suppressed, "librdkafka: {reason}"),
        }
    }
}

/// Context of the clients that need nothing but their log lines forwarded.
#[derive(Debug, Default)]
struct LogContext(ErrorLog);

impl rdkafka::ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.warn(&error, reason);
    }

    fn stats(&self, _: rdkafka::Statistics) {}
}

impl rdkafka::consumer::ConsumerContext for LogContext {}

#[cfg(test)]
#[path = "kafka/tests.rs"]
mod tests;

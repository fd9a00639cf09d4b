//! What this client may do, found out without doing it.
//!
//! Kafka has no question "may I write to this topic?" that librdkafka's safe interface can put: only a write
//! would tell. That is left to the service; what can be refused before it is asked for here.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::ask::Heard;
use super::found::{Client, Deadline, Reason};
use super::progress;
use crate::kafka::{Delivery, Error, refusal};

/// No topic can have this name, so an offset of it is refused whoever asks. The right to commit for the group is
/// looked at first.
const IMPOSSIBLE_TOPIC: &str = "memebg:doctor:no-topic";
const POLL: Duration = Duration::from_millis(100);

/// Whether the group may be committed to, and hence joined: both need READ on it. Nothing is committed.
pub(super) fn group(
    client: &Client,
    observer: BaseConsumer<Heard>,
    deadline: Deadline,
) -> Result<(), Reason> {
    if observer.context().not_in_group.load(Ordering::Relaxed) {
        return Err(progress::not_in_the_group(client));
    }
    let group_id = &client.kafka.group_id;
    let (answer, answered) = mpsc::channel();
    let ask = move || {
        let mut nothing = TopicPartitionList::new();
        let committed = nothing
            .add_partition_offset(IMPOSSIBLE_TOPIC, 0, Offset::Offset(0))
            .and_then(|()| observer.commit(&nothing, CommitMode::Sync));
        drop(answer.send(committed));
    };
    let no_answer = |error: &dyn std::fmt::Display| {
        Reason::no_answer(&format!("whether group {group_id} may be joined is not answered"), error)
    };
    // A commit waits for its coordinator without an end, hence in a thread that is left behind then.
    std::thread::Builder::new().name("kafka-doctor".into()).spawn(ask).map_err(|error| no_answer(&error))?;
    match answered.recv_timeout(deadline.left()) {
        Err(_) => Err(no_answer(&"its coordinator took too long")),
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::InvalidTopic
                // Who commits is looked at after whether anybody may: others are in the group.
                | RDKafkaErrorCode::UnknownMemberId,
            ) => Ok(()),
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Err(progress::not_in_the_group(client)),
            _ => Err(no_answer(&error)),
        },
    }
}

/// Whether the brokers give the id that the producer of a process starts with.
pub(super) fn producer(client: &Client, deadline: Deadline) -> Result<(), Reason> {
    match client.kafka.delivery {
        Delivery::AtLeastOnce => idempotent(client, deadline),
        Delivery::ExactlyOnce => transactional(client, deadline),
    }
}

pub(super) fn unusable(error: Error) -> Reason {
    Reason::new(
        format!("{:#}", anyhow::Error::new(error)),
        "change that property of kafka.properties or kafka.producer_properties",
    )
}

fn unanswered(error: impl std::fmt::Display) -> Reason {
    Reason::no_answer("a producer is given no id", error)
}

/// Refused to whoever may write to no topic at all, and by brokers before 3.0 without a right of its own.
fn idempotent(client: &Client, deadline: Deadline) -> Result<(), Reason> {
    let mut config = client.kafka.producer().map_err(unusable)?;
    config.set("statistics.interval.ms", "100");
    let (told, state) = mpsc::channel();
    let producer = BaseProducer::from_config_and_context(&config, Started(told))
        .map_err(|error| unusable(Error::create("producer", error)))?;
    while !deadline.is_over() {
        producer.poll(POLL);
        for state in state.try_iter() {
            match state {
                Ok(()) => return Ok(()),
                Err(RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                    return Err(Reason::new(
                        "not allowed to write to any topic",
                        format!(
                            "grant WRITE and DESCRIBE on {}; brokers older than 3.0 also need IDEMPOTENT_WRITE on the \
                             cluster",
                            topics(&client.writes)
                        ),
                    ));
                }
                Err(_) => {}
            }
        }
    }
    Err(unanswered("it took too long"))
}

/// `topic a`, or `topics a and b`.
fn topics(names: &[String]) -> String {
    match names {
        [name] => format!("topic {name}"),
        names => format!("topics {}", names.join(" and ")),
    }
}

/// The coordinator remembers the name for as long as it remembers unused ones, a week by default. It is always the
/// same, and no service has it, which would be fenced: no `group.instance.id` may hold a colon.
fn transactional(client: &Client, deadline: Deadline) -> Result<(), Reason> {
    let Client { kafka, group_option, .. } = client;
    let mut config = kafka.producer().map_err(unusable)?;
    let timeout_ms = kafka.transaction_timeout_ms().to_string();
    config
        .set("transactional.id", format!("{}-memebg:doctor", kafka.group_id))
        .set("transaction.timeout.ms", &timeout_ms)
        .set("message.timeout.ms", &timeout_ms);
    let producer = BaseProducer::from_config_and_context(&config, Heard::default())
        .map_err(|error| unusable(Error::create("transactional producer", error)))?;
    producer.init_transactions(deadline.left()).map_err(|error| match refusal::of_transactions(&error) {
        Some(_) => Reason::new(
            format!(
                "not allowed to use transactional ids that begin with {}- ({group_option} and a hyphen)",
                kafka.group_id
            ),
            "grant WRITE and DESCRIBE on that prefix",
        ),
        None => unanswered(error),
    })
}

/// Hears whether an idempotent producer has been given its id.
struct Started(mpsc::Sender<Result<(), RDKafkaErrorCode>>);

impl ClientContext for Started {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, _: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            // Nobody listens any more once it is known.
            self.0.send(Err(code)).ok();
        }
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned") {
            self.0.send(Ok(())).ok();
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Started {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): ()) {}
}

impl ProducerContext<NoCustomPartitioner> for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): ()) {}
}

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

use super::ask::{self, Heard};
use super::{Deadline, Reason};
use crate::kafka::{Delivery, Error, KafkaSettings, refusal};

/// No topic can have this name, so an offset of it is refused whoever asks. The right to commit for the group is
/// looked at first.
const IMPOSSIBLE_TOPIC: &str = "memebg:doctor:no-topic";
const POLL: Duration = Duration::from_millis(100);

/// Whether the group may be committed to, and hence joined: both need READ on it. Nothing is committed.
pub(super) fn group(
    settings: &KafkaSettings,
    observer: BaseConsumer<Heard>,
    deadline: Deadline,
) -> Result<(), Reason> {
    if observer.context().not_in_group.load(Ordering::Relaxed) {
        return Err(ask::not_in_the_group(settings));
    }
    let group_id = &settings.group_id;
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
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Err(ask::not_in_the_group(settings)),
            _ => Err(no_answer(&error)),
        },
    }
}

/// Whether the brokers give the id that the service's producer starts with.
pub(super) fn producer(settings: &KafkaSettings, deadline: Deadline) -> Result<(), Reason> {
    match settings.delivery {
        Delivery::AtLeastOnce => idempotent(settings, deadline),
        Delivery::ExactlyOnce => transactional(settings, deadline),
    }
}

fn unusable(error: Error) -> Reason {
    Reason::new(
        format!("{:#}", anyhow::Error::new(error)),
        "change that property of kafka.properties or kafka.producer_properties",
    )
}

fn unanswered(error: impl std::fmt::Display) -> Reason {
    Reason::no_answer("a producer is given no id", error)
}

/// Refused to whoever may write to no topic at all, and by brokers before 3.0 without a right of its own.
fn idempotent(settings: &KafkaSettings, deadline: Deadline) -> Result<(), Reason> {
    let mut client = settings.producer().map_err(unusable)?;
    client.set("statistics.interval.ms", "100");
    let (told, state) = mpsc::channel();
    let producer = BaseProducer::from_config_and_context(&client, Started(told))
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
                            "grant WRITE and DESCRIBE on topics {} and {}; brokers older than 3.0 also need \
                             IDEMPOTENT_WRITE on the cluster",
                            settings.grades_topic, settings.dead_letters_topic
                        ),
                    ));
                }
                Err(_) => {}
            }
        }
    }
    Err(unanswered("it took too long"))
}

/// The coordinator remembers the name for as long as it remembers unused ones, a week by default. It is always the
/// same, and no service has it, which would be fenced: no `group.instance.id` may hold a colon.
fn transactional(settings: &KafkaSettings, deadline: Deadline) -> Result<(), Reason> {
    let mut client = settings.producer().map_err(unusable)?;
    let timeout_ms = settings.transaction_timeout_ms().to_string();
    client
        .set("transactional.id", format!("{}-memebg:doctor", settings.group_id))
        .set("transaction.timeout.ms", &timeout_ms)
        .set("message.timeout.ms", &timeout_ms);
    let producer = BaseProducer::from_config_and_context(&client, Heard::default())
        .map_err(|error| unusable(Error::create("transactional producer", error)))?;
    producer.init_transactions(deadline.left()).map_err(|error| match refusal::of_transactions(&error) {
        Some(cause) => Reason::from_refusal(cause),
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

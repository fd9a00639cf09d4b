//! Exactly once: grade events, dead letters and the offsets of their frames in one transaction.
//!
//! Fencing follows KIP-447: the offsets carry the group's generation, so a process that lost its
//! partitions without noticing cannot commit. Runs on the poll thread, where no rebalance can come in
//! between.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, TopicPartitionList};

use super::record::{LetterSize, Record, Topics};
use super::sink::TOO_LARGE;
use super::{Error, ErrorLog, KafkaSettings, refusal};
use crate::domain::{Rejection, RejectionCode};
use crate::pipeline::message::Position;
use crate::pipeline::outbox::Due;
use crate::pipeline::publish::{Spoken, Verdict};

/// Longest single wait: in between, the caller shows that it lives.
const TURN: Duration = Duration::from_secs(1);
const QUEUE_FULL_NAP: Duration = Duration::from_millis(5);

/// Why a transaction did not come to be.
pub(super) enum Failure {
    /// It was aborted, nothing of it is visible, and it can be tried again.
    Aborted(String),
    /// It was aborted too, and nothing but a change of the cluster helps.
    Refused(String),
    /// The caller did not want to wait any longer. Whether it came to be is not known.
    GivenUp,
    /// This producer can do nothing any more.
    Fatal(KafkaError),
}

/// Why records were not published.
pub(super) struct Unsent {
    pub(super) failure: Failure,
    /// Indices of those that the topic does not allow to be as large as they are.
    pub(super) too_large: Vec<usize>,
}

impl From<Failure> for Unsent {
    fn from(failure: Failure) -> Self {
        Self { failure, too_large: Vec::new() }
    }
}

/// What ended an attempt.
enum Trouble {
    Kafka(KafkaError),
    /// What the cluster does not allow.
    Refused(String),
    /// The caller did not want to wait any longer.
    GivenUp,
    /// An event that cannot be written.
    Event(serde_json::Error),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// The transactional producer.
pub(super) struct Transactor {
    producer: ThreadedProducer<TransactionContext>,
    topics: Topics,
    /// How long a call is retried before the transaction is given up, and how long it may go on that every
    /// transaction is aborted.
    pub(super) patience: Duration,
    /// Dead letters that did not fit, and what to try next.
    cut_down: HashMap<Position, LetterSize>,
}

impl Transactor {
    /// A producer for the cluster of `settings`. Connects in the background.
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, Error> {
        let mut client = settings.producer()?;
        let timeout_ms = settings.transaction_timeout_ms().to_string();
        client
            .set("transactional.id", transactional_id(settings))
            .set("transaction.timeout.ms", &timeout_ms)
            .set("message.timeout.ms", &timeout_ms);
        let producer = ThreadedProducer::from_config_and_context(&client, TransactionContext::default())
            .map_err(|error| Error::create("transactional producer", error))?;
        let patience = Duration::from_millis(settings.delivery_timeout_ms);
        Ok(Self { producer, topics: Topics::of(settings), patience, cut_down: HashMap::new() })
    }

    /// Gets a producer id, and fences an earlier process of the same name. Returns whether that is
    /// done; otherwise it is to be called again.
    pub(super) fn initialise(&self) -> Result<bool, Error> {
        match self.producer.init_transactions(TURN) {
            Ok(()) => Ok(true),
            Err(error) if is_retriable(&error) => Ok(false),
            Err(source) => match refusal::of_transactions(&source) {
                Some(cause) => Err(Error::Transaction(cause.into(), Some(source))),
                None => Err(Error::Client { what: "refuses transactions", source }),
            },
        }
    }

    /// Publishes and commits, all or nothing. While that takes its time, `go_on` is asked at least once per
    /// second whether to.
    ///
    /// A verdict that turned out to be too large is changed in `due`, for the next try.
    pub(super) fn commit(
        &mut self,
        due: &mut Due<Spoken>,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        self.producer.begin_transaction().map_err(Failure::Fatal)?;
        let mut failure = match self.try_to_commit(due, offsets, group, deadline, go_on) {
            Ok(()) => {
                // What is not in this one belongs to somebody else by now.
                self.cut_down.clear();
                return Ok(());
            }
            Err(trouble) => self.abort(trouble, go_on)?,
        };
        let refused = std::mem::take(&mut *self.producer.context().refused());
        for (index, code) in refused {
            if code == RDKafkaErrorCode::MessageSizeTooLarge {
                self.cut_down(due, index);
            } else if let Some(envelope) = due.envelopes.get(index)
                && let Some(cause) = refusal::of_topic(code, self.topics.topic_of(&envelope.body.verdict))
            {
                failure = Failure::Refused(cause);
            }
        }
        Err(failure)
    }

    /// Publishes records and commits, all or nothing.
    pub(super) fn commit_records(
        &self,
        records: &[Record<'_>],
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), Unsent> {
        let deadline = Instant::now() + self.patience;
        self.producer.begin_transaction().map_err(Failure::Fatal)?;
        self.producer.context().refused().clear();
        let attempt = || {
            for (index, record) in records.iter().enumerate() {
                self.put(record, index, deadline, go_on)?;
            }
            retry(deadline, go_on, || self.producer.send_offsets_to_transaction(offsets, group, TURN))?;
            retry(deadline, go_on, || self.producer.commit_transaction(TURN))
        };
        let Err(trouble) = attempt() else { return Ok(()) };
        let failure = self.abort(trouble, go_on)?;
        let refused = std::mem::take(&mut *self.producer.context().refused());
        let cause =
            refused.iter().find_map(|(index, code)| refusal::of_topic(*code, records.get(*index)?.topic));
        let too_large = refused.iter().filter(|(_, code)| *code == RDKafkaErrorCode::MessageSizeTooLarge);
        Err(Unsent {
            failure: cause.map_or(failure, Failure::Refused),
            too_large: too_large.map(|(index, _)| *index).collect(),
        })
    }

    fn put(
        &self,
        record: &Record<'_>,
        index: usize,
        deadline: Instant,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), Trouble> {
        loop {
            match self.enqueue(record, index) {
                Err(Trouble::Kafka(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)))
                    if Instant::now() < deadline =>
                {
                    if !go_on() {
                        return Err(Trouble::GivenUp);
                    }
                    std::thread::sleep(QUEUE_FULL_NAP);
                }
                // Found out before it was sent, so that no delivery report says it.
                Err(Trouble::Kafka(
                    error @ KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge),
                )) => {
                    self.producer.context().refused().push((index, RDKafkaErrorCode::MessageSizeTooLarge));
                    return Err(error.into());
                }
                result => return result,
            }
        }
    }

    /// Ends what was begun. Says with what the attempt failed; an error is what is worse than that.
    fn abort(&self, trouble: Trouble, go_on: &dyn Fn() -> bool) -> Result<Failure, Failure> {
        let failure = match trouble {
            Trouble::Kafka(KafkaError::Transaction(error)) if error.is_fatal() => {
                return Err(Failure::Fatal(KafkaError::Transaction(error)));
            }
            Trouble::GivenUp => return Err(Failure::GivenUp),
            Trouble::Kafka(error) => Failure::Aborted(error.to_string()),
            Trouble::Refused(cause) => Failure::Refused(cause),
            Trouble::Event(error) => Failure::Aborted(format!("cannot write the event: {error}")),
        };
        let deadline = Instant::now() + self.patience;
        match retry(deadline, go_on, || self.producer.abort_transaction(TURN)) {
            Err(Trouble::Kafka(error)) => Err(Failure::Fatal(error)),
            Err(_) => Err(Failure::GivenUp),
            Ok(()) => Ok(failure),
        }
    }

    fn try_to_commit(
        &mut self,
        due: &mut Due<Spoken>,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        deadline: Instant,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), Trouble> {
        self.producer.context().refused().clear();
        let mut index = 0;
        while let Some(envelope) = due.envelopes.get(index) {
            match self.send(&envelope.body, index) {
                Ok(()) => index += 1,
                Err(Trouble::Kafka(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)))
                    if Instant::now() < deadline =>
                {
                    if !go_on() {
                        return Err(Trouble::GivenUp);
                    }
                    std::thread::sleep(QUEUE_FULL_NAP);
                }
                // Found out before it was sent: nothing has to be aborted for it.
                Err(Trouble::Kafka(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)))
                    if self.cut_down(due, index) => {}
                Err(error) => return Err(error),
            }
        }
        retry(deadline, go_on, || self.producer.send_offsets_to_transaction(offsets, group, TURN))?;
        retry(deadline, go_on, || self.producer.commit_transaction(TURN))
    }

    fn send(&self, spoken: &Spoken, index: usize) -> Result<(), Trouble> {
        let record = match &spoken.verdict {
            Verdict::Grade(event) => {
                self.topics.grade(event, spoken.traceparent().as_deref()).map_err(Trouble::Event)?
            }
            Verdict::Reject(rejection) => {
                let size = self.cut_down.get(&spoken.raw.position).copied().unwrap_or(LetterSize::Whole);
                self.topics.letter(&spoken.raw, rejection, size)
            }
        };
        self.enqueue(&record, index)
    }

    fn enqueue(&self, record: &Record<'_>, index: usize) -> Result<(), Trouble> {
        let mut sent = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, index)
            .headers(record.headers.clone());
        sent.key = record.key;
        sent.payload = record.value.as_deref();
        sent.timestamp = record.timestamp_ms;
        sent.partition = record.partition;
        self.producer.send(sent).map_err(|(error, _)| {
            let cause = error.rdkafka_error_code().and_then(|code| refusal::of_topic(code, record.topic));
            cause.map_or(Trouble::Kafka(error), Trouble::Refused)
        })
    }

    /// Returns whether there was something to cut down.
    fn cut_down(&mut self, due: &mut Due<Spoken>, index: usize) -> bool {
        let Some(envelope) = due.envelopes.get_mut(index) else { return false };
        let Position { partition, offset } = envelope.body.raw.position;
        if let Verdict::Grade(_) = envelope.body.verdict {
            let rejection = Rejection::new(RejectionCode::GradeTooLarge, TOO_LARGE);
            envelope.body.verdict = Verdict::Reject(rejection);
            return true;
        }
        let size = self.cut_down.entry(envelope.body.raw.position).or_insert(LetterSize::Whole);
        let Some(smaller) = size.smaller() else { return false };
        tracing::warn!(partition, offset, size = ?smaller, "dead letter does not fit and is cut down");
        *size = smaller;
        true
    }
}

/// Calls again what can be called again.
fn retry(
    deadline: Instant,
    go_on: &dyn Fn() -> bool,
    mut call: impl FnMut() -> KafkaResult<()>,
) -> Result<(), Trouble> {
    loop {
        match call() {
            Err(error) if is_retriable(&error) && Instant::now() < deadline => {
                tracing::debug!(%error, "transaction call is repeated");
            }
            result => return Ok(result?),
        }
        if !go_on() {
            return Err(Trouble::GivenUp);
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        // Not everything is sent yet.
        KafkaError::Flush(_) => true,
        _ => false,
    }
}

/// A static member keeps its name over a restart, which fences what is left of the process before. Any
/// other process gets a name that nobody had: two of one name would fence each other.
fn transactional_id(settings: &KafkaSettings) -> String {
    let own = settings.consumer_property("group.instance.id").map_or_else(
        || format!("{:016x}", RandomState::new().hash_one("a name that nobody had")),
        str::to_owned,
    );
    format!("{}-{own}", settings.group_id)
}

/// Remembers what the broker refused.
#[derive(Debug, Default)]
struct TransactionContext {
    errors: ErrorLog,
    /// Index in the transaction, and why.
    refused: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
}

impl TransactionContext {
    fn refused(&self) -> MutexGuard<'_, Vec<(usize, RDKafkaErrorCode)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for TransactionContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.warn(&error, reason);
    }
}

impl ProducerContext for TransactionContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, index: usize) {
        if let Err((KafkaError::MessageProduction(code), _)) = delivered {
            self.refused().push((index, *code));
        }
    }
}

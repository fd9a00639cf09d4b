//! The transactional producer of a replay: frames and their markers, all of them or none.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::REPLAYED_FROM;
use crate::kafka::record::with_original_headers;
use crate::kafka::{Error, ErrorLog, KafkaSettings, with_headers};
use crate::pipeline::message::{Position, RawMessage};

/// How long a transaction, and whatever it waits for, may take.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How soon a record for which there is no room is offered again.
const NAP: Duration = Duration::from_millis(10);

/// Why a transaction did not happen.
pub(super) enum Failure {
    /// The broker will never take one of these frames.
    Refused(String),
    /// Nothing more can be sent.
    Lost(Error),
}

/// The transactional producer. There is at most one for a dead-letter topic: a second one makes the broker
/// refuse the first.
pub(super) struct Mailer {
    producer: ThreadedProducer<MailContext>,
    settings: KafkaSettings,
}

impl Mailer {
    /// Connects, and ends what an earlier replay of these letters has left open.
    ///
    /// # Errors
    /// When the settings are refused or the broker allows no transactions.
    pub(super) fn open(settings: &KafkaSettings) -> Result<Self, Error> {
        Ok(Self { producer: connect(settings)?, settings: settings.clone() })
    }

    /// Sends all frames with their markers, or none of them. Returns when the broker has confirmed.
    pub(super) fn send(&mut self, frames: &[(Position, RawMessage)]) -> Result<(), Failure> {
        *self.producer.context().lock() = Deliveries::default();
        let lost = |source| Failure::Lost(Error::Client { what: "did not confirm a replay", source });
        self.producer.begin_transaction().map_err(lost)?;
        let enqueued = frames.iter().try_for_each(|(of, frame)| self.enqueue(*of, frame));
        let Err(error) = enqueued.and_then(|()| self.commit(2 * frames.len())) else { return Ok(()) };
        let Some(code) = refusal(&error) else { return Err(lost(error)) };
        // A new producer of the same id makes the broker abort what the old one has begun. librdkafka's own abort
        // does not come to its end after a refused record.
        self.producer = connect(&self.settings).map_err(Failure::Lost)?;
        Err(Failure::Refused(format!("the broker refuses the frame: {code}")))
    }

    fn enqueue(&self, of: Position, frame: &RawMessage) -> Result<(), KafkaError> {
        let from = format!("{}/{}/{}", self.settings.dead_letters_topic, of.partition, of.offset);
        let replayed = [(REPLAYED_FROM, from.as_str())];
        let mut again = BaseRecord::<[u8], [u8]>::to(&self.settings.frames_topic);
        (again.key, again.payload) = (frame.key.as_deref(), frame.value.as_deref());
        again.timestamp = frame.timestamp_ms;
        self.put(again.headers(with_headers(with_original_headers(frame, OwnedHeaders::new()), &replayed)))?;
        let mut marker =
            BaseRecord::<[u8], [u8]>::to(&self.settings.dead_letters_topic).partition(of.partition);
        marker.key = frame.key.as_deref();
        self.put(marker.headers(with_headers(OwnedHeaders::new(), &replayed)))
    }

    /// Waits for room where there is none.
    fn put(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(NAP);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Commits once every one of so many records is delivered. Not left to librdkafka's flush, which goes on
    /// waiting for what is still queued behind a record that was refused.
    fn commit(&self, records: usize) -> Result<(), KafkaError> {
        let context = self.producer.context();
        let waiting =
            |it: &mut Deliveries| it.confirmed < records && it.failure.as_ref().is_none_or(is_purge);
        let (mut deliveries, _) = context
            .changed
            .wait_timeout_while(context.lock(), TRANSACTION_TIMEOUT, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = deliveries.failure.take() {
            return Err(failure);
        }
        drop(deliveries);
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        loop {
            match self.producer.commit_transaction(TRANSACTION_TIMEOUT) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }
}

fn connect(settings: &KafkaSettings) -> Result<ThreadedProducer<MailContext>, Error> {
    let timeout_ms = u64::try_from(TRANSACTION_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let mut client = settings.producer()?;
    client
        .set("transactional.id", format!("{}.replay", settings.dead_letters_topic))
        .set("transaction.timeout.ms", timeout_ms.to_string())
        .set("message.timeout.ms", settings.delivery_timeout_ms.min(timeout_ms).to_string());
    let producer: ThreadedProducer<MailContext> =
        ThreadedProducer::from_config_and_context(&client, MailContext::default())
            .map_err(|error| Error::create("replay", error))?;
    producer
        .init_transactions(TRANSACTION_TIMEOUT)
        .map_err(|source| Error::Client { what: "does not allow transactions", source })?;
    Ok(producer)
}

/// What the broker has against the frame itself. Anything else is about the connection.
fn refusal(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    use RDKafkaErrorCode::{
        InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge,
    };
    let code = match error {
        KafkaError::Transaction(error) => error.code(),
        other => other.rdkafka_error_code()?,
    };
    let refusals = [InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge];
    refusals.contains(&code).then_some(code)
}

/// What the broker has said of the records of the transaction.
#[derive(Default)]
struct Deliveries {
    confirmed: usize,
    /// What went wrong.
    failure: Option<KafkaError>,
}

impl Deliveries {
    /// Keeps the first. That a record was thrown away only follows from something else, which may be heard of later.
    fn fail(&mut self, error: &KafkaError) {
        if self.failure.as_ref().is_none_or(is_purge) {
            self.failure = Some(error.clone());
        }
    }
}

/// Whether a record was thrown away because another one had failed.
fn is_purge(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{PurgeInflight, PurgeQueue};
    error.rdkafka_error_code().is_some_and(|code| [PurgeInflight, PurgeQueue].contains(&code))
}

#[derive(Default)]
struct MailContext {
    deliveries: Mutex<Deliveries>,
    changed: Condvar,
    errors: ErrorLog,
}

impl MailContext {
    fn lock(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for MailContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.warn(&error, reason);
        // Nothing more is sent after these, so there is nothing to wait for.
        if let Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced) = error.rdkafka_error_code() {
            self.lock().fail(&error);
            self.changed.notify_all();
        }
    }
}

impl ProducerContext for MailContext {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        let mut deliveries = self.lock();
        match delivered {
            Ok(_) => deliveries.confirmed += 1,
            Err((error, _)) => deliveries.fail(error),
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_kept_and_not_what_follows_from_it() {
        let error = KafkaError::MessageProduction;
        let (cause, purged) =
            (error(RDKafkaErrorCode::MessageSizeTooLarge), error(RDKafkaErrorCode::PurgeQueue));
        for order in [[&cause, &purged], [&purged, &cause]] {
            let mut deliveries = Deliveries::default();
            order.into_iter().for_each(|error| deliveries.fail(error));
            assert_eq!(deliveries.failure, Some(cause.clone()));
        }
    }

    #[test]
    fn only_what_is_wrong_with_the_frame_itself_is_a_refusal() {
        let code = RDKafkaErrorCode::MessageSizeTooLarge;
        assert_eq!(refusal(&KafkaError::MessageProduction(code)), Some(code));
        assert_eq!(refusal(&KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)), None);
    }
}

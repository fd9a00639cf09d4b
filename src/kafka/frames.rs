//! Sends frame events in batches and says of each whether the broker has it: for what must be remembered as sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;

use super::record::{JSON, cloud_event};
use super::{Error, ErrorLog, KafkaSettings};
use crate::domain::FRAME_EVENT_TYPE;

/// How long a full queue is left alone.
const NAP: Duration = Duration::from_millis(10);

/// A frame event to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameRecord {
    /// CloudEvents id: the same for the same frame, however often it is sent.
    pub id: String,
    /// Kafka key.
    pub embryo_id: String,
    /// The frame event, JSON.
    pub event: Vec<u8>,
}

/// A connection to the frames topic.
pub struct FramePublisher {
    producer: ThreadedProducer<Context>,
    outcomes: Arc<Mutex<Outcomes>>,
    topic: String,
    source: &'static str,
    timeout: Duration,
}

impl FramePublisher {
    /// `source` is the CloudEvents source of everything that is sent.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn open(settings: &KafkaSettings, source: &'static str) -> Result<Self, Error> {
        let outcomes = Arc::<Mutex<Outcomes>>::default();
        let context = Context { outcomes: Arc::clone(&outcomes), errors: ErrorLog::default() };
        let producer = ThreadedProducer::from_config_and_context(&settings.producer()?, context)
            .map_err(|error| Error::create("frames", error))?;
        let timeout = Duration::from_millis(settings.delivery_timeout_ms);
        Ok(Self { producer, outcomes, topic: settings.frames_topic.clone(), source, timeout })
    }

    /// Sends all of them and waits until the broker has answered for each. Blocks. Returns which of them, by their
    /// place in `frames`, the topic does not take because they are too large; it has the others.
    ///
    /// # Errors
    /// When the broker does not confirm another one for whatever reason. Some may have been sent.
    pub fn publish(&self, frames: &[FrameRecord]) -> Result<Vec<usize>, Error> {
        *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner) = Outcomes::default();
        let mut too_large = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            if !self.send(index, frame)? {
                too_large.push(index);
            }
        }
        // Longer than a frame may take, so that each has its answer by then.
        self.producer
            .flush(Timeout::After(self.timeout + Duration::from_secs(5)))
            .map_err(|source| Error::Client { what: "did not confirm every frame", source })?;
        let outcomes = std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(source) = outcomes.failure {
            return Err(Error::Client { what: "did not confirm a frame", source });
        }
        too_large.extend(outcomes.too_large);
        Ok(too_large)
    }

    /// Whether the client takes it; its own limit is `kafka.max_send_bytes`.
    fn send(&self, index: usize, frame: &FrameRecord) -> Result<bool, Error> {
        match send(&self.producer, &self.topic, self.source, frame, index) {
            Ok(()) => Ok(true),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => Ok(false),
            Err(source) => Err(Error::Client { what: "does not take a frame", source }),
        }
    }
}

/// Hands a frame event to a producer, when it has room. `source` is the CloudEvents source.
pub(super) fn send<C: ProducerContext<DeliveryOpaque = usize> + 'static>(
    producer: &ThreadedProducer<C>,
    topic: &str,
    source: &str,
    frame: &FrameRecord,
    opaque: usize,
) -> Result<(), KafkaError> {
    let mut record = BaseRecord::with_opaque_to(topic, opaque)
        .key(frame.embryo_id.as_bytes())
        .payload(frame.event.as_slice())
        .headers(cloud_event(FRAME_EVENT_TYPE, source, &frame.id, JSON));
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(NAP);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// What became of the frames under way.
#[derive(Default)]
struct Outcomes {
    too_large: Vec<usize>,
    failure: Option<KafkaError>,
}

struct Context {
    outcomes: Arc<Mutex<Outcomes>>,
    errors: ErrorLog,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.warn(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, index: usize) {
        let Err((error, _)) = delivered else { return };
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => outcomes.too_large.push(index),
            _ => outcomes.failure = Some(error.clone()),
        }
    }
}

//! The producer of grade events and dead letters: idempotent, confirmed one by one.

use futures_util::future::BoxFuture;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::{Error, KafkaSettings, LogContext, with_headers};
use crate::domain::{GRADE_EVENT_TYPE, GradeEvent, Rejection};
use crate::pipeline::message::RawMessage;
use crate::pipeline::publish::{GradeSink, SinkError};

/// CloudEvents `source` of every grade event.
const EVENT_SOURCE: &str = "/memebg";
/// Headers that say why; earlier ones of a message that was replayed are replaced.
const ERROR_HEADERS: [&str; 2] = ["__connect.errors.", "memebg."];

/// Sends to the grades topic and the dead-letter topic.
pub struct KafkaSink {
    producer: FutureProducer<LogContext>,
    grades_topic: String,
    dead_letters_topic: String,
}

impl KafkaSink {
    /// A producer for the cluster of `settings`. Connects in the background.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(settings: &KafkaSettings) -> Result<Self, Error> {
        let producer = FutureProducer::from_config_and_context(&settings.producer()?, LogContext::default())
            .map_err(|error| Error::create("producer", error))?;
        Ok(Self {
            producer,
            grades_topic: settings.grades_topic.clone(),
            dead_letters_topic: settings.dead_letters_topic.clone(),
        })
    }
}

impl GradeSink for KafkaSink {
    fn publish(
        &self,
        event: &GradeEvent,
        traceparent: Option<&str>,
    ) -> BoxFuture<'static, Result<(), SinkError>> {
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_type", GRADE_EVENT_TYPE),
            ("ce_source", EVENT_SOURCE),
            ("ce_id", event.id.as_str()),
            ("content-type", "application/json"),
        ];
        let mut headers = with_headers(OwnedHeaders::new_with_capacity(6), &attributes);
        if let Some(traceparent) = traceparent {
            headers = with_headers(headers, &[("traceparent", traceparent)]);
        }
        let (producer, topic) = (self.producer.clone(), self.grades_topic.clone());
        let key = event.embryo_id.clone();
        let value = serde_json::to_vec(event);
        Box::pin(async move {
            let value =
                value.map_err(|error| SinkError::NotConfirmed(format!("cannot write the event: {error}")))?;
            send(&producer, FutureRecord::to(&topic).key(key.as_bytes()).payload(&value).headers(headers))
                .await
        })
    }

    fn reject(&self, raw: &RawMessage, rejection: &Rejection) -> BoxFuture<'static, Result<(), SinkError>> {
        let bytes = raw.value.as_ref().map_or(0, Vec::len);
        let reasons = error_headers(raw, rejection);
        let (producer, topic, raw) = (self.producer.clone(), self.dead_letters_topic.clone(), raw.clone());
        Box::pin(async move {
            let letter = |headers| {
                let mut record = FutureRecord::<[u8], [u8]>::to(&topic).headers(headers);
                record.timestamp = raw.timestamp_ms;
                record
            };
            let mut whole = letter(with_original_headers(&raw, reasons.clone()));
            (whole.key, whole.payload) = (raw.key.as_deref(), raw.value.as_deref());
            let error = match send(&producer, whole).await {
                Err(SinkError::TooLarge(error)) => error,
                sent => return sent,
            };
            // The original stays where the headers say it is. That there was one must not be lost, and a
            // letter that never fits would stop the service at the same frame for ever.
            tracing::warn!(error, bytes, "dead letter is sent without its value");
            let omitted = bytes.to_string();
            let reasons = with_headers(reasons, &[("memebg.value.omitted_bytes", &omitted)]);
            let mut short = letter(with_original_headers(&raw, reasons.clone()));
            short.key = raw.key.as_deref();
            match send(&producer, short).await {
                Err(SinkError::TooLarge(_)) => send(&producer, letter(reasons)).await,
                sent => sent,
            }
        })
    }
}

/// Kafka Connect's names for what went wrong (KIP-298).
fn error_headers(raw: &RawMessage, rejection: &Rejection) -> OwnedHeaders {
    let reasons = [
        ("__connect.errors.topic", raw.topic.as_ref()),
        ("__connect.errors.partition", &raw.position.partition.to_string()),
        ("__connect.errors.offset", &raw.position.offset.to_string()),
        ("__connect.errors.stage", rejection.code.stage().as_str()),
        ("__connect.errors.exception.class.name", "memebg::domain::Rejection"),
        ("__connect.errors.exception.message", &rejection.message),
        ("memebg.error.code", rejection.code.as_str()),
    ];
    with_headers(OwnedHeaders::new_with_capacity(8), &reasons)
}

pub(super) fn with_original_headers(raw: &RawMessage, reasons: OwnedHeaders) -> OwnedHeaders {
    let kept =
        raw.headers.iter().filter(|(key, _)| !ERROR_HEADERS.iter().any(|prefix| key.starts_with(prefix)));
    kept.fold(reasons, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }))
}

async fn send<K: rdkafka::message::ToBytes + ?Sized, V: rdkafka::message::ToBytes + ?Sized>(
    producer: &FutureProducer<LogContext>,
    record: FutureRecord<'_, K, V>,
) -> Result<(), SinkError> {
    // A full queue is back-pressure: wait. What is queued has a deadline of its own.
    match producer.send(record, Timeout::Never).await {
        Ok(_) => Ok(()),
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
            Err(SinkError::TooLarge(
                "over the largest message that kafka.max_send_bytes or the topic allows".into(),
            ))
        }
        Err((error, _)) => Err(SinkError::NotConfirmed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::RejectionCode;
    use crate::pipeline::message::Position;

    #[tokio::test]
    async fn a_dead_letter_that_the_broker_does_not_confirm_is_not_done() {
        let mut settings = crate::kafka::tests::settings();
        // Nobody listens there.
        "127.0.0.1:1".clone_into(&mut settings.brokers);
        settings.delivery_timeout_ms = 100;
        let sink = KafkaSink::new(&settings).unwrap();
        let raw = RawMessage {
            topic: Arc::from("frames"),
            position: Position { partition: 0, offset: 0 },
            key: None,
            value: Some(b"{".to_vec()),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        let rejected = sink.reject(&raw, &Rejection::new(RejectionCode::InvalidJson, "not JSON")).await;
        assert!(matches!(rejected, Err(SinkError::NotConfirmed(_))), "{rejected:?}");
    }
}

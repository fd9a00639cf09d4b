//! The producer of grade events and dead letters: idempotent, confirmed one by one.

use futures_util::future::BoxFuture;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::record::{LetterSize, Record, Topics};
use super::{Error, KafkaSettings, LogContext, refusal};
use crate::domain::{GradeEvent, Rejection};
use crate::pipeline::message::RawMessage;
use crate::pipeline::publish::{GradeSink, SinkError};

/// Why an event does not fit.
pub(super) const TOO_LARGE: &str = "over the largest message that kafka.max_send_bytes or the topic allows";

/// Sends to the grades topic and the dead-letter topic.
pub struct KafkaSink {
    producer: FutureProducer<LogContext>,
    topics: Topics,
}

impl KafkaSink {
    /// A producer for the cluster of `settings`. Connects in the background.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(settings: &KafkaSettings) -> Result<Self, Error> {
        let producer = FutureProducer::from_config_and_context(&settings.producer()?, LogContext::default())
            .map_err(|error| Error::create("producer", error))?;
        Ok(Self { producer, topics: Topics::of(settings) })
    }

    /// For events of other topics.
    pub(super) fn producer(&self) -> &FutureProducer<LogContext> {
        &self.producer
    }
}

impl GradeSink for KafkaSink {
    fn publish(
        &self,
        event: &GradeEvent,
        traceparent: Option<&str>,
    ) -> BoxFuture<'static, Result<(), SinkError>> {
        let (producer, topics) = (self.producer.clone(), self.topics.clone());
        let (event, traceparent) = (event.clone(), traceparent.map(str::to_owned));
        Box::pin(async move {
            let record = topics.grade(&event, traceparent.as_deref());
            let record = record
                .map_err(|error| SinkError::NotConfirmed(format!("cannot write the event: {error}")))?;
            send(&producer, record).await
        })
    }

    fn reject(&self, raw: &RawMessage, rejection: &Rejection) -> BoxFuture<'static, Result<(), SinkError>> {
        let (producer, topics) = (self.producer.clone(), self.topics.clone());
        let (raw, rejection) = (raw.clone(), rejection.clone());
        Box::pin(async move {
            let mut size = LetterSize::Whole;
            loop {
                let sent = send(&producer, topics.letter(&raw, &rejection, size)).await;
                match (size.smaller(), sent) {
                    (Some(smaller), Err(SinkError::TooLarge(error))) => {
                        tracing::warn!(error, size = ?smaller, "dead letter does not fit and is cut down");
                        size = smaller;
                    }
                    (_, sent) => return sent,
                }
            }
        })
    }
}

pub(super) async fn send(producer: &FutureProducer<LogContext>, record: Record<'_>) -> Result<(), SinkError> {
    let topic = record.topic;
    let record = FutureRecord {
        topic,
        partition: record.partition,
        payload: record.value.as_deref(),
        key: record.key,
        timestamp: record.timestamp_ms,
        headers: Some(record.headers),
    };
    // A full queue is back-pressure: wait. What is queued has a deadline of its own.
    match producer.send(record, Timeout::Never).await {
        Ok(_) => Ok(()),
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
            Err(SinkError::TooLarge(TOO_LARGE.into()))
        }
        Err((error, _)) => Err(SinkError::NotConfirmed(refusal::of_producer(&error, topic))),
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

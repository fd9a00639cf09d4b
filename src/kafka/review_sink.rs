//! The producer of review events: idempotent, confirmed one by one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use super::record::{JSON, cloud_event};
use super::refusal::{self, Access};
use super::{Error, KafkaSettings, LogContext};
use crate::domain::{REVIEW_EVENT_TYPE, Review};

/// CloudEvents `source` of every review event.
const EVENT_SOURCE: &str = "/memebg/board";
/// A person waits for the answer; what is not confirmed by then is said to be not recorded.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends reviews.
pub struct ReviewSink {
    client: ClientConfig,
    producer: Mutex<FutureProducer<LogContext>>,
    topic: String,
}

impl ReviewSink {
    /// A producer for the cluster of `settings`. Connects in the background.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(settings: &KafkaSettings, topic: &str) -> Result<Self, Error> {
        let mut client = settings.producer()?;
        // Then whether it was recorded is known when the reviewer is told.
        client.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer = Mutex::new(producer(&client)?);
        Ok(Self { client, producer, topic: topic.to_owned() })
    }

    /// Resolves when the broker has confirmed the review, a CloudEvent in binary mode.
    ///
    /// # Errors
    /// Why it is not recorded.
    pub async fn send(&self, review: &Review) -> Result<(), String> {
        let value = review.to_json().map_err(|error| format!("cannot write the review: {error}"))?;
        let record = FutureRecord::to(&self.topic)
            .key(review.embryo_id.as_bytes())
            .payload(&value)
            .headers(cloud_event(REVIEW_EVENT_TYPE, EVENT_SOURCE, &review.id(), JSON));
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = producer.send(record, Timeout::After(PATIENCE)).await;
        sent.map(drop).map_err(|(error, _)| self.not_recorded(&producer, &error))
    }

    /// Why not. An idempotent producer that may not write is of no use any more, also once it may: another one takes its place.
    fn not_recorded(&self, failed: &FutureProducer<LogContext>, error: &KafkaError) -> String {
        let Some((code, text)) = failed.client().fatal_error() else {
            return refusal::of_producer(error, &self.topic);
        };
        match producer(&self.client) {
            Ok(fresh) => *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(error) => tracing::error!(%error, "reviews cannot be sent any more; start the board again"),
        }
        // Asked for its id, before anything is sent, the cluster is what refuses it.
        let code = match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed => RDKafkaErrorCode::TopicAuthorizationFailed,
            code => code,
        };
        refusal::of_use(code, &self.topic, "reviews.topic", Access::Write).unwrap_or(text)
    }
}

fn producer(client: &ClientConfig) -> Result<FutureProducer<LogContext>, Error> {
    FutureProducer::from_config_and_context(client, LogContext::default())
        .map_err(|error| Error::create("producer of reviews", error))
}

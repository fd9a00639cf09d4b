//! The producer of bundles and dead letters.

use std::borrow::Cow;

use futures_util::future::BoxFuture;

use crate::domain::Rejection;
use crate::emr::{BundleSink, EmrSettings};
use crate::kafka::record::{EVENT_SOURCE, Record, cloud_event};
use crate::kafka::sink::{KafkaSink, send};
use crate::kafka::{Error, KafkaSettings};
use crate::pipeline::message::RawMessage;
use crate::pipeline::publish::{GradeSink as _, SinkError};

/// CloudEvents `type` of a bundle.
const BUNDLE_EVENT_TYPE: &str = "org.memebg.embryo.fhir.v1";

/// Sends to the topic of bundles and the dead-letter topic.
pub struct KafkaBundles {
    sink: KafkaSink,
    topic: String,
    media_type: &'static str,
}

impl KafkaBundles {
    /// A producer for the cluster of `kafka`. Connects in the background.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(kafka: &KafkaSettings, settings: &EmrSettings) -> Result<Self, Error> {
        let sink = KafkaSink::new(kafka)?;
        Ok(Self { sink, topic: settings.topic.clone(), media_type: settings.version.media_type() })
    }
}

impl BundleSink for KafkaBundles {
    fn publish<'a>(
        &'a self,
        embryo_id: &'a str,
        summary_version: u64,
        bundle: &'a [u8],
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let id = format!("{embryo_id}/{summary_version}");
            let record = Record {
                topic: &self.topic,
                partition: None,
                key: Some(embryo_id.as_bytes()),
                value: Some(Cow::Borrowed(bundle)),
                headers: cloud_event(BUNDLE_EVENT_TYPE, EVENT_SOURCE, &id, self.media_type),
                timestamp_ms: None,
            };
            send(self.sink.producer(), record).await
        })
    }

    fn reject<'a>(
        &'a self,
        raw: &'a RawMessage,
        rejection: &'a Rejection,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        self.sink.reject(raw, rejection)
    }
}

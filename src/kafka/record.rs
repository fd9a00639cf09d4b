//! Grade events and dead letters as Kafka records.

use std::borrow::Cow;

use rdkafka::message::{Header, OwnedHeaders};

use super::{KafkaSettings, with_headers};
use crate::domain::{EmbryoSummary, GRADE_EVENT_TYPE, GradeEvent, Rejection, SUMMARY_EVENT_TYPE};
use crate::pipeline::message::RawMessage;
use crate::pipeline::publish::Verdict;

/// CloudEvents `source` of every event.
pub(super) const EVENT_SOURCE: &str = "/memebg";
/// `content-type` of every event but FHIR bundles.
pub(super) const JSON: &str = "application/json";
/// Headers that say why; earlier ones of a message that was replayed are replaced.
const ERROR_HEADERS: [&str; 2] = ["__connect.errors.", "memebg."];

/// Headers of a dead letter: Kafka Connect's names for what went wrong (KIP-298), and two of our own.
pub(super) mod error_header {
    pub(in crate::kafka) const TOPIC: &str = "__connect.errors.topic";
    pub(in crate::kafka) const PARTITION: &str = "__connect.errors.partition";
    pub(in crate::kafka) const OFFSET: &str = "__connect.errors.offset";
    pub(in crate::kafka) const STAGE: &str = "__connect.errors.stage";
    pub(in crate::kafka) const CLASS: &str = "__connect.errors.exception.class.name";
    pub(in crate::kafka) const MESSAGE: &str = "__connect.errors.exception.message";
    pub(in crate::kafka) const CODE: &str = "memebg.error.code";
    /// Length of a value that did not fit.
    pub(in crate::kafka) const OMITTED_BYTES: &str = "memebg.value.omitted_bytes";
}

/// What is sent, before a producer's own type is made of it.
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    /// Where the key does not decide.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<Cow<'a, [u8]>>,
    pub(super) headers: OwnedHeaders,
    pub(super) timestamp_ms: Option<i64>,
}

/// How much of the original message a dead letter carries. The original stays where the headers say it
/// is; that there was one must not be lost, and a letter that never fits would stop the service at the
/// same frame for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LetterSize {
    Whole,
    WithoutValue,
    /// Without its key and headers too.
    Bare,
}

impl LetterSize {
    /// What to try when this does not fit; nothing is smaller than [`Self::Bare`].
    pub(super) fn smaller(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::WithoutValue),
            Self::WithoutValue => Some(Self::Bare),
            Self::Bare => None,
        }
    }
}

/// The topics that are written to.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    grades: String,
    dead_letters: String,
}

impl Topics {
    pub(super) fn of(settings: &KafkaSettings) -> Self {
        Self { grades: settings.grades_topic.clone(), dead_letters: settings.dead_letters_topic.clone() }
    }

    /// Where a verdict goes.
    pub(super) fn topic_of(&self, verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Grade(_) => &self.grades,
            Verdict::Reject(_) => &self.dead_letters,
        }
    }

    /// A grade event, as a CloudEvent in binary mode.
    pub(super) fn grade<'a>(
        &'a self,
        event: &'a GradeEvent,
        traceparent: Option<&str>,
    ) -> serde_json::Result<Record<'a>> {
        let mut headers = cloud_event(GRADE_EVENT_TYPE, EVENT_SOURCE, event.id.as_str(), JSON);
        if let Some(traceparent) = traceparent {
            headers = with_headers(headers, &[("traceparent", traceparent)]);
        }
        Ok(Record {
            topic: &self.grades,
            partition: None,
            key: Some(event.embryo_id.as_bytes()),
            value: Some(Cow::Owned(serde_json::to_vec(event)?)),
            headers,
            timestamp_ms: None,
        })
    }

    /// A dead letter: the original and why it was refused.
    pub(super) fn letter<'a>(
        &'a self,
        raw: &'a RawMessage,
        rejection: &Rejection,
        size: LetterSize,
    ) -> Record<'a> {
        let whole = size == LetterSize::Whole;
        let mut headers = error_headers(raw, rejection);
        if !whole {
            let omitted = raw.value.as_ref().map_or(0, Vec::len).to_string();
            headers = with_headers(headers, &[(error_header::OMITTED_BYTES, &omitted)]);
        }
        let bare = size == LetterSize::Bare;
        Record {
            topic: &self.dead_letters,
            partition: None,
            key: raw.key.as_deref().filter(|_| !bare),
            value: raw.value.as_deref().filter(|_| whole).map(Cow::Borrowed),
            headers: if bare { headers } else { with_original_headers(raw, headers) },
            timestamp_ms: raw.timestamp_ms,
        }
    }
}

/// A summary, as a CloudEvent in binary mode, for the partition from which its grade events come: whoever has that
/// one reads it back from there.
pub(super) fn summary<'a>(
    topic: &'a str,
    partition: i32,
    event: &'a EmbryoSummary,
) -> serde_json::Result<Record<'a>> {
    let id = format!("{}/{}", event.embryo_id, event.version);
    Ok(Record {
        topic,
        partition: Some(partition),
        key: Some(event.embryo_id.as_bytes()),
        value: Some(Cow::Owned(serde_json::to_vec(event)?)),
        headers: cloud_event(SUMMARY_EVENT_TYPE, EVENT_SOURCE, &id, JSON),
        timestamp_ms: None,
    })
}

/// Headers of a CloudEvent in binary mode, with room for a `traceparent`.
pub(super) fn cloud_event(event_type: &str, source: &str, id: &str, content_type: &str) -> OwnedHeaders {
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_type", event_type),
        ("ce_source", source),
        ("ce_id", id),
        ("content-type", content_type),
    ];
    with_headers(OwnedHeaders::new_with_capacity(attributes.len() + 1), &attributes)
}

fn error_headers(raw: &RawMessage, rejection: &Rejection) -> OwnedHeaders {
    let reasons = [
        (error_header::TOPIC, raw.topic.as_ref()),
        (error_header::PARTITION, &raw.position.partition.to_string()),
        (error_header::OFFSET, &raw.position.offset.to_string()),
        (error_header::STAGE, rejection.code.stage().as_str()),
        (error_header::CLASS, "memebg::domain::Rejection"),
        (error_header::MESSAGE, &rejection.message),
        (error_header::CODE, rejection.code.as_str()),
    ];
    with_headers(OwnedHeaders::new_with_capacity(8), &reasons)
}

pub(super) fn with_original_headers(raw: &RawMessage, reasons: OwnedHeaders) -> OwnedHeaders {
    let kept =
        raw.headers.iter().filter(|(key, _)| !ERROR_HEADERS.iter().any(|prefix| key.starts_with(prefix)));
    kept.fold(reasons, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }))
}

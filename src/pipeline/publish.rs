//! What leaves the pipeline, and the trait of where it goes.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::message::RawMessage;
use super::receipt::Outcome;
use crate::domain::{Frame, GradeEvent, GradeStatus, Rejection, RejectionCode};
use crate::telemetry::traces::FrameTrace;

/// Longest `traceparent` that is passed on. Its first version has 55 bytes, and later ones may be longer; what is far
/// longer is none, and must not make a grade event too large.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// How much may wait for the broker's confirmation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSettings {
    /// Events sent and not yet confirmed.
    pub max_unconfirmed: usize,
}

/// What the pipeline has to say about one frame.
#[derive(Debug)]
pub enum Verdict {
    /// A grade event, graded or abstained.
    Grade(Box<GradeEvent>),
    /// The frame could not be graded.
    Reject(Rejection),
}

/// What is to be published about one frame.
#[derive(Debug)]
pub struct Spoken {
    /// The original message.
    pub raw: RawMessage,
    /// The frame it describes, where it could be read.
    pub frame: Option<Frame>,
    /// What to say.
    pub verdict: Verdict,
    /// The frame's span.
    pub trace: FrameTrace,
}

impl Spoken {
    /// The W3C `traceparent` of what is published: of the frame's own span, or of the frame event when it is not
    /// traced here.
    #[must_use]
    pub fn traceparent(&self) -> Option<Cow<'_, str>> {
        self.trace.traceparent().map(Cow::Owned).or_else(|| traceparent_of(&self.raw).map(Cow::Borrowed))
    }
}

/// The W3C `traceparent` of a frame event.
#[must_use]
pub fn traceparent_of(raw: &RawMessage) -> Option<&str> {
    let message = raw.view();
    let traceparent = message.header("traceparent").or(message.header("ce_traceparent"));
    traceparent.filter(|it| it.len() <= MAX_TRACEPARENT_BYTES)
}

/// Where events go.
#[derive(Clone)]
pub enum Destination {
    /// Each on its own, settled when the broker has confirmed it.
    Sink(Arc<dyn GradeSink>),
    /// Into the outbox, from which the source publishes them together with its offsets.
    Outbox,
}

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The broker will never take this one.
    #[error("the broker refuses an event of this size: {0}")]
    TooLarge(String),
    /// The broker could not be made to confirm within the delivery time-out. The service stops: the
    /// frame is not settled and is read again.
    #[error("the broker did not confirm: {0}")]
    NotConfirmed(String),
}

/// Where grade events and dead letters go. Both resolve only when the broker has confirmed; the
/// events of one embryo keep the order of the calls.
pub trait GradeSink: Send + Sync + 'static {
    /// Publishes a grade event. `traceparent` (W3C) of the frame event is passed on.
    fn publish(
        &self,
        event: &GradeEvent,
        traceparent: Option<&str>,
    ) -> BoxFuture<'static, Result<(), SinkError>>;

    /// Publishes a dead letter: the original message and why it was refused.
    fn reject(&self, raw: &RawMessage, rejection: &Rejection) -> BoxFuture<'static, Result<(), SinkError>>;
}

/// Sends a verdict and returns how the route of its frame ended.
///
/// # Errors
/// [`SinkError::NotConfirmed`]; a grade event that is too large becomes a dead letter instead.
pub async fn publish(sink: &dyn GradeSink, spoken: &Spoken) -> Result<Outcome, SinkError> {
    let rejection = match &spoken.verdict {
        Verdict::Grade(event) => match sink.publish(event, spoken.traceparent().as_deref()).await {
            Ok(()) => return Ok(outcome(event)),
            Err(SinkError::TooLarge(message)) => Rejection::new(RejectionCode::GradeTooLarge, message),
            Err(error) => return Err(error),
        },
        Verdict::Reject(rejection) => rejection.clone(),
    };
    sink.reject(&spoken.raw, &rejection).await?;
    Ok(Outcome::DeadLettered(rejection.code))
}

/// How the route of a frame ended once this verdict is published.
#[must_use]
pub fn outcome_of(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Grade(event) => outcome(event),
        Verdict::Reject(rejection) => Outcome::DeadLettered(rejection.code),
    }
}

fn outcome(event: &GradeEvent) -> Outcome {
    match (event.status, &event.heads, event.reasons.first()) {
        (GradeStatus::Graded, Some(heads), _) => Outcome::Graded {
            exp: heads.exp.grade,
            icm: heads.icm.as_ref().map(|head| head.grade),
            te: heads.te.as_ref().map(|head| head.grade),
        },
        (_, _, Some(reason)) => Outcome::Abstained(*reason),
        // Not built by `GradeEvent::new`: an abstained event names its reason.
        (_, _, None) => Outcome::Abstained(crate::domain::AbstainReason::LowConfidence),
    }
}

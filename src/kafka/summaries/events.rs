//! Taking in grade events and reviews. What cannot be read becomes a dead letter and stops nothing.

use chrono::Utc;

use super::Run;
use crate::domain::{GRADE_EVENT_TYPE, GradeEvent, REVIEW_EVENT_TYPE, Rejection, RejectionCode, Review};
use crate::kafka::Error;
use crate::pipeline::message::MessageView;
use crate::summaries::{MAX_WAITING_REVIEWS, Received, Reviewed};

impl Run {
    pub(super) fn take_grade(&self, message: &MessageView<'_>) -> anyhow::Result<()> {
        let context = self.context();
        let (partition, offset) = (message.position.partition, message.position.offset);
        context.health.admitted();
        let Some(assignment) = context.lock().ready(partition) else {
            return Ok(self.give_back(message)?);
        };
        if !context.started.admits(&self.consumer, message.topic, message.position)? {
            return Ok(());
        }
        let received = match grade_event(message) {
            Err(rejection) => Err(rejection),
            Ok(event) => {
                let mut received = context.lock().keeper.receive(partition, &event);
                if received == Ok(Received::Forgotten) {
                    if !self.recall(partition, assignment, &event.embryo_id)? {
                        return Ok(());
                    }
                    received = context.lock().keeper.receive(partition, &event);
                }
                received
            }
        };
        let mut state = context.lock();
        match received {
            Ok(Received::Taken(effect, reviews)) => {
                context.metrics.frame_summarised(effect);
                reviews.iter().for_each(|comparison| context.metrics.reviewed(comparison));
            }
            Ok(Received::Forgotten) => return Err(not_recalled(message)),
            Err(rejection) => state.refuse(message, rejection, "grade"),
        }
        if let Some(held) = state.held(partition, assignment) {
            held.next_grade = Some(offset + 1);
            state.moved = true;
        }
        Ok(())
    }

    pub(super) fn take_review(&self, message: &MessageView<'_>) -> anyhow::Result<()> {
        let context = self.context();
        let (partition, offset) = (message.position.partition, message.position.offset);
        // Of a partition that has gone meanwhile.
        let Some(assignment) = context.lock().ready(partition) else { return Ok(()) };
        let reviewed = match self.review(message) {
            Err(rejection) => Err(rejection),
            Ok(review) => {
                let mut reviewed = context.lock().keeper.review(partition, offset, &review);
                if reviewed == Reviewed::Forgotten {
                    if !self.recall(partition, assignment, &review.embryo_id)? {
                        return Ok(());
                    }
                    reviewed = context.lock().keeper.review(partition, offset, &review);
                }
                Ok(reviewed)
            }
        };
        let mut state = context.lock();
        match reviewed {
            Ok(Reviewed::New(comparison)) => context.metrics.reviewed(&comparison),
            Ok(Reviewed::Waits) => {
                tracing::info!(partition, offset, "a review waits for the first grade of its embryo");
            }
            Ok(Reviewed::Known) => {}
            Ok(Reviewed::Refused) => {
                let why = format!(
                    "its embryo has no grade, and {MAX_WAITING_REVIEWS} other reviews wait for theirs"
                );
                state.refuse(message, Rejection::new(RejectionCode::UnknownEmbryo, why), "review");
            }
            Ok(Reviewed::Forgotten) => return Err(not_recalled(message)),
            Err(rejection) => state.refuse(message, rejection, "review"),
        }
        if let Some(held) = state.held(partition, assignment) {
            held.next_review = Some(offset + 1);
            state.moved = true;
        }
        Ok(())
    }

    fn review(&self, message: &MessageView<'_>) -> Result<Review, Rejection> {
        let review = Review::parse(value(message, REVIEW_EVENT_TYPE)?)?;
        review.check_clock(Utc::now(), self.clock_tolerance_seconds)?;
        check_key(message, &review.embryo_id)?;
        Ok(review)
    }
}

fn grade_event(message: &MessageView<'_>) -> Result<GradeEvent, Rejection> {
    let event: GradeEvent = serde_json::from_slice(value(message, GRADE_EVENT_TYPE)?)
        .map_err(|error| Rejection::unreadable("a grade event", &error))?;
    check_key(message, &event.embryo_id)?;
    Ok(event)
}

fn value<'a>(message: &MessageView<'a>, event_type: &str) -> Result<&'a [u8], Rejection> {
    if message.header("ce_type").is_some_and(|it| it != event_type) {
        let message = format!("its type is not {event_type}");
        return Err(Rejection::new(RejectionCode::UnknownEventType, message));
    }
    let empty = || Rejection::new(RejectionCode::EmptyValue, "message has no value");
    message.value.filter(|value| !value.is_empty()).ok_or_else(empty)
}

fn check_key(message: &MessageView<'_>, embryo_id: &str) -> Result<(), Rejection> {
    let other = || Rejection::new(RejectionCode::SchemaInvalid, "its key is not its embryo_id");
    (message.key == Some(embryo_id.as_bytes())).then_some(()).ok_or_else(other)
}

/// Must not happen, and reading on would lose the event.
fn not_recalled(message: &MessageView<'_>) -> anyhow::Error {
    let (topic, position) = (message.topic, message.position);
    let place = format!("{topic}/{}/{}", position.partition, position.offset);
    Error::Event(format!("the embryo of {place} was not brought back")).into()
}

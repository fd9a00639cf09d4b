//! Clocks that disagree. A frame from the future is dead-lettered, and one that is graded on a wrong hpi is worse; so is a
//! review.
//!
//! No broker tells its time without being written to. What is compared with our clock: when the newest frames and reviews
//! say they were made and sent, and the `Date` of the image servers.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::Check;
use super::needs::{Needs, Process};
use crate::config::Config;
use crate::pipeline::event;
use crate::pipeline::message::MessageView;

/// What tells the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Frame,
    Review,
}

impl Kind {
    fn check(self) -> &'static str {
        match self {
            Self::Frame => "clock.frames",
            Self::Review => "clock.reviews",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Review => "review",
        }
    }
}

/// What the newest messages of some topics say of the time.
#[derive(Debug)]
pub(super) struct Clocks(Vec<Newest>);

impl Clocks {
    /// Of what these processes refuse when it is from the future.
    pub(super) fn of(config: &Config, needs: &Needs) -> Self {
        let frames = needs.has(Process::Serve) || needs.has(Process::Board);
        let frames = frames.then_some((Kind::Frame, &config.kafka.frames_topic));
        let reviews = needs.has(Process::Summarize).then_some((Kind::Review, &config.reviews.topic));
        let newest = |(kind, topic): (Kind, &String)| Newest::new(kind, topic, config.kafka.max_value_bytes);
        Self(frames.into_iter().chain(reviews).map(newest).collect())
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|newest| newest.kind.check()).collect()
    }

    pub(super) fn look(&mut self, message: &MessageView<'_>) {
        for newest in self.0.iter_mut().filter(|newest| newest.topic == message.topic) {
            newest.look(message);
        }
    }

    pub(super) fn check(&self, tolerance_seconds: u32) -> Vec<Check> {
        self.0.iter().map(|newest| newest.check(tolerance_seconds)).collect()
    }
}

#[derive(Debug)]
struct Newest {
    kind: Kind,
    topic: String,
    max_value_bytes: usize,
    messages: usize,
    /// Of the youngest; negative when all are from the past.
    ahead: Option<TimeDelta>,
    partition: i32,
}

impl Newest {
    fn new(kind: Kind, topic: &str, max_value_bytes: usize) -> Self {
        Self { kind, topic: topic.to_owned(), max_value_bytes, messages: 0, ahead: None, partition: 0 }
    }

    fn made_at(&self, message: &MessageView<'_>) -> Option<DateTime<Utc>> {
        #[derive(Deserialize)]
        struct Review {
            reviewed_at: DateTime<Utc>,
        }
        match self.kind {
            Kind::Frame => {
                let mut scratch = Vec::new();
                let incoming = event::read(message, self.max_value_bytes, &mut scratch).ok();
                let captured_at = incoming.and_then(|incoming| incoming.event.captured_at)?;
                Some(DateTime::parse_from_rfc3339(&captured_at.0).ok()?.to_utc())
            }
            Kind::Review => {
                Some(serde_json::from_slice::<Review>(message.value.unwrap_or_default()).ok()?.reviewed_at)
            }
        }
    }

    fn look(&mut self, message: &MessageView<'_>) {
        let now = Utc::now();
        let made_at = self.made_at(message);
        let sent_at = message.timestamp_ms.and_then(DateTime::from_timestamp_millis);
        self.messages += usize::from(made_at.is_some());
        for clock in [made_at, sent_at].into_iter().flatten() {
            let ahead = clock - now;
            if self.ahead.is_none_or(|most| ahead > most) {
                (self.ahead, self.partition) = (Some(ahead), message.position.partition);
            }
        }
    }

    fn check(&self, tolerance_seconds: u32) -> Check {
        let (name, noun) = (self.kind.check(), self.kind.noun());
        let Some(ahead) = self.ahead else {
            return Check::skipped(name, format!("no {noun} could be looked at"));
        };
        let (messages, partition) = (self.messages, self.partition);
        if ahead.num_seconds() > i64::from(tolerance_seconds) {
            let (whose, mended) = match self.kind {
                Kind::Frame => (
                    "an incubator's",
                    ", and afterwards `memebg dlq replay --code clock_in_future` brings it back",
                ),
                Kind::Review => ("a reviewer's", ", to be sent again afterwards"),
            };
            return Check::fail(
                name,
                format!(
                    "the newest {noun} of partition {partition} is {} s in the future: this machine's clock is \
                     behind, or {whose} is ahead",
                    ahead.num_seconds()
                ),
                format!(
                    "compare both clocks with a time server; a {noun} more than \
                     select.clock_tolerance_seconds = {tolerance_seconds} ahead is dead-lettered{mended}"
                ),
            );
        }
        let youngest = if ahead > TimeDelta::zero() {
            format!("{} s ahead of this machine", ahead.num_seconds())
        } else {
            format!("{} s old", -ahead.num_seconds())
        };
        Check::ok(
            name,
            format!("none of the newest {messages} {noun}s is from the future; the youngest is {youngest}"),
        )
    }
}

/// The clocks of the image servers, each with the name of its check.
pub(super) fn of_servers(ahead: &[(String, TimeDelta)], tolerance_seconds: u32) -> Option<Check> {
    const NAME: &str = "clock.images";
    let (name, most) = ahead.iter().max_by_key(|(_, ahead)| ahead.abs())?;
    let (seconds, side) =
        (most.num_seconds().abs(), if *most > TimeDelta::zero() { "ahead of" } else { "behind" });
    let found = format!("the server of {name} is {seconds} s {side} this machine, to the second");
    Some(if seconds > i64::from(tolerance_seconds) {
        let advice = format!(
            "set this machine's clock by a time server; frames more than select.clock_tolerance_seconds = \
             {tolerance_seconds} ahead of it are dead-lettered"
        );
        Check::fail(NAME, found, advice)
    } else {
        Check::ok(NAME, found)
    })
}

#[cfg(test)]
#[path = "clocks/tests.rs"]
mod tests;

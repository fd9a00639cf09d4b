//! Clocks that disagree. A frame from the future is dead-lettered, and one that is graded on a wrong hpi is worse.
//!
//! No broker tells its time without being written to. What is compared with our clock: when the newest frames say
//! they were captured and sent, and the `Date` of the image servers.

use chrono::{DateTime, TimeDelta, Utc};

use super::Check;
use crate::pipeline::event;
use crate::pipeline::message::MessageView;

/// What the newest frames say of the time.
#[derive(Debug)]
pub(super) struct FrameClocks {
    max_value_bytes: usize,
    frames: usize,
    /// Of the youngest frame; negative when all are from the past.
    ahead: Option<TimeDelta>,
    partition: i32,
}

impl FrameClocks {
    pub(super) fn new(max_value_bytes: usize) -> Self {
        Self { max_value_bytes, frames: 0, ahead: None, partition: 0 }
    }

    pub(super) fn look(&mut self, message: &MessageView<'_>) {
        let now = Utc::now();
        let mut scratch = Vec::new();
        let incoming = event::read(message, self.max_value_bytes, &mut scratch).ok();
        let captured_at = incoming.and_then(|incoming| incoming.event.captured_at).and_then(|text| {
            DateTime::parse_from_rfc3339(&text.0).ok().map(|captured_at| captured_at.to_utc())
        });
        let sent_at = message.timestamp_ms.and_then(DateTime::from_timestamp_millis);
        self.frames += usize::from(captured_at.is_some());
        for clock in [captured_at, sent_at].into_iter().flatten() {
            let ahead = clock - now;
            if self.ahead.is_none_or(|most| ahead > most) {
                (self.ahead, self.partition) = (Some(ahead), message.position.partition);
            }
        }
    }

    pub(super) fn check(&self, tolerance_seconds: u32) -> Check {
        const NAME: &str = "clock.frames";
        let Some(ahead) = self.ahead else { return Check::skipped(NAME, "no frame could be looked at") };
        let (frames, partition) = (self.frames, self.partition);
        if ahead.num_seconds() > i64::from(tolerance_seconds) {
            return Check::fail(
                NAME,
                format!(
                    "the newest frame of partition {partition} is {} s in the future: this machine's clock is \
                     behind, or an incubator's is ahead",
                    ahead.num_seconds()
                ),
                format!(
                    "compare both clocks with a time server; a frame more than \
                     select.clock_tolerance_seconds = {tolerance_seconds} ahead is dead-lettered, and afterwards \
                     `memebg dlq replay --code clock_in_future` brings it back"
                ),
            );
        }
        let youngest = if ahead > TimeDelta::zero() {
            format!("{} s ahead of this machine", ahead.num_seconds())
        } else {
            format!("{} s old", -ahead.num_seconds())
        };
        Check::ok(
            NAME,
            format!("none of the newest {frames} frames is from the future; the youngest is {youngest}"),
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
mod tests {
    use super::*;
    use crate::doctor::Status;
    use crate::pipeline::message::Position;

    fn sent_ahead(seconds: &[i64]) -> Check {
        let mut clocks = FrameClocks::new(1_000);
        for (partition, seconds) in (0..).zip(seconds) {
            clocks.look(&MessageView {
                topic: "frames",
                position: Position { partition, offset: 0 },
                key: None,
                value: Some(b"{}"),
                headers: Vec::new(),
                timestamp_ms: Some((Utc::now() + TimeDelta::seconds(*seconds)).timestamp_millis()),
            });
        }
        clocks.check(300)
    }

    #[test]
    fn the_frame_furthest_in_the_future_counts() {
        assert_eq!(sent_ahead(&[-10, 290]).status, Status::Ok);
        let skewed = sent_ahead(&[-10, 400, 20]);
        assert_eq!(skewed.status.as_str(), "fail");
        assert!(skewed.found.contains("partition 1") && skewed.found.contains("99 s"), "{}", skewed.found);
        assert_eq!(sent_ahead(&[]).status, Status::Skipped);
    }

    #[test]
    fn a_server_on_either_side_of_us_counts() {
        let server = |seconds| of_servers(&[("images.0".to_owned(), TimeDelta::seconds(seconds))], 300);
        assert_eq!(server(-300).unwrap().status, Status::Ok);
        for (seconds, side) in [(-301, "behind"), (301, "ahead")] {
            let check = server(seconds).unwrap();
            assert_eq!(check.status.as_str(), "fail");
            assert!(check.found.contains(side) && check.found.contains("301 s"), "{}", check.found);
        }
        assert_eq!(of_servers(&[], 300), None);
    }
}

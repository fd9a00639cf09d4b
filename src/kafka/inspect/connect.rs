//! Whether anybody answers at all, and why not.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::TURN;
use super::ask::Heard;
use super::found::{Deadline, NotConnected, Reason};
use crate::kafka::{KafkaSettings, refusal};

/// Longest wait for any broker to answer at all. One that runs answers within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until a broker answers, for `topic`; returns how many there are.
pub(super) fn connect(
    settings: &KafkaSettings,
    topic: &str,
    observer: &BaseConsumer<Heard>,
    timeout: Duration,
) -> Result<usize, NotConnected> {
    let deadline = Deadline::within(timeout.min(CONNECT_TIMEOUT));
    let began = Instant::now();
    loop {
        // What is not there is not created: the observer does not allow it.
        let answer = observer.fetch_metadata(Some(topic), deadline.left().min(TURN));
        let error = match answer {
            Ok(metadata) => return Ok(metadata.brokers().len()),
            Err(error) => error,
        };
        // Hands over what librdkafka has to say; nothing is assigned.
        drop(observer.poll(Duration::ZERO));
        let heard = observer.context().last();
        let resolves = |code| code != RDKafkaErrorCode::Resolve;
        if let Some((code, reason)) = heard.as_ref().filter(|(code, _)| resolves(*code))
            && let Some(cause) = refusal::of_connection(*code)
        {
            let Reason { found, advice } = Reason::from_refusal(cause);
            return Err(NotConnected::Refused(Reason::new(format!("{found} ({reason})"), advice)));
        }
        if deadline.is_over() {
            let because = heard.map_or_else(|| error.to_string(), |(_, reason)| reason);
            return Err(NotConnected::Unreachable(Reason::new(
                format!(
                    "no broker of {} answers within {:.0} s ({because})",
                    settings.brokers,
                    began.elapsed().as_secs_f64()
                ),
                "check kafka.brokers, that the brokers run, and that this machine reaches them (names, firewall)",
            )));
        }
    }
}

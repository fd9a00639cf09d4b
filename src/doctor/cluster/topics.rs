//! Whether a topic is there, safe, and takes what is sent to it.

use crate::config::DEAD_LETTER_OVERHEAD_BYTES;
use crate::doctor::{Check, Fault};
use crate::kafka::KafkaSettings;
use crate::kafka::inspect::{Layout, Limits, Topic};

pub(super) const LETTER_SIZE: &str = "kafka.dead_letter_size";

/// `brokers` is how many there are to keep copies.
pub(in crate::doctor) fn check(name: &str, topic: &Topic, brokers: usize) -> Check {
    let layout = match &topic.layout {
        Ok(layout) => *layout,
        Err(reason) => return Check::fail(name, &reason.found, &reason.advice),
    };
    let limits = topic.limits.as_ref().ok().copied();
    let Layout { partitions, replicas, leaderless, under_replicated } = layout;
    let minimum = limits.map_or("not told".to_owned(), |limits| limits.min_insync_replicas.to_string());
    let found = format!(
        "{}: {partitions} partitions, {replicas} replicas, min.insync.replicas {minimum}",
        topic.name
    );
    if leaderless > 0 {
        return Check::fail(
            name,
            format!("{found}; nobody serves {leaderless} of the partitions"),
            "start the brokers that have them; their frames or events wait meanwhile",
        )
        .because_of(Fault::Unreachable);
    }
    if under_replicated > 0 {
        return Check::warn(
            name,
            format!("{found}; copies of {under_replicated} partitions are behind or away"),
            "look at the brokers: one may be down, or its disk slow",
        );
    }
    match danger(layout, limits, brokers) {
        Some((danger, advice)) => Check::warn(name, format!("{found}; {danger}"), advice),
        None => Check::ok(name, found),
    }
}

/// How records may get lost, or held up, when one broker is. A cluster of one broker has no choice.
fn danger(layout: Layout, limits: Option<Limits>, brokers: usize) -> Option<(&'static str, &'static str)> {
    if brokers < 2 {
        return None;
    }
    if layout.replicas < 2 {
        return Some(("a lost disk loses records", "give the topic 3 replicas, on 3 brokers"));
    }
    let minimum = limits?.min_insync_replicas;
    if minimum < 2 {
        let danger = "a record is confirmed with one copy, which may get lost";
        return Some((danger, "set min.insync.replicas of the topic to 2"));
    }
    (minimum >= layout.replicas).then_some((
        "with one broker away nothing can be written",
        "keep min.insync.replicas one below the number of replicas",
    ))
}

/// Whether a dead letter of the largest frame event fits.
pub(super) fn check_letter_size(settings: &KafkaSettings, topic: &Topic) -> Check {
    const NAME: &str = LETTER_SIZE;
    if topic.layout.is_err() {
        return Check::skipped(NAME, "the topic cannot be seen");
    }
    let limits = match &topic.limits {
        Ok(limits) => limits,
        Err(reason) => {
            return Check { advice: Some(reason.advice.clone()), ..Check::skipped(NAME, &reason.found) };
        }
    };
    let (takes, largest) = (limits.max_message_bytes, settings.max_value_bytes);
    let needed = largest.saturating_add(DEAD_LETTER_OVERHEAD_BYTES);
    let found = format!("max.message.bytes {takes}, kafka.max_value_bytes {largest}");
    if takes < needed as u64 {
        return Check::warn(
            NAME,
            format!("{found}: a dead letter of a large frame goes without its value"),
            format!("set max.message.bytes of topic {} to {needed} or more", topic.name),
        );
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    fn topic(replicas: usize, min_insync_replicas: usize) -> Topic {
        Topic {
            name: "frames".into(),
            layout: Ok(Layout { partitions: 3, replicas, leaderless: 0, under_replicated: 0 }),
            limits: Ok(Limits {
                max_message_bytes: 1 << 20,
                min_insync_replicas,
                compacts: false,
                deletes: false,
                retention_ms: -1,
                retention_bytes: -1,
            }),
            read: None,
        }
    }

    #[test]
    fn what_would_lose_or_hold_up_records_when_a_broker_goes_is_a_warning() {
        let status = |replicas, minimum, brokers| check("t", &topic(replicas, minimum), brokers).status;
        assert_eq!(status(3, 2, 3), Status::Ok);
        assert_eq!(status(1, 1, 1), Status::Ok);
        for (replicas, minimum) in [(1, 1), (3, 1), (2, 2), (3, 3)] {
            assert_eq!(status(replicas, minimum, 3), Status::Warn, "{replicas} {minimum}");
        }
    }

    #[test]
    fn a_partition_without_a_leader_is_a_failure_and_one_that_is_behind_a_warning() {
        let mut sick = topic(3, 2);
        sick.layout.as_mut().unwrap().under_replicated = 1;
        assert_eq!(check("t", &sick, 3).status, Status::Warn);
        sick.layout.as_mut().unwrap().leaderless = 1;
        assert_eq!(check("t", &sick, 3).status, Status::Fail(Fault::Unreachable));
    }
}

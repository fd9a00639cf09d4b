//! What the cluster's answers mean for the service.

pub(super) mod topics;

use std::time::Duration;

use super::clocks::FrameClocks;
use super::{Check, Fault, within};
use crate::config::Config;
use crate::kafka::inspect::{Inspection, NotConnected, Progress, Reason, inspect};
use crate::kafka::{Delivery, KafkaSettings, StartFrom};

const BROKERS: &str = "kafka.brokers";
const LAG: &str = "kafka.lag";
/// What lies in a topic that cannot be seen is no finding of its own.
const UNSEEN: &str = "see kafka.frames_topic";
const REST: [&str; 8] = [
    "kafka.frames_topic",
    "kafka.grades_topic",
    "kafka.dead_letters_topic",
    "kafka.dead_letter_size",
    "kafka.read",
    "kafka.group",
    LAG,
    "kafka.write",
];
/// What the clients may take beyond their time to give up.
const GRACE: Duration = Duration::from_secs(5);

/// The checks of the cluster, and the one of the clocks behind its frames.
pub(super) async fn check(config: &Config, timeout: Duration) -> (Vec<Check>, Check) {
    let settings = config.kafka.clone();
    let look = move || {
        let mut clocks = FrameClocks::new(settings.max_value_bytes);
        inspect(&settings, timeout, &mut |message| clocks.look(message)).map(|found| (found, clocks))
    };
    let settings = &config.kafka;
    let failed = |check: Check| {
        let rest = REST.iter().map(|name| Check::skipped(*name, "the cluster cannot be asked"));
        let clock = Check::skipped("clock.frames", "the cluster cannot be asked");
        (std::iter::once(check).chain(rest).collect(), clock)
    };
    match within(timeout.saturating_add(GRACE), look).await {
        Ok(Ok((found, clocks))) => {
            let clock = clocks.check(config.select.clock_tolerance_seconds);
            (judge(settings, found), clock)
        }
        Ok(Err(NotConnected::Settings(error))) => {
            let advice = "mend kafka.properties and kafka.property_files; `memebg config show` prints them";
            failed(
                Check::fail(BROKERS, format!("{:#}", anyhow::Error::new(error)), advice)
                    .because_of(Fault::Configuration),
            )
        }
        Ok(Err(NotConnected::Refused(reason))) => failed(refused(BROKERS, reason)),
        Ok(Err(NotConnected::Unreachable(reason))) => {
            failed(refused(BROKERS, reason).because_of(Fault::Unreachable))
        }
        Err(reason) => {
            let advice =
                "try again with a larger --timeout-seconds; if it stays so, look at the brokers' logs";
            failed(Check::fail(BROKERS, reason, advice).because_of(Fault::Unreachable))
        }
    }
}

fn refused(name: &str, Reason { found, advice }: Reason) -> Check {
    Check::fail(name, found, advice)
}

fn judge(settings: &KafkaSettings, found: Inspection) -> Vec<Check> {
    let cluster = found.cluster_id.as_deref().unwrap_or("without an id");
    let brokers = found.brokers;
    let mut checks =
        vec![Check::ok(BROKERS, format!("{brokers} up in cluster {cluster}, asked at {}", settings.brokers))];
    for (name, topic) in REST.into_iter().zip([&found.frames, &found.grades, &found.dead_letters]) {
        checks.push(topics::check(name, topic, brokers));
    }
    checks.push(topics::check_letter_size(settings, &found.dead_letters));
    checks.push(match found.read {
        _ if found.frames.layout.is_err() => Check::skipped("kafka.read", UNSEEN),
        Ok(partitions) => {
            let topic = &found.frames.name;
            Check::ok("kafka.read", format!("READ on {topic}: {partitions} partitions were read from"))
        }
        Err(reason) => refused("kafka.read", reason),
    });
    let refused_group = found.group.as_ref().err().cloned();
    checks.push(match found.group {
        Ok(()) => {
            let group = &settings.group_id;
            Check::ok("kafka.group", format!("READ on group {group}: it may be joined and committed to"))
        }
        Err(reason) => refused("kafka.group", reason),
    });
    checks.push(match found.progress {
        _ if found.frames.layout.is_err() => Check::skipped(LAG, UNSEEN),
        Err(reason) if Some(&reason) == refused_group.as_ref() => Check::skipped(LAG, "see kafka.group"),
        Err(reason) => refused(LAG, reason),
        Ok(progress) => of_progress(settings, progress),
    });
    let visible = [&found.grades, &found.dead_letters].into_iter().all(|topic| topic.layout.is_ok());
    checks.push(of_producer(settings, visible, found.producer));
    checks
}

fn of_progress(settings: &KafkaSettings, progress: Progress) -> Check {
    match progress {
        Progress { lost, lag, .. } if lost > 0 => Check::warn(
            LAG,
            format!(
                "{lag} frames to read; {lost} were deleted before the group {} read them",
                settings.group_id
            ),
            "raise the retention of the frames topic, and start more processes if the service does not keep up",
        ),
        Progress { committed_partitions: 0, lag, .. } => {
            let from = match settings.start_from {
                StartFrom::Earliest => "earliest",
                StartFrom::Latest => "latest",
            };
            let group = &settings.group_id;
            Check::ok(
                LAG,
                format!("{lag} frames to read; group {group} has committed nothing, it starts at {from}"),
            )
        }
        Progress { lag, .. } => {
            Check::ok(LAG, format!("{lag} frames behind what group {} has committed", settings.group_id))
        }
    }
}

fn of_producer(settings: &KafkaSettings, visible: bool, producer: Result<(), Reason>) -> Check {
    const NAME: &str = "kafka.write";
    match producer {
        Err(reason) => refused(NAME, reason),
        Ok(()) if !visible => Check::skipped(NAME, "a topic to write to cannot be seen"),
        Ok(()) => {
            let id = match settings.delivery {
                Delivery::AtLeastOnce => "a producer id",
                Delivery::ExactlyOnce => "a transactional id",
            };
            // Never claimed: only a record on the topic would show it.
            let found = format!(
                "{id} is granted and both topics are visible; WRITE on each was not asked, since only writing shows it"
            );
            Check::ok(NAME, found)
        }
    }
}

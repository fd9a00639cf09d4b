//! What a process may do: read, be in its group, write; and how far it has come.

use super::refused;
use crate::doctor::Check;
use crate::doctor::needs::Process;
use crate::kafka::inspect::{Client, ClientFindings, Progress, Reason, Topic};
use crate::kafka::{Delivery, StartFrom};

/// A topic with the option that names it.
type Named<'a> = (&'static str, &'a Topic);

/// The names of the checks of a process.
pub(super) fn names(process: Process) -> &'static [&'static str] {
    match process {
        Process::Serve => &["kafka.read", "kafka.group", "kafka.lag", "kafka.write"],
        Process::Summarize => &["summarize.read", "summarize.group", "summarize.lag", "summarize.write"],
        Process::Emr => &["emr.read", "emr.group", "emr.lag", "emr.write"],
        // In no group.
        Process::Board => &["board.read", "board.lag", "board.write"],
    }
}

/// `read` begins with the topic that the process follows.
pub(super) fn check(
    process: Process,
    client: &Client,
    findings: &ClientFindings,
    read: &[Named<'_>],
    written: &[Named<'_>],
) -> Vec<Check> {
    let name = |what: &str| format!("{}.{what}", process.prefix());
    let ClientFindings { progress, group, producer } = findings;
    let mut checks = vec![of_read(name("read"), read)];
    checks.extend(group.as_ref().map(|group| match group {
        Ok(()) => {
            let group = &client.kafka.group_id;
            Check::ok(name("group"), format!("READ on group {group}: it may be joined and committed to"))
        }
        Err(reason) => refused(name("group"), reason.clone()),
    }));
    let unseen = read.first().filter(|(_, topic)| topic.layout.is_err());
    let refused_group = group.as_ref().and_then(|group| group.as_ref().err());
    checks.push(match progress {
        _ if let Some((option, _)) = unseen => Check::skipped(name("lag"), format!("see {option}")),
        Err(reason) if Some(reason) == refused_group => {
            Check::skipped(name("lag"), format!("see {}", name("group")))
        }
        // It is shown to people, and nothing rests on it.
        Err(Reason { found, advice }) if !client.joins => Check::warn(name("lag"), found, advice),
        Err(reason) => refused(name("lag"), reason.clone()),
        Ok(progress) => of_progress(name("lag"), process, client, *progress),
    });
    checks.push(of_producer(name("write"), client, written, producer));
    checks
}

fn of_read(name: String, topics: &[Named<'_>]) -> Check {
    let read = || topics.iter().filter_map(|(_, topic)| Some((topic, topic.read.as_ref()?)));
    let reasons: Vec<&Reason> = read().filter_map(|(_, read)| read.as_ref().err()).collect();
    let joined = |texts: Vec<&str>| texts.join("; ");
    if !reasons.is_empty() {
        let found = joined(reasons.iter().map(|reason| reason.found.as_str()).collect());
        let mut advice: Vec<_> = reasons.iter().map(|reason| reason.advice.as_str()).collect();
        advice.dedup();
        return Check::fail(name, found, joined(advice));
    }
    let names: Vec<&str> = read().map(|(topic, _)| topic.name.as_str()).collect();
    if names.is_empty() {
        let options: Vec<_> = topics.iter().map(|(option, _)| *option).collect();
        return Check::skipped(name, format!("see {}", options.join(", ")));
    }
    let partitions: usize = read().filter_map(|(_, read)| read.as_ref().ok()).sum();
    Check::ok(name, format!("READ on {}: {partitions} partitions were read from", names.join(", ")))
}

fn of_progress(name: String, process: Process, client: &Client, progress: Progress) -> Check {
    let group = &client.kafka.group_id;
    let (messages, topic) = process.follows();
    match progress {
        Progress { lost, lag, .. } if lost > 0 => Check::warn(
            name,
            format!("{lag} {messages} to read; {lost} were deleted before the group {group} read them"),
            format!(
                "raise the retention of the {topic} topic, and start more processes if the service does not keep up"
            ),
        ),
        Progress { committed_partitions: 0, lag, .. } => {
            let from = match client.kafka.start_from {
                StartFrom::Earliest => "earliest",
                StartFrom::Latest => "latest",
            };
            let found =
                format!("{lag} {messages} to read; group {group} has committed nothing, it starts at {from}");
            Check::ok(name, found)
        }
        Progress { lag, .. } => {
            Check::ok(name, format!("{lag} {messages} behind what group {group} has committed"))
        }
    }
}

fn of_producer(name: String, client: &Client, written: &[Named<'_>], producer: &Result<(), Reason>) -> Check {
    match producer {
        Err(reason) => refused(name, reason.clone()),
        Ok(()) if written.iter().any(|(_, topic)| topic.layout.is_err()) => {
            Check::skipped(name, "a topic to write to cannot be seen")
        }
        Ok(()) => {
            let id = match client.kafka.delivery {
                Delivery::AtLeastOnce => "a producer id",
                Delivery::ExactlyOnce => "a transactional id",
            };
            let (visible, on) = match written {
                [(_, topic)] => (format!("topic {} is visible", topic.name), "it"),
                _ => ("both topics are visible".into(), "each"),
            };
            // Never claimed: only a record on the topic would show it.
            let found = format!(
                "{id} is granted and {visible}; WRITE on {on} was not asked, since only writing shows it"
            );
            Check::ok(name, found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};
    use crate::doctor::Status;
    use crate::doctor::needs::Needs;
    use crate::kafka::inspect::Layout;

    fn topic(name: &str, read: Option<Result<usize, Reason>>) -> Topic {
        let layout = Layout { partitions: 2, replicas: 1, leaderless: 0, under_replicated: 0 };
        let unknown = Reason { found: "not asked".into(), advice: "ask".into() };
        Topic { name: name.into(), layout: Ok(layout), limits: Err(unknown), read }
    }

    fn refusal(topic: &str) -> Option<Result<usize, Reason>> {
        Some(Err(Reason { found: format!("not {topic}"), advice: "grant it".into() }))
    }

    #[test]
    fn whatever_a_process_may_not_do_fails_but_for_what_is_only_shown() {
        let config = Config::load(&Layers::default(), []).unwrap();
        let topic = topic("a", refusal("a"));
        for (process, client) in Needs::of(&config, Process::ALL).clients {
            let reason = |of: &str| Reason { found: format!("no {of}"), advice: "grant it".into() };
            let findings = ClientFindings {
                progress: Err(reason("lag")),
                group: client.joins.then(|| Err(reason("group"))),
                producer: Err(reason("write")),
            };
            let named = [("option", &topic)];
            let checks = check(process, &client, &findings, &named, &named);
            let ended: Vec<_> = checks.iter().map(|it| (it.name.as_str(), it.status.as_str())).collect();
            let expected = |name: &&'static str| (*name, if *name == "board.lag" { "warn" } else { "fail" });
            assert_eq!(ended, names(process).iter().map(expected).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_topic_that_may_not_be_read_is_named_and_the_advice_not_repeated() {
        let (a, b, c) = (topic("a", Some(Ok(2))), topic("b", refusal("b")), topic("c", refusal("c")));
        let all = |topics: &[&Topic]| {
            let named: Vec<_> = topics.iter().map(|topic| ("option", *topic)).collect();
            of_read("x.read".into(), &named.iter().map(|(option, it)| (*option, *it)).collect::<Vec<_>>())
        };
        let found = all(&[&a, &b, &c]);
        assert_eq!((found.status.as_str(), found.found.as_str()), ("fail", "not b; not c"));
        assert_eq!(found.advice.as_deref(), Some("grant it"));
        assert_eq!(all(&[&a, &a]).found, "READ on a, a: 4 partitions were read from");
        assert_eq!(all(&[&topic("d", None)]).status, Status::Skipped);
    }
}

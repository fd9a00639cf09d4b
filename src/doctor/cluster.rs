//! What the cluster's answers mean for the processes.

mod clients;
mod kept;
pub(super) mod topics;

use std::time::Duration;

use super::clocks::Clocks;
use super::needs::{Needs, Process};
use super::{Check, Fault, within};
use crate::config::Config;
use crate::kafka::inspect::{Inspection, NotConnected, Reason, inspect};

const BROKERS: &str = "kafka.brokers";
/// What the clients may take beyond their time to give up.
const GRACE: Duration = Duration::from_secs(5);

/// The checks of the cluster, and those of the clocks behind what lies in it.
pub(super) async fn check(config: &Config, needs: &Needs, timeout: Duration) -> (Vec<Check>, Vec<Check>) {
    let mut clocks = Clocks::of(config, needs);
    let names = clocks.names();
    let (settings, topics) = (config.kafka.clone(), needs.topics.clone());
    let clients: Vec<_> = needs.clients.iter().map(|(_, client)| client.clone()).collect();
    let look = move || {
        inspect(&settings, &topics, &clients, timeout, &mut |message| clocks.look(message))
            .map(|found| (found, clocks))
    };
    let failed = |check: Check| {
        let skipped = |name| Check::skipped(name, "the cluster cannot be asked");
        let rest = expected(needs).into_iter().map(skipped);
        (std::iter::once(check).chain(rest).collect(), names.iter().copied().map(skipped).collect())
    };
    match within(timeout.saturating_add(GRACE), look).await {
        Ok(Ok((found, clocks))) => {
            (judge(config, needs, &found), clocks.check(config.select.clock_tolerance_seconds))
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

fn refused(name: impl Into<String>, Reason { found, advice }: Reason) -> Check {
    Check::fail(name, found, advice)
}

/// The names of the checks that there are when the cluster can be asked, but for the first.
fn expected(needs: &Needs) -> Vec<&'static str> {
    let mut names: Vec<_> = needs.topics.iter().map(|topic| topic.option).collect();
    if needs.has(Process::Serve) {
        names.push(topics::LETTER_SIZE);
    }
    if needs.has(Process::Summarize) {
        names.extend(kept::NAMES);
    }
    names.extend(needs.clients.iter().flat_map(|(process, _)| clients::names(*process)));
    names
}

fn judge(config: &Config, needs: &Needs, found: &Inspection) -> Vec<Check> {
    let cluster = found.cluster_id.as_deref().unwrap_or("without an id");
    let brokers = found.brokers;
    let asked_at = &config.kafka.brokers;
    let mut checks =
        vec![Check::ok(BROKERS, format!("{brokers} up in cluster {cluster}, asked at {asked_at}"))];
    for (used, topic) in needs.topics.iter().zip(&found.topics) {
        checks.push(topics::check(used.option, topic, brokers));
    }
    let topic = |option: &str| needs.position(option).and_then(|position| found.topics.get(position));
    if let Some(letters) = topic("kafka.dead_letters_topic").filter(|_| needs.has(Process::Serve)) {
        checks.push(topics::check_letter_size(&config.kafka, letters));
    }
    if needs.has(Process::Summarize)
        && let (Some(grades), Some(summaries), Some(reviews)) =
            (topic("kafka.grades_topic"), topic("summaries.topic"), topic("reviews.topic"))
    {
        checks.extend(kept::check(grades, summaries, reviews));
    }
    for ((process, client), findings) in needs.clients.iter().zip(&found.clients) {
        let (read, written) = super::needs::topics(config, *process);
        let all = |named: Vec<(&'static str, &str)>| -> Vec<_> {
            named.into_iter().filter_map(|(option, _)| Some((option, topic(option)?))).collect()
        };
        checks.extend(clients::check(*process, client, findings, &all(read), &all(written)));
    }
    checks
}

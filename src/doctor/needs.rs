//! What each process needs of the cluster: topics, a group, and what it writes with.

use crate::config::Config;
use crate::kafka::inspect::{Access, Client, TopicUse};
use crate::kafka::{Delivery, KafkaSettings, StartFrom};

/// A process that may be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `memebg serve`.
    Serve,
    /// `memebg summarize`.
    Summarize,
    /// `memebg emr`.
    Emr,
    /// `memebg board`.
    Board,
}

impl Process {
    /// In the order in which they are looked at.
    pub const ALL: &[Self] = &[Self::Serve, Self::Summarize, Self::Emr, Self::Board];

    /// As it is started.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Summarize => "summarize",
            Self::Emr => "emr",
            Self::Board => "board",
        }
    }

    /// How the names of its checks of the cluster begin.
    pub(super) fn prefix(self) -> &'static str {
        if self == Self::Serve { "kafka" } else { self.as_str() }
    }

    /// What it follows: the messages, and the topic.
    pub(super) fn follows(self) -> (&'static str, &'static str) {
        match self {
            Self::Serve | Self::Board => ("frames", "frames"),
            Self::Summarize => ("grade events", "grades"),
            Self::Emr => ("summaries", "summaries"),
        }
    }
}

/// What some processes need of the cluster.
#[derive(Debug)]
pub(super) struct Needs {
    /// Each once, with everything that is done with it.
    pub(super) topics: Vec<TopicUse>,
    pub(super) clients: Vec<(Process, Client)>,
}

impl Needs {
    pub(super) fn of(config: &Config, processes: &[Process]) -> Self {
        let mut needs = Self { topics: Vec::new(), clients: Vec::new() };
        for process in Process::ALL.iter().filter(|process| processes.contains(process)) {
            let (read, written) = topics(config, *process);
            let (kafka, group_option) = group(config, *process);
            let follows = read.first().map_or_else(String::new, |(_, name)| (*name).to_owned());
            let writes = written.iter().map(|(_, name)| (*name).to_owned()).collect();
            let joins = *process != Process::Board;
            needs.clients.push((*process, Client { kafka, group_option, joins, follows, writes }));
            read.into_iter().for_each(|topic| needs.add(topic, Access::Read));
            written.into_iter().for_each(|topic| needs.add(topic, Access::Write));
        }
        needs
    }

    fn add(&mut self, (option, name): (&'static str, &str), access: Access) {
        match self.topics.iter_mut().find(|topic| topic.option == option) {
            Some(topic) => topic.access = topic.access.and(access),
            None => self.topics.push(TopicUse { option, name: name.to_owned(), access }),
        }
    }

    pub(super) fn has(&self, process: Process) -> bool {
        self.clients.iter().any(|(other, _)| *other == process)
    }

    /// Where a topic stands, which an option names.
    pub(super) fn position(&self, option: &str) -> Option<usize> {
        self.topics.iter().position(|topic| topic.option == option)
    }
}

type Named<'a> = (&'static str, &'a str);

/// What a process reads, that which it follows first, and what it writes to.
pub(super) fn topics(config: &Config, process: Process) -> (Vec<Named<'_>>, Vec<Named<'_>>) {
    let frames = ("kafka.frames_topic", config.kafka.frames_topic.as_str());
    let grades = ("kafka.grades_topic", config.kafka.grades_topic.as_str());
    let letters = ("kafka.dead_letters_topic", config.kafka.dead_letters_topic.as_str());
    let summaries = ("summaries.topic", config.summaries.topic.as_str());
    let reviews = ("reviews.topic", config.reviews.topic.as_str());
    let bundles = (!config.emr.topic.is_empty()).then_some(("emr.topic", config.emr.topic.as_str()));
    match process {
        Process::Serve => (vec![frames], vec![grades, letters]),
        Process::Summarize => (vec![grades, summaries, reviews], vec![summaries, letters]),
        Process::Emr => (vec![summaries], std::iter::once(letters).chain(bundles).collect()),
        Process::Board => (vec![frames, grades, summaries, letters], vec![reviews]),
    }
}

/// The group of a process and the option that names it, and whether it writes in transactions.
fn group(config: &Config, process: Process) -> (KafkaSettings, &'static str) {
    let kafka = config.kafka.clone();
    let own = |group_id, delivery| KafkaSettings {
        group_id,
        delivery,
        start_from: StartFrom::Earliest,
        ..kafka.clone()
    };
    match process {
        Process::Serve => (kafka, "kafka.group_id"),
        Process::Summarize => {
            (own(config.summaries.group(&kafka.group_id), Delivery::ExactlyOnce), "summaries.group_id")
        }
        Process::Emr => (own(config.emr.group(&kafka.group_id), Delivery::AtLeastOnce), "emr.group_id"),
        Process::Board => (own(kafka.group_id.clone(), Delivery::AtLeastOnce), "kafka.group_id"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config(set: &[&str]) -> Config {
        let set = set.iter().map(|it| (*it).to_owned()).collect();
        Config::load(&Layers { set, ..Layers::default() }, []).unwrap()
    }

    fn said(needs: &Needs) -> Vec<(&str, Access)> {
        needs.topics.iter().map(|it| (it.option, it.access)).collect()
    }

    #[test]
    fn a_topic_that_several_need_is_looked_at_once_with_everything_that_is_done_with_it() {
        let needs = Needs::of(&config(&["emr.topic=bundles"]), Process::ALL);
        assert_eq!(
            said(&needs),
            [
                ("kafka.frames_topic", Access::Read),
                ("kafka.grades_topic", Access::ReadAndWrite),
                ("kafka.dead_letters_topic", Access::ReadAndWrite),
                ("summaries.topic", Access::ReadAndWrite),
                ("reviews.topic", Access::ReadAndWrite),
                ("emr.topic", Access::Write),
            ]
        );
        let groups: Vec<_> = needs.clients.iter().map(|(_, it)| it.kafka.group_id.as_str()).collect();
        assert_eq!(groups, ["memebg", "memebg-summaries", "memebg-emr", "memebg"]);
    }

    #[test]
    fn without_a_topic_of_bundles_none_is_looked_for() {
        let needs = Needs::of(&config(&[]), &[Process::Emr]);
        assert_eq!(
            said(&needs),
            [("summaries.topic", Access::Read), ("kafka.dead_letters_topic", Access::Write)]
        );
    }
}

//! What is asked of a cluster, and what it may answer.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use crate::kafka::refusal::{self, Access};
use crate::kafka::{Error, KafkaSettings};

/// A topic, and what is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicUse {
    /// Option that names it.
    pub option: &'static str,
    /// Its name.
    pub name: String,
    /// What is done with it.
    pub access: Access,
}

impl TopicUse {
    /// Why it cannot be used.
    pub(super) fn refused(&self, code: RDKafkaErrorCode) -> Reason {
        let cause = refusal::of_use(code, &self.name, self.option, self.access);
        Reason::from_refusal(&cause.unwrap_or_else(|| format!("{code}: look at the brokers' logs")))
    }
}

/// A process: its group, and what it writes with.
#[derive(Debug, Clone)]
pub struct Client {
    /// Cluster, group and `delivery` as the process has them.
    pub kafka: KafkaSettings,
    /// Option that names the group.
    pub group_option: &'static str,
    /// Whether it joins the group. Otherwise it only asks how far that is.
    pub joins: bool,
    /// Topic that the group reads.
    pub follows: String,
    /// Topics that it writes to.
    pub writes: Vec<String>,
}

/// Why something is not so, or not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: String,
}

impl Reason {
    pub(super) fn new(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { found: found.into(), advice: advice.into() }
    }

    /// From a text that says what is wrong, a colon, and what to do.
    pub(super) fn from_refusal(text: &str) -> Self {
        let (found, advice) = text.split_once(": ").unwrap_or((text, "ask whoever runs the cluster"));
        Self::new(found, advice)
    }

    pub(super) fn no_answer(what: &str, error: impl std::fmt::Display) -> Self {
        Self::new(
            format!("{what}: {error}"),
            "try again with a larger --timeout-seconds; if it stays so, look at the brokers' logs",
        )
    }
}

/// Why nothing can be asked.
#[derive(Debug)]
pub enum NotConnected {
    /// The options cannot be used.
    Settings(Error),
    /// A broker answers and does not let us in.
    Refused(Reason),
    /// No broker answers.
    Unreachable(Reason),
}

/// How a topic is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Partitions.
    pub partitions: usize,
    /// Copies of the partition that has the fewest.
    pub replicas: usize,
    /// Partitions that nobody serves.
    pub leaderless: usize,
    /// Partitions of which a copy is behind.
    pub under_replicated: usize,
}

/// What a topic allows, and what becomes of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch that the topic takes.
    pub max_message_bytes: u64,
    /// Copies that must have a record before it is confirmed.
    pub min_insync_replicas: usize,
    /// Whether only the newest record of a key is sure to stay.
    pub compacts: bool,
    /// Whether records are deleted by age or size, as the next two say.
    pub deletes: bool,
    /// `retention.ms`; -1: whatever their age.
    pub retention_ms: i64,
    /// `retention.bytes` of a partition; -1: whatever their size.
    pub retention_bytes: i64,
}

/// What is known of one topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How it is laid out, or why it cannot be seen.
    pub layout: Result<Layout, Reason>,
    /// What it allows, or why that is not known.
    pub limits: Result<Limits, Reason>,
    /// How many partitions were read from, or why none can be; `None` where it is not read, or not seen.
    pub read: Option<Result<usize, Reason>>,
}

/// How far the group has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Messages that lie behind what is committed, all partitions together.
    pub lag: i64,
    /// Messages that were deleted before they were read: what is committed lies before the oldest.
    pub lost: i64,
    /// Partitions with a committed offset.
    pub committed_partitions: usize,
}

/// What a cluster says of one process.
#[derive(Debug)]
pub struct ClientFindings {
    /// How far the group has come, or why that cannot be seen.
    pub progress: Result<Progress, Reason>,
    /// Whether the group may be joined and committed to; `None` where it is not to be.
    pub group: Option<Result<(), Reason>>,
    /// Whether the brokers give the id that a producer of this `kafka.delivery` starts with.
    pub producer: Result<(), Reason>,
}

/// What a cluster says of itself and of what its clients may do.
#[derive(Debug)]
pub struct Inspection {
    /// Its id, where the brokers tell one.
    pub cluster_id: Option<String>,
    /// Brokers that are up.
    pub brokers: usize,
    /// As they were asked for.
    pub topics: Vec<Topic>,
    /// As they were asked for.
    pub clients: Vec<ClientFindings>,
}

/// Time that is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn within(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// librdkafka takes 0 for "at once", which would tell nothing.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
    }

    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

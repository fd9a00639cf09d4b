//! What a cluster holds and grants, for `memebg doctor`: asked without joining the group and without
//! writing to a topic, so that it may be asked at any time beside a service that runs.

mod ask;
mod rights;

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::{Error, KafkaSettings, refusal};
use crate::pipeline::message::MessageView;
use ask::Heard;

/// Longest wait for any broker to answer at all. One that runs answers within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt waits; in between it is looked at why there is no answer yet.
const TURN: Duration = Duration::from_secs(1);

/// Why something is not so, or not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: String,
}

impl Reason {
    fn new(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { found: found.into(), advice: advice.into() }
    }

    /// From a text that says what is wrong, a colon, and what to do.
    fn from_refusal(text: &str) -> Self {
        let (found, advice) = text.split_once(": ").unwrap_or((text, "ask whoever runs the cluster"));
        Self::new(found, advice)
    }

    fn no_answer(what: &str, error: impl std::fmt::Display) -> Self {
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

/// What a topic allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch that the topic takes.
    pub max_message_bytes: u64,
    /// Copies that must have a record before it is confirmed.
    pub min_insync_replicas: usize,
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
}

/// How far the group has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Frames that lie behind what is committed, all partitions together.
    pub lag: i64,
    /// Frames that were deleted before they were read: what is committed lies before the oldest frame.
    pub lost: i64,
    /// Partitions with a committed offset.
    pub committed_partitions: usize,
}

/// What a cluster says of itself and of what this client may do.
#[derive(Debug)]
pub struct Inspection {
    /// Its id, where the brokers tell one.
    pub cluster_id: Option<String>,
    /// Brokers that are up.
    pub brokers: usize,
    /// The topic of frame events.
    pub frames: Topic,
    /// The topic of grade events.
    pub grades: Topic,
    /// The topic of dead letters.
    pub dead_letters: Topic,
    /// How many partitions of the frames topic were read from, or why none can be.
    pub read: Result<usize, Reason>,
    /// How far the group has come, or why that cannot be seen.
    pub progress: Result<Progress, Reason>,
    /// Whether the group may be joined and committed to.
    pub group: Result<(), Reason>,
    /// Whether the brokers give the id that a producer of this `kafka.delivery` starts with.
    pub producer: Result<(), Reason>,
}

/// Time that is left.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn within(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// librdkafka takes 0 for "at once", which would tell nothing.
    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

/// Asks the cluster of `settings`, and shows the newest message of every partition of the frames topic to
/// `each`. Blocks for about `timeout` at most. Must be called within a tokio runtime, on a thread that may
/// block.
///
/// # Errors
/// When there is nobody to ask; what one question fails with is in the inspection.
pub fn inspect(
    settings: &KafkaSettings,
    timeout: Duration,
    each: &mut dyn FnMut(&MessageView<'_>),
) -> Result<Inspection, NotConnected> {
    let deadline = Deadline::within(timeout);
    let observer = ask::observer(settings).map_err(NotConnected::Settings)?;
    let brokers = connect(settings, &observer, timeout)?;
    // What has nothing to do with the rest may take all the time there is.
    let runtime = tokio::runtime::Handle::current();
    Ok(thread::scope(|scope| {
        let producer = scope.spawn(|| rights::producer(settings, deadline));
        let limits = scope.spawn(|| ask::limits(settings, &runtime, deadline));
        let producer = || producer.join().unwrap_or_else(|panic| resume_unwind(panic));
        let limits = || limits.join().unwrap_or_else(|panic| resume_unwind(panic));
        look(settings, observer, brokers, deadline, each, (producer, limits))
    }))
}

/// One more topic that events are written to, and nothing of what it allows. Blocks for about `timeout` at most.
///
/// # Errors
/// When the settings are refused.
pub fn written_topic(settings: &KafkaSettings, name: &str, timeout: Duration) -> Result<Topic, Error> {
    let (observer, deadline) = (ask::observer(settings)?, Deadline::within(timeout));
    let layout = layout(&observer, name, deadline, &|code| said(code, refusal::of_topic(code, name)));
    let limits = Err(Reason::new("not asked", "see the topic's configuration"));
    Ok(Topic { name: name.to_owned(), layout, limits })
}

fn look(
    settings: &KafkaSettings,
    observer: BaseConsumer<Heard>,
    brokers: usize,
    deadline: Deadline,
    each: &mut dyn FnMut(&MessageView<'_>),
    (producer, limits): (impl FnOnce() -> Result<(), Reason>, impl FnOnce() -> [Result<Limits, Reason>; 3]),
) -> Inspection {
    let KafkaSettings { frames_topic, grades_topic, dead_letters_topic, .. } = settings;
    let of_frames = |code| said(code, refusal::of_consumer(code, frames_topic, &settings.group_id));
    let frames = layout(&observer, frames_topic, deadline, &of_frames);
    let written =
        |name: &str| layout(&observer, name, deadline, &|code| said(code, refusal::of_topic(code, name)));
    let (grades, dead_letters) = (written(grades_topic), written(dead_letters_topic));
    let unseen = || Reason::new("the frames topic cannot be seen", "see kafka.frames_topic");
    let partitions = frames.as_ref().map_or(0, |layout| layout.partitions);
    let (read, progress) = if partitions == 0 {
        (Err(unseen()), Err(unseen()))
    } else {
        let extents = ask::extents(settings, &observer, partitions, deadline);
        match extents {
            Err(reason) => (Err(reason.clone()), Err(reason)),
            Ok(extents) => (
                ask::newest(settings, &observer, &extents, deadline, each),
                ask::progress(settings, &observer, &extents, deadline),
            ),
        }
    };
    let cluster_id = observer.client().fetch_cluster_id(deadline.left());
    let group = rights::group(settings, observer, deadline);
    let [of_frames, of_grades, of_letters] = limits();
    let topic = |name: &str, layout, limits| Topic { name: name.to_owned(), layout, limits };
    Inspection {
        cluster_id,
        brokers,
        frames: topic(frames_topic, frames, of_frames),
        grades: topic(grades_topic, grades, of_grades),
        dead_letters: topic(dead_letters_topic, dead_letters, of_letters),
        read,
        progress,
        group,
        producer: producer(),
    }
}

fn said(code: RDKafkaErrorCode, cause: Option<String>) -> String {
    cause.unwrap_or_else(|| format!("{code}: look at the brokers' logs"))
}

/// Waits until a broker answers; returns how many there are.
fn connect(
    settings: &KafkaSettings,
    observer: &BaseConsumer<Heard>,
    timeout: Duration,
) -> Result<usize, NotConnected> {
    let deadline = Deadline::within(timeout.min(CONNECT_TIMEOUT));
    let began = Instant::now();
    loop {
        // What is not there is not created: the observer does not allow it.
        let answer = observer.fetch_metadata(Some(settings.frames_topic.as_str()), deadline.left().min(TURN));
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

fn layout(
    observer: &BaseConsumer<Heard>,
    name: &str,
    deadline: Deadline,
    refused: &dyn Fn(RDKafkaErrorCode) -> String,
) -> Result<Layout, Reason> {
    let metadata = observer
        .fetch_metadata(Some(name), deadline.left())
        .map_err(|error| Reason::no_answer(&format!("topic {name} cannot be looked up"), error))?;
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    let error = found.map_or(Some(RDKafkaErrorCode::UnknownTopic), |it| it.error().map(Into::into));
    match (found, error) {
        (Some(topic), None) => Ok(layout_of(topic)),
        (_, error) => Err(Reason::from_refusal(&refused(error.unwrap_or(RDKafkaErrorCode::UnknownTopic)))),
    }
}

fn layout_of(topic: &MetadataTopic) -> Layout {
    let partitions = topic.partitions();
    Layout {
        partitions: partitions.len(),
        replicas: partitions.iter().map(|it| it.replicas().len()).min().unwrap_or(0),
        leaderless: partitions.iter().filter(|it| it.leader() < 0).count(),
        under_replicated: partitions.iter().filter(|it| it.isr().len() < it.replicas().len()).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_says_is_told_from_what_to_do() {
        let code = RDKafkaErrorCode::GroupAuthorizationFailed;
        let reason = Reason::from_refusal(&refusal::of_consumer(code, "frames", "g").unwrap());
        assert_eq!(reason.found, "not allowed to be in group g (kafka.group_id)");
        assert_eq!(reason.advice, "grant READ on that group");
        for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::UnknownTopic] {
            let texts = [refusal::of_consumer(code, "frames", "g"), refusal::of_topic(code, "grades")];
            for text in texts.map(Option::unwrap) {
                assert!(Reason::from_refusal(&text).advice.contains("DESCRIBE on it"), "{text}");
            }
        }
        for code in [RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SSL] {
            let text = refusal::of_connection(code).unwrap();
            assert!(Reason::from_refusal(text).advice.starts_with("check "), "{text}");
        }
    }
}

//! How topics are laid out.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::ask::Heard;
use super::found::{Deadline, Layout, Reason, TopicUse};

/// How a topic is laid out, or why it cannot be seen.
pub(super) fn layout(
    observer: &BaseConsumer<Heard>,
    topic: &TopicUse,
    deadline: Deadline,
) -> Result<Layout, Reason> {
    let name = topic.name.as_str();
    let metadata = observer
        .fetch_metadata(Some(name), deadline.left())
        .map_err(|error| Reason::no_answer(&format!("topic {name} cannot be looked up"), error))?;
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    let error = found.map_or(Some(RDKafkaErrorCode::UnknownTopic), |it| it.error().map(Into::into));
    match (found, error) {
        (Some(found), None) => Ok(layout_of(found)),
        (_, error) => Err(topic.refused(error.unwrap_or(RDKafkaErrorCode::UnknownTopic))),
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

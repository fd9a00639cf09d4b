//! Reads what the service has published, without joining a group: for the live view of the demo and
//! for tests.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::KafkaSettings;
use crate::domain::GradeEvent;

const POLL: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls `each` for every grade event of the grades topic, from its beginning on, until `stop` is
/// cancelled. Blocks.
///
/// # Errors
/// When the topic cannot be read or holds something that is not a grade event.
pub fn grades(
    settings: &KafkaSettings,
    stop: &CancellationToken,
    mut each: impl FnMut(GradeEvent),
) -> anyhow::Result<()> {
    let topic = settings.grades_topic.as_str();
    let consumer = settings.observer()?;
    let metadata = consumer
        .fetch_metadata(Some(topic), Timeout::After(METADATA_TIMEOUT))
        .with_context(|| format!("topic {topic} cannot be looked up"))?;
    let mut from_the_beginning = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        from_the_beginning.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&from_the_beginning)?;
    while !stop.is_cancelled() {
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let value = message.payload().unwrap_or_default();
                each(serde_json::from_slice(value).context("this is not a grade event")?);
            }
            Some(Err(error)) => tracing::warn!(topic, %error, "cannot read grades; trying again"),
        }
    }
    Ok(())
}

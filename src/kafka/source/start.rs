//! Where a partition starts: at what the group has committed, and nowhere else.
//!
//! librdkafka (2.12) looks up the committed offset of a partition that it is assigned. If a transaction
//! of its former owner is still open and the assignment changes meanwhile, it takes "not known yet" for
//! "there is none" and starts where `auto.offset.reset` says: what was graded is graded again, or, with
//! `latest`, what lies there is never read. So the first message of every partition is checked.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::Error;
use crate::pipeline::message::Position;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Partitions whose first message was where it should be.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Started(Mutex<BTreeSet<i32>>);

impl Started {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Their next message is a first one.
    pub(in crate::kafka) fn forget(&self, partitions: &[i32]) {
        self.lock().retain(|partition| !partitions.contains(partition));
    }

    /// Whether a message may be taken. Otherwise the consumer was sent to where it should have started, or,
    /// when that cannot be told, back to this message.
    ///
    /// # Errors
    /// When it cannot be sent there: the message would be lost.
    pub(in crate::kafka) fn admits<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        topic: &str,
        Position { partition, offset }: Position,
    ) -> Result<bool, Error> {
        if self.lock().contains(&partition) {
            return Ok(true);
        }
        let start = match committed(consumer, topic, partition) {
            Ok(committed) => {
                // After this the next message is the right one, even where offsets are missing.
                self.lock().insert(partition);
                committed.filter(|committed| *committed != offset)
            }
            Err(error) => {
                tracing::warn!(%error, partition, offset, "cannot tell yet where a partition starts");
                Some(offset)
            }
        };
        let Some(start) = start else { return Ok(true) };
        tracing::warn!(partition, offset, start, "partition does not start where it should; going there");
        consumer
            .seek(topic, partition, Offset::Offset(start), TIMEOUT)
            .map_err(|source| Error::Client { what: "cannot go to where a partition starts", source })?;
        Ok(false)
    }
}

/// The offset that the group has committed, once no transaction is about to change it.
pub(in crate::kafka) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> KafkaResult<Option<i64>> {
    let mut asked = TopicPartitionList::with_capacity(1);
    asked.add_partition(topic, partition);
    let found = consumer.committed_offsets(asked, TIMEOUT)?;
    let found = found.find_partition(topic, partition);
    found.map_or(Ok(None), |found| {
        found.error()?;
        Ok(match found.offset() {
            Offset::Offset(next) => Some(next),
            _ => None,
        })
    })
}

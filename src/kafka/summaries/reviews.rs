//! The reviews of the partitions whose grades this process has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::Run;
use crate::kafka::source::view;
use crate::kafka::{Error, KafkaSettings, LogContext, refusal};

/// Most reviews between two looks at the grades.
const MAX_PER_TURN: usize = 100;

/// A consumer of the reviews topic that is in no group.
pub(super) struct ReviewTail {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    /// What is read, by partition, with the assignment of the grades that it follows.
    follows: RefCell<BTreeMap<i32, u64>>,
}

impl ReviewTail {
    pub(super) fn new(kafka: &KafkaSettings, topic: &str) -> Result<Self, Error> {
        let mut client = kafka.consumer()?;
        client.set("statistics.interval.ms", "0");
        let consumer = BaseConsumer::from_config_and_context(&client, LogContext::default())
            .map_err(|error| Error::create("consumer of reviews", error))?;
        Ok(Self { consumer, topic: topic.to_owned(), follows: RefCell::default() })
    }

    /// Reads these partitions, each from its next review on, unless it does already.
    fn follow(&self, wanted: BTreeMap<i32, (u64, Option<i64>)>) -> Result<(), Error> {
        let assignments: BTreeMap<i32, u64> = wanted.iter().map(|(number, it)| (*number, it.0)).collect();
        if *self.follows.borrow() == assignments {
            return Ok(());
        }
        let failed = |source| Error::Client { what: "cannot go to the reviews", source };
        let mut list = TopicPartitionList::with_capacity(wanted.len());
        for (partition, (_, next)) in wanted {
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&self.topic, partition, offset).map_err(failed)?;
        }
        self.consumer.assign(&list).map_err(failed)?;
        *self.follows.borrow_mut() = assignments;
        Ok(())
    }
}

impl Run {
    /// Takes in the reviews that have come.
    pub(super) fn take_reviews(&self) -> anyhow::Result<()> {
        let context = self.context();
        for _ in 0..MAX_PER_TURN {
            // Every time: bringing back an embryo may take partitions away.
            let wanted = {
                let state = context.lock();
                let restored = state.assigned.iter().filter(|(_, it)| it.restored);
                restored.map(|(number, it)| (*number, (it.assignment, it.next_review))).collect()
            };
            self.reviews.follow(wanted)?;
            match self.reviews.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => self.take_review(&view(&message))?,
                Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Client { what: "consumer of reviews failed for good", source }.into());
                }
                // The context has logged it; librdkafka goes on trying, which does not help where it may not read.
                Some(Err(error)) => {
                    let code = error.rdkafka_error_code();
                    let code = code.filter(|it| *it == RDKafkaErrorCode::TopicAuthorizationFailed);
                    let refused = |it| refusal::of_reader(it, &self.reviews.topic, "reviews.topic");
                    if let Some(cause) = code.and_then(refused) {
                        return Err(Error::Settings(cause).into());
                    }
                    break;
                }
                None => break,
            }
        }
        Ok(())
    }
}

//! The transaction: summaries, dead letters and the offsets of what they hold, all or nothing.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::context::{State, SummariesContext};
use crate::domain::{EmbryoSummary, Head, Rejection};
use crate::kafka::Error;
use crate::kafka::record::{self, LetterSize, Record};
use crate::kafka::sink::TOO_LARGE;
use crate::kafka::transaction::{Failure, Unsent};
use crate::pipeline::message::{MessageView, RawMessage};

/// After how long without an answer to a transaction nobody seems to be there.
const SILENCE: Duration = Duration::from_secs(3);

/// An event that cannot be read, on its way to the dead-letter topic.
pub(super) struct Letter {
    raw: RawMessage,
    rejection: Rejection,
    size: LetterSize,
    /// `grade` or `review`.
    event: &'static str,
}

impl State {
    /// An event of an assigned partition becomes a dead letter with the next transaction.
    pub(super) fn refuse(&mut self, message: &MessageView<'_>, rejection: Rejection, event: &'static str) {
        tracing::warn!(
            topic = message.topic, partition = message.position.partition, offset = message.position.offset,
            %rejection, "a {event} becomes a dead letter"
        );
        self.letters_bytes += message.size_bytes();
        self.letters.push(Letter { raw: message.to_raw(), rejection, size: LetterSize::Whole, event });
    }

    /// What may be committed: of reviews not beyond one that waits for its embryo.
    fn offsets(&self, grades_topic: &str, reviews_topic: &str) -> KafkaResult<[TopicPartitionList; 2]> {
        let mut grades = TopicPartitionList::new();
        let mut all = TopicPartitionList::new();
        for (partition, assigned) in self.assigned.iter().filter(|(_, it)| it.restored) {
            if let Some(next) = assigned.next_grade {
                for list in [&mut grades, &mut all] {
                    list.add_partition_offset(grades_topic, *partition, Offset::Offset(next))?;
                }
            }
            if let Some(next) = assigned.next_review {
                let next = self.keeper.waits_from(*partition).unwrap_or(next);
                all.add_partition_offset(reviews_topic, *partition, Offset::Offset(next))?;
            }
        }
        Ok([grades, all])
    }
}

impl SummariesContext {
    /// Publishes every summary that says something new and commits what was read, all or nothing, and gives up after
    /// `within`. Who is asked to stop has `kafka.drain_timeout_ms`.
    pub(super) fn transact(&self, consumer: &BaseConsumer<Self>, within: Option<Duration>) {
        let mut state = self.lock();
        // In this order: of a member that it has expelled the group knows nothing, and what it knows nothing of it
        // does not fence.
        let group = consumer.group_metadata();
        let Some(group) = group.filter(|_| !consumer.assignment_lost()) else { return };
        let State { keeper, assigned, .. } = &*state;
        let due = keeper.due(|partition| {
            // Without an offset there would be no fence.
            let begun = |it: &super::context::Assigned| it.next_grade.is_some() || it.next_review.is_some();
            assigned.get(&partition).is_some_and(|it| it.restored && begun(it))
        });
        if due.is_empty() && !state.moved {
            return;
        }
        let began = Instant::now();
        let go_on = || {
            self.health.polled();
            if began.elapsed() > SILENCE {
                self.health.connected(false);
            }
            let in_time = within.is_none_or(|within| began.elapsed() < within);
            let stopped = self.stop.is_cancelled().then(|| self.stopped_at.get_or_init(Instant::now));
            let unstopped =
                stopped.is_none_or(|at| self.health.is_connected() && at.elapsed() < self.drain_timeout);
            in_time && unstopped
        };
        let (records, offsets) = match self.gathered(&state, &due) {
            Ok(gathered) => gathered,
            Err(error) => {
                state.failed = Some(error);
                return;
            }
        };
        let [grades, all] = &offsets;
        let result = state.transactor.commit_records(&records, all, &group, &go_on);
        drop(records);
        match result {
            Ok(()) => {
                self.committed(&mut state, &due);
                // librdkafka works out the lag from what is stored.
                if let Err(error) = consumer.store_offsets(grades) {
                    tracing::debug!(%error, "lag is not brought up to date");
                }
            }
            Err(unsent) => self.not_committed(&mut state, unsent, due.len(), began),
        }
    }

    fn gathered<'a>(
        &'a self,
        state: &'a State,
        due: &'a [(i32, EmbryoSummary)],
    ) -> Result<(Vec<Record<'a>>, [TopicPartitionList; 2]), Error> {
        let summaries =
            due.iter().map(|(partition, it)| record::summary(&self.summaries_topic, *partition, it));
        let mut records: Vec<_> = summaries
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Event(format!("a summary cannot be written: {error}")))?;
        let letters = state.letters.iter();
        records.extend(letters.map(|it| self.topics.letter(&it.raw, &it.rejection, it.size)));
        let offsets = state
            .offsets(&self.grades_topic, &self.reviews_topic)
            .map_err(|source| Error::Client { what: "takes no offsets", source })?;
        Ok((records, offsets))
    }

    fn committed(&self, state: &mut State, due: &[(i32, EmbryoSummary)]) {
        state.failing_since = None;
        state.moved = false;
        state.letters_bytes = 0;
        for letter in state.letters.drain(..) {
            self.metrics.summaries_dead_lettered(letter.event, letter.rejection.code);
        }
        state.keeper.published(due);
        self.health.connected(true);
        for (_, summary) in due {
            self.metrics.summary_published(summary.status);
        }
        self.show(state);
        tracing::debug!(summaries = due.len(), "transaction committed");
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self, state: &State) {
        self.metrics.set_summaries_in_memory(state.keeper.embryos());
        self.metrics.set_reviews_waiting(state.keeper.waiting());
        for head in Head::ALL {
            self.metrics.set_review_kappa(*head, state.keeper.kappa(*head));
        }
    }

    fn not_committed(&self, state: &mut State, unsent: Unsent, summaries: usize, began: Instant) {
        self.metrics.commit_failed();
        let Unsent { failure, too_large } = unsent;
        let cut_down = !too_large.is_empty();
        for index in too_large {
            // A letter comes with less of the original; nothing can be left out of a summary.
            let letter = index.checked_sub(summaries).and_then(|index| state.letters.get_mut(index));
            let Some((smaller, letter)) = letter.and_then(|letter| Some((letter.size.smaller()?, letter)))
            else {
                let of = if index < summaries { "a summary" } else { "a dead letter without any content" };
                state.failed = Some(Error::Transaction(format!("{of} is {TOO_LARGE}"), None));
                return;
            };
            tracing::warn!(size = ?smaller, "dead letter does not fit and is cut down");
            letter.size = smaller;
        }
        let since = *state.failing_since.get_or_insert(began);
        match failure {
            Failure::GivenUp if self.stop.is_cancelled() => {
                tracing::warn!("the last transaction is given up; its events are read again");
            }
            Failure::GivenUp => {
                let late = "no broker confirmed it within kafka.drain_timeout_ms, when partitions had to be given back";
                state.failed = Some(Error::Transaction(late.into(), None));
            }
            Failure::Fatal(source) => {
                state.failed = Some(Error::Transaction("failed for good".into(), Some(source)));
            }
            Failure::Aborted(reason) if cut_down || since.elapsed() < state.transactor.patience => {
                tracing::warn!(reason, "transaction was aborted; trying again");
            }
            Failure::Aborted(reason) | Failure::Refused(reason) => {
                state.failed = Some(Error::Transaction(reason, None));
            }
        }
    }

    /// Gives up partitions and whatever was read of them.
    pub(super) fn forget(&self, partitions: &[i32]) {
        let mut state = self.lock();
        for partition in partitions {
            state.keeper.revoke(*partition);
            state.assigned.remove(partition);
        }
        state.letters.retain(|letter| !partitions.contains(&letter.raw.position.partition));
        state.letters_bytes = state.letters.iter().map(|letter| letter.raw.view().size_bytes()).sum();
        self.show(&state);
    }
}

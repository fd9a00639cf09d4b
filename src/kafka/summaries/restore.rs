//! Reading state back from the summaries topic, while the group is told that this member lives.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::Run;
use crate::domain::EmbryoSummary;
use crate::kafka::Error;
use crate::kafka::reader::{Extent, Stopped};
use crate::kafka::source::start::committed;
use crate::kafka::source::view;
use crate::pipeline::message::MessageView;

/// How long the group is left alone while something else is read.
const BREATH: Duration = Duration::from_secs(1);
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

impl Run {
    /// Reads the state of one partition back, if one lacks it.
    pub(super) fn restore_one(&self) -> anyhow::Result<()> {
        let context = self.context();
        let next = {
            let state = context.lock();
            let lacking = state.assigned.iter().find(|(_, it)| !it.restored);
            lacking.map(|(partition, it)| (*partition, it.assignment))
        };
        let Some((partition, assignment)) = next else { return Ok(()) };
        match self.restore(partition, assignment) {
            // It has gone, or the whole process ends.
            Err(error) if error.is::<Stopped>() => {}
            result => result?,
        }
        self.let_go()
    }

    fn restore(&self, partition: i32, assignment: u64) -> anyhow::Result<()> {
        let context = self.context();
        let go_on = || self.breathe(partition, assignment);
        // First of all: this answers only once no transaction is about to move the offset, so the summaries that
        // belong to it are in the topic, or will never be.
        let next = |topic: &str| {
            loop {
                match committed(&self.consumer, topic, partition) {
                    Ok(next) => break Ok(next),
                    Err(error) => {
                        tracing::warn!(%error, topic, partition, "cannot tell yet where a partition starts");
                    }
                }
                if !go_on() {
                    break Err(Stopped);
                }
            }
        };
        let (next_grade, next_review) = (next(&context.grades_topic)?, next(&context.reviews_topic)?);
        context.lock().keeper.begin(partition);
        self.each_summary(partition, &go_on, |summary, offset| {
            Ok(context.lock().keeper.restore(partition, summary, offset).map_err(Error::Event)?)
        })?;
        let mut state = context.lock();
        let held = state.held(partition, assignment).ok_or(Stopped)?;
        (held.restored, held.next_grade, held.next_review) = (true, next_grade, next_review);
        tracing::info!(partition, embryos = state.keeper.embryos(), "state restored");
        context.metrics.summaries_restored();
        context.show(&state);
        drop(state);
        self.resume(&[partition])
    }

    /// Brings back a finished embryo of which something late has come. Returns whether the partition is still here.
    pub(super) fn recall(&self, partition: i32, assignment: u64, embryo_id: &str) -> anyhow::Result<bool> {
        let context = self.context();
        let go_on = || self.breathe(partition, assignment);
        let mut last = None;
        let mut look = |summary: &EmbryoSummary, _| {
            if summary.embryo_id == embryo_id {
                last = Some(summary.clone());
            }
            Ok(())
        };
        let place = context.lock().keeper.last_summary(partition, embryo_id);
        let read = match place {
            Some(offset) => self.scan(partition, offset..offset + 1, &go_on, &mut look),
            None => self.each_summary(partition, &go_on, &mut look),
        };
        match read {
            Err(error) if error.is::<Stopped>() => {
                self.let_go()?;
                return Ok(false);
            }
            read => read?,
        }
        let mut state = context.lock();
        let held = state.held(partition, assignment).is_some();
        if held {
            match &last {
                Some(summary) => state.keeper.recall(partition, summary).map_err(Error::Event)?,
                None => state.keeper.not_found(partition, embryo_id),
            }
        }
        drop(state);
        self.let_go()?;
        Ok(held)
    }

    fn each_summary(
        &self,
        partition: i32,
        go_on: &dyn Fn() -> bool,
        each: impl FnMut(&EmbryoSummary, i64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (committed, written) = &self.summaries;
        self.scan(partition, committed.settled_range(written, partition, go_on)?, go_on, each)
    }

    fn scan(
        &self,
        partition: i32,
        range: Range<i64>,
        go_on: &dyn Fn() -> bool,
        mut each: impl FnMut(&EmbryoSummary, i64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let topic = &self.context().summaries_topic;
        self.summaries.0.scan_while(&Extent::from([(partition, range)]), go_on, |message| {
            let Some(value) = message.value else { return Ok(()) };
            let offset = message.position.offset;
            let place = || format!("{topic}/{partition}/{offset} is not a summary");
            let summary: EmbryoSummary = serde_json::from_slice(value).with_context(place)?;
            each(&summary, offset).with_context(place)
        })
    }

    /// Polls the group now and then while something else is read, so that it does not expel this member. Nothing is to
    /// be delivered by that, so everything is paused. Returns whether the read still makes sense.
    fn breathe(&self, partition: i32, assignment: u64) -> bool {
        let context = self.context();
        context.health.polled();
        if self.polled_at.get().elapsed() >= BREATH {
            if let Err(error) = self.consumer.assignment().and_then(|all| self.consumer.pause(&all)) {
                tracing::error!(%error, "cannot pause");
            }
            self.held_up.set(true);
            if let Some(Ok(message)) = self.consumer.poll(Duration::ZERO)
                && let Err(error) = self.give_back(&view(&message))
            {
                context.lock().failed.get_or_insert(error);
            }
            self.polled_at.set(Instant::now());
        }
        let mut state = context.lock();
        !context.stop.is_cancelled() && state.failed.is_none() && state.held(partition, assignment).is_some()
    }

    /// Goes on with what [`Self::breathe`] has paused.
    fn let_go(&self) -> anyhow::Result<()> {
        if !self.held_up.replace(false) {
            return Ok(());
        }
        let state = self.context().lock();
        let restored = state.assigned.iter().filter(|(_, it)| it.restored);
        let restored: Vec<i32> = restored.map(|(partition, _)| *partition).collect();
        drop(state);
        self.resume(&restored)
    }

    fn resume(&self, partitions: &[i32]) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.context().grades_topic, *partition);
        }
        self.consumer.resume(&list).map_err(|source| Error::Client { what: "cannot resume", source }.into())
    }

    /// A message that cannot be taken now is read again.
    pub(super) fn give_back(&self, message: &MessageView<'_>) -> Result<(), Error> {
        let position = message.position;
        tracing::warn!(partition = position.partition, offset = position.offset, "a message comes too early");
        self.consumer
            .seek(message.topic, position.partition, Offset::Offset(position.offset), SEEK_TIMEOUT)
            .map_err(|source| Error::Client { what: "cannot go back to a message", source })
    }
}

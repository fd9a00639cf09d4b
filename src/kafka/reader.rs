//! Reads a topic up to its end of now, without joining a group and without keeping what it has read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::source::view;
use super::{Error, KafkaSettings, LogContext, refusal};
use crate::pipeline::message::{MessageView, Position, RawMessage};

/// How long one poll waits for a message; also how soon a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long a broker may hand over nothing, or a transaction stay open, before it is given up. Above the
/// minute after which brokers end a transaction that was left open.
const STALLED_AFTER: Duration = Duration::from_secs(90);
/// Most that is fetched ahead: whoever looks on beside a service must not need its memory.
const MAX_PREFETCH_BYTES: usize = 16 << 20;

/// From the first offset to the one behind the last, by partition.
pub type Extent = BTreeMap<i32, Range<i64>>;

/// Somebody asked to stop before the end was reached.
#[derive(Debug, thiserror::Error)]
#[error("stopped before the end")]
pub struct Stopped;

/// A reader of one topic. It sees only what is committed.
pub(super) struct Reader {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    /// What names it.
    option: &'static str,
    partitions: Vec<i32>,
}

impl Reader {
    /// Connects and looks up the partitions of a topic, which `option` names.
    ///
    /// # Errors
    /// When the settings are refused, no broker answers or there is no such topic.
    pub(super) fn open(settings: &KafkaSettings, topic: &str, option: &'static str) -> Result<Self, Error> {
        Self::with_isolation(settings, topic, option, "read_committed")
    }

    /// One that sees everything that was written.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub(super) fn open_uncommitted(
        settings: &KafkaSettings,
        topic: &str,
        option: &'static str,
    ) -> Result<Self, Error> {
        Self::with_isolation(settings, topic, option, "read_uncommitted")
    }

    fn with_isolation(
        settings: &KafkaSettings,
        topic: &str,
        option: &'static str,
        isolation: &str,
    ) -> Result<Self, Error> {
        let prefetch_kbytes = (settings.prefetch_bytes.min(MAX_PREFETCH_BYTES) / 1024).max(1);
        let mut client = settings.consumer()?;
        client
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", "0")
            // What retention takes away meanwhile is passed over.
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", prefetch_kbytes.to_string());
        let consumer: BaseConsumer<LogContext> =
            BaseConsumer::from_config_and_context(&client, LogContext::default())
                .map_err(|error| Error::create("reader", error))?;
        let metadata = consumer.fetch_metadata(Some(topic), LOOK_UP_TIMEOUT).map_err(no_answer)?;
        let found = metadata.topics().iter().find(|it| it.name() == topic);
        let partitions: Vec<i32> =
            found.into_iter().flat_map(|it| it.partitions()).map(|it| it.id()).collect();
        if partitions.is_empty() {
            let code = found.and_then(|it| it.error()).map_or(RDKafkaErrorCode::UnknownTopic, Into::into);
            let cause = refusal::of_reader(code, topic, option);
            return Err(Error::Settings(
                cause.unwrap_or_else(|| format!("topic {topic} ({option}) cannot be read: {code}")),
            ));
        }
        Ok(Self { consumer, topic: topic.to_owned(), option, partitions })
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Everything that lies there now.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(super) fn extent(&self) -> Result<Extent, Error> {
        let bounds = |partition: &i32| self.bounds(*partition).map(|bounds| (*partition, bounds));
        self.partitions.iter().map(bounds).collect()
    }

    /// The same, from the first record with this timestamp or a later one on. The broker looks that up.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(super) fn extent_since(&self, since_ms: i64) -> Result<Extent, Error> {
        let mut extent = self.extent()?;
        let mut asked = TopicPartitionList::new();
        for partition in extent.keys() {
            asked
                .add_partition_offset(&self.topic, *partition, Offset::Offset(since_ms.max(0)))
                .map_err(no_answer)?;
        }
        let found = self.consumer.offsets_for_times(asked, LOOK_UP_TIMEOUT).map_err(no_answer)?;
        for element in found.elements() {
            if let Some(range) = extent.get_mut(&element.partition()) {
                element.error().map_err(no_answer)?;
                range.start = match element.offset() {
                    Offset::Offset(first) => first.min(range.end),
                    // Nothing is that young.
                    _ => range.end,
                };
            }
        }
        Ok(extent)
    }

    /// Everything, once no transaction is open before its end: what is read up to there is all there is.
    ///
    /// # Errors
    /// When the broker does not answer or a transaction stays open.
    pub(super) fn settled_extent(
        &self,
        settings: &KafkaSettings,
        stop: &CancellationToken,
    ) -> anyhow::Result<Extent> {
        let written = Self::open_uncommitted(settings, &self.topic, self.option)?.extent()?;
        let started = Instant::now();
        loop {
            let settled = self.extent()?;
            let open = written.iter().find(|(partition, range)| {
                settled.get(*partition).is_none_or(|settled| settled.end < range.end)
            });
            let Some((partition, _)) = open else { return Ok(settled) };
            if stop.is_cancelled() {
                return Err(Stopped.into());
            }
            self.ensure_not_stalled(started, *partition)?;
            // Waits; nothing is assigned.
            drop(self.consumer.poll(POLL));
        }
    }

    /// Everything in one partition, once no transaction is open before the end that `written` sees. While that takes its
    /// time, `go_on` is asked whether to.
    ///
    /// # Errors
    /// When the broker does not answer or a transaction stays open; [`Stopped`] when `go_on` says so.
    pub(super) fn settled_range(
        &self,
        written: &Self,
        partition: i32,
        go_on: &dyn Fn() -> bool,
    ) -> anyhow::Result<Range<i64>> {
        let end = written.bounds(partition)?.end;
        let started = Instant::now();
        loop {
            let settled = self.bounds(partition)?;
            if settled.end >= end {
                return Ok(settled);
            }
            if !go_on() {
                return Err(Stopped.into());
            }
            self.ensure_not_stalled(started, partition)?;
            drop(self.consumer.poll(POLL));
        }
    }

    fn ensure_not_stalled(&self, started: Instant, partition: i32) -> anyhow::Result<()> {
        anyhow::ensure!(
            started.elapsed() < STALLED_AFTER,
            "a transaction is still open in partition {partition} of {}; try again when it has ended",
            self.topic
        );
        Ok(())
    }

    fn bounds(&self, partition: i32) -> Result<Range<i64>, Error> {
        let bounds = self.consumer.fetch_watermarks(&self.topic, partition, LOOK_UP_TIMEOUT);
        bounds.map(|(first, end)| first..end).map_err(no_answer)
    }

    /// Shows every record of `extent` to `each`, in the order of each partition. Nothing is kept. Blocks.
    ///
    /// # Errors
    /// [`Stopped`], what `each` returns, or a broker that hands over nothing any more.
    pub(super) fn scan(
        &self,
        extent: &Extent,
        stop: &CancellationToken,
        each: impl FnMut(&MessageView<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.scan_while(extent, &|| !stop.is_cancelled(), each)
    }

    /// The same for as long as `go_on`, which is asked all the time, says so.
    ///
    /// # Errors
    /// As [`Reader::scan`].
    pub(super) fn scan_while(
        &self,
        extent: &Extent,
        go_on: &dyn Fn() -> bool,
        mut each: impl FnMut(&MessageView<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut left: BTreeMap<i32, i64> = extent
            .iter()
            .filter(|(_, it)| !it.is_empty())
            .map(|(partition, it)| (*partition, it.end))
            .collect();
        let mut start = TopicPartitionList::new();
        for partition in left.keys() {
            start.add_partition_offset(&self.topic, *partition, Offset::Offset(extent[partition].start))?;
        }
        self.consumer.assign(&start).map_err(unreadable)?;
        // A partition that was paused by an earlier scan comes back paused.
        self.consumer.resume(&start).map_err(unreadable)?;
        let mut heard = Instant::now();
        let mut last_error = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        while !left.is_empty() {
            if !go_on() {
                return Err(Stopped.into());
            }
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(end) = left.get(&partition) else { continue };
                    if offset < *end {
                        each(&view(&message))?;
                    }
                    if offset + 1 >= *end {
                        left.remove(&partition);
                        self.pause(partition)?;
                    }
                }
                // The last offsets may be those of transaction markers, which are never handed over.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    left.remove(&partition);
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(unreadable(error).into());
                }
                // The context has logged it; librdkafka goes on trying, which does not help where it may not read.
                Some(Err(error)) => {
                    // A topic that is not known may be one that is on the move.
                    let code = error.rdkafka_error_code();
                    let code = code.filter(|it| *it == RDKafkaErrorCode::TopicAuthorizationFailed);
                    if let Some(cause) = code.and_then(|it| refusal::of_reader(it, &self.topic, self.option))
                    {
                        return Err(Error::Settings(cause).into());
                    }
                    last_error = error;
                }
                None => {}
            }
            if heard.elapsed() >= STALLED_AFTER {
                return Err(unreadable(last_error).into());
            }
        }
        self.consumer.unassign().map_err(unreadable)?;
        Ok(())
    }

    /// Asks for what comes behind the end, to learn whether the topic may be read. Blocks for 10 s at most.
    ///
    /// # Errors
    /// [`Error::Settings`] when it may not, [`Stopped`] without an answer.
    pub(super) fn read_nothing(&self) -> anyhow::Result<()> {
        let Some(partition) = self.partitions.first() else { return Ok(()) };
        let end = self.bounds(*partition)?.end;
        let started = Instant::now();
        let beyond = Extent::from([(*partition, end..end + 1)]);
        self.scan_while(&beyond, &|| started.elapsed() < LOOK_UP_TIMEOUT, |_| Ok(()))
    }

    /// Nothing more of this partition is wanted.
    fn pause(&self, partition: i32) -> Result<(), Error> {
        let mut done = TopicPartitionList::new();
        done.add_partition(&self.topic, partition);
        self.consumer.pause(&done).map_err(unreadable)
    }

    /// The record at a position, `None` where there is none (any more).
    ///
    /// # Errors
    /// As [`Reader::scan`].
    pub(super) fn at(
        &self,
        position: Position,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<RawMessage>> {
        let Position { partition, offset } = position;
        if !self.partitions.contains(&partition) || !self.bounds(partition)?.contains(&offset) {
            return Ok(None);
        }
        let mut found = None;
        self.scan(&Extent::from([(partition, offset..offset + 1)]), stop, |message| {
            found = Some(message.to_raw());
            Ok(())
        })?;
        Ok(found)
    }
}

fn no_answer(source: KafkaError) -> Error {
    Error::Client { what: "does not answer", source }
}

fn unreadable(source: KafkaError) -> Error {
    Error::Client { what: "does not hand over the records of a topic", source }
}

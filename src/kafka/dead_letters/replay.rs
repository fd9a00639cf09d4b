//! Sends refused frames back to the frames topic, each at most once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tokio_util::sync::CancellationToken;

use super::{DeadLetters, Extent, Filter, Letter, REPLAYED_FROM, Record, Stopped};
use crate::kafka::sink::with_original_headers;
use crate::kafka::{Error, KafkaSettings, LogContext, with_headers};
use crate::pipeline::message::{Position, RawMessage};

/// How long a transaction, and whatever it waits for, may take.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Most letters in one transaction; in bytes it is `kafka.max_send_bytes`.
const MAX_BATCH_LETTERS: usize = 500;

/// What is to be done beside the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayOptions {
    /// Send what has been replayed before, too.
    pub again: bool,
    /// Say what would be sent, and send nothing.
    pub dry_run: bool,
}

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The frame was sent and the broker has confirmed it, or would be in a dry run.
    Replayed,
    /// It cannot be, for this reason.
    NotReplayable(String),
}

/// What a replay has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Letters whose frame was sent, or would be.
    pub replayed: u64,
    /// Letters that were left alone because a marker says that they have been replayed.
    pub replayed_before: u64,
    /// Letters that cannot be replayed.
    pub not_replayable: u64,
}

/// Replays the letters that `filter` means, up to the end of the topic at the start: a frame that fails again
/// becomes a new letter, which is not replayed. `report` hears of each letter once its fate is certain. Blocks;
/// 16 bytes are kept of each letter, and of the frames those of one transaction.
///
/// # Errors
/// [`Stopped`], a broker that does not answer or confirm, or another replay that has begun since. What was
/// reported as replayed is done; anything else is as if it had not been tried.
pub fn replay(
    settings: &KafkaSettings,
    filter: &Filter,
    options: ReplayOptions,
    stop: &CancellationToken,
    report: impl FnMut(Position, &Fate),
) -> anyhow::Result<Tally> {
    let letters = DeadLetters::open(settings)?;
    // First of all: it ends the transactions of a replay that died, and that of one that still runs.
    let mailer = if options.dry_run { None } else { Some(Mailer::open(settings)?) };
    let (pending, replayed_before) = pending(&letters, settings, filter, options.again, stop)?;
    let tally = Tally { replayed_before, ..Tally::default() };
    let mut run = Replay { letters: &letters, settings, mailer, batch: Batch::default(), tally, report };
    for position in filter.positions.difference(&pending.seen) {
        run.settle(*position, &Fate::NotReplayable("there is no dead letter at this position".into()));
    }
    let end = letters.scan(&pending.extent(), stop, |record| match record {
        Record::Letter(letter) if pending.wanted.contains(&letter.message.position) => {
            run.take(&letter, stop)
        }
        _ => Ok(()),
    });
    // Whoever asks to stop gets what was begun finished.
    if end.as_ref().err().is_none_or(|error| error.is::<Stopped>()) {
        run.send()?;
    }
    end.map(|()| run.tally)
}

/// Positions of letters, found by a first pass.
#[derive(Default)]
struct Pending {
    /// To be replayed.
    wanted: BTreeSet<Position>,
    /// Of the listed ones, those where a letter lies.
    seen: BTreeSet<Position>,
}

impl Pending {
    fn extent(&self) -> Extent {
        let mut extent = Extent::new();
        for Position { partition, offset } in &self.wanted {
            extent.entry(*partition).or_insert(*offset..*offset).end = offset + 1;
        }
        extent
    }
}

/// The letters that are meant and have no marker, and how many have one.
fn pending(
    letters: &DeadLetters,
    settings: &KafkaSettings,
    filter: &Filter,
    again: bool,
    stop: &CancellationToken,
) -> anyhow::Result<(Pending, u64)> {
    // A marker must not be hidden behind a transaction of the service that is still open.
    let settled = letters.letters.settled_extent(settings, stop)?;
    let mut extent = letters.extent(filter)?;
    for (partition, range) in &mut extent {
        range.end = settled.get(partition).map_or(range.end, |settled| settled.end);
    }
    let (mut pending, mut replayed_before) = (Pending::default(), 0);
    letters.scan(&extent, stop, |record| {
        match record {
            Record::Letter(letter) if filter.matches(&letter) => {
                pending.wanted.insert(letter.message.position);
                if !filter.positions.is_empty() {
                    pending.seen.insert(letter.message.position);
                }
            }
            Record::Marker(of) if !again => replayed_before += u64::from(pending.wanted.remove(&of)),
            Record::Letter(_) | Record::Marker(_) => {}
        }
        Ok(())
    })?;
    Ok((pending, replayed_before))
}

/// A replay under way.
struct Replay<'a, R> {
    letters: &'a DeadLetters,
    settings: &'a KafkaSettings,
    mailer: Option<Mailer>,
    batch: Batch,
    tally: Tally,
    report: R,
}

/// What goes into one transaction: the frames, each with the position of its letter.
#[derive(Default)]
struct Batch {
    frames: Vec<(Position, RawMessage)>,
    bytes: usize,
}

impl<R: FnMut(Position, &Fate)> Replay<'_, R> {
    fn take(&mut self, letter: &Letter<'_>, stop: &CancellationToken) -> anyhow::Result<()> {
        let position = letter.message.position;
        let frame = match self.frame(letter, stop)? {
            Ok(frame) => frame,
            Err(why) => {
                self.settle(position, &Fate::NotReplayable(why));
                return Ok(());
            }
        };
        let bytes = frame.value.as_ref().map_or(0, Vec::len);
        if self.batch.frames.len() >= MAX_BATCH_LETTERS
            || self.batch.bytes + bytes > self.settings.max_send_bytes
        {
            self.send()?;
        }
        self.batch.bytes += bytes;
        self.batch.frames.push((position, frame));
        Ok(())
    }

    /// The message that was refused, or why it cannot be sent back.
    fn frame(
        &self,
        letter: &Letter<'_>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Result<RawMessage, String>> {
        let frames_topic = &self.settings.frames_topic;
        let refused = match letter.origin {
            None => Err("it does not say where it came from".to_owned()),
            Some(origin) if origin.topic != frames_topic => Err(format!(
                "it came from topic {:?}, and kafka.frames_topic is {frames_topic:?}",
                origin.topic
            )),
            Some(_) if letter.omitted_bytes.is_some() => return self.letters.original(letter, stop),
            Some(_) => Ok(letter.message.to_raw()),
        };
        Ok(refused)
    }

    /// Sends what has been gathered. A frame that the broker refuses keeps no other one back.
    fn send(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch).frames;
        let Some(mailer) = self.mailer.as_ref().filter(|_| !batch.is_empty()) else {
            batch.iter().for_each(|(position, _)| self.settle(*position, &Fate::Replayed));
            return Ok(());
        };
        let mut fates = Vec::with_capacity(batch.len());
        match mailer.send(&batch) {
            Ok(()) => fates.extend(batch.iter().map(|(position, _)| (*position, Fate::Replayed))),
            Err(Failure::Lost(error)) => return Err(error.into()),
            Err(Failure::Refused(_)) => {
                for one in &batch {
                    let fate = match mailer.send(std::slice::from_ref(one)) {
                        Ok(()) => Fate::Replayed,
                        Err(Failure::Refused(why)) => Fate::NotReplayable(why),
                        Err(Failure::Lost(error)) => {
                            fates.iter().for_each(|(position, fate)| self.settle(*position, fate));
                            return Err(error.into());
                        }
                    };
                    fates.push((one.0, fate));
                }
            }
        }
        fates.iter().for_each(|(position, fate)| self.settle(*position, fate));
        Ok(())
    }

    fn settle(&mut self, position: Position, fate: &Fate) {
        match fate {
            Fate::Replayed => self.tally.replayed += 1,
            Fate::NotReplayable(_) => self.tally.not_replayable += 1,
        }
        (self.report)(position, fate);
    }
}

/// Why a transaction did not happen.
enum Failure {
    /// The broker will never take one of these frames.
    Refused(String),
    /// Nothing more can be sent.
    Lost(Error),
}

/// The transactional producer. There is at most one for a dead-letter topic: a second one makes the broker
/// refuse the first.
struct Mailer {
    producer: BaseProducer<LogContext>,
    frames_topic: String,
    dead_letters_topic: String,
}

impl Mailer {
    fn open(settings: &KafkaSettings) -> Result<Self, Error> {
        let timeout_ms = u64::try_from(TRANSACTION_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let mut client = settings.producer()?;
        client
            .set("transactional.id", format!("{}.replay", settings.dead_letters_topic))
            .set("transaction.timeout.ms", timeout_ms.to_string())
            .set("message.timeout.ms", settings.delivery_timeout_ms.min(timeout_ms).to_string());
        let producer: BaseProducer<LogContext> =
            BaseProducer::from_config_and_context(&client, LogContext::default())
                .map_err(|error| Error::create("replay", error))?;
        producer
            .init_transactions(TRANSACTION_TIMEOUT)
            .map_err(|source| Error::Client { what: "does not allow transactions", source })?;
        Ok(Self {
            producer,
            frames_topic: settings.frames_topic.clone(),
            dead_letters_topic: settings.dead_letters_topic.clone(),
        })
    }

    /// Sends all frames with their markers, or none of them. Returns when the broker has confirmed.
    fn send(&self, frames: &[(Position, RawMessage)]) -> Result<(), Failure> {
        let lost = |source| Failure::Lost(Error::Client { what: "did not confirm a replay", source });
        self.producer.begin_transaction().map_err(lost)?;
        let error = match frames.iter().try_for_each(|(of, frame)| self.enqueue(*of, frame)) {
            Ok(()) => match self.commit() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        // If this fails the broker does it, before the next replay or after the time-out.
        let aborted = self.producer.abort_transaction(TRANSACTION_TIMEOUT).is_ok();
        match refusal(&error).filter(|_| aborted) {
            Some(code) => Err(Failure::Refused(format!("the broker refuses the frame: {code}"))),
            None => Err(lost(error)),
        }
    }

    fn enqueue(&self, of: Position, frame: &RawMessage) -> Result<(), KafkaError> {
        let from = format!("{}/{}/{}", self.dead_letters_topic, of.partition, of.offset);
        let replayed = [(REPLAYED_FROM, from.as_str())];
        let mut again = BaseRecord::<[u8], [u8]>::to(&self.frames_topic);
        (again.key, again.payload) = (frame.key.as_deref(), frame.value.as_deref());
        again.timestamp = frame.timestamp_ms;
        self.put(again.headers(with_headers(with_original_headers(frame, OwnedHeaders::new()), &replayed)))?;
        let mut marker = BaseRecord::<[u8], [u8]>::to(&self.dead_letters_topic).partition(of.partition);
        marker.key = frame.key.as_deref();
        self.put(marker.headers(with_headers(OwnedHeaders::new(), &replayed)))
    }

    /// Waits for room where there is none.
    fn put(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn commit(&self) -> Result<(), KafkaError> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        loop {
            match self.producer.commit_transaction(TRANSACTION_TIMEOUT) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }
}

/// What the broker has against the frame itself. Anything else is about the connection.
fn refusal(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    use RDKafkaErrorCode::{
        InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge,
    };
    let code = match error {
        KafkaError::Transaction(error) => error.code(),
        other => other.rdkafka_error_code()?,
    };
    let refusals = [InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge];
    refusals.contains(&code).then_some(code)
}

impl ProducerContext for LogContext {
    type DeliveryOpaque = ();

    /// The end of the transaction says whether every record was delivered.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_pass_reads_from_the_first_pending_letter_to_the_last() {
        let at = |partition, offset| Position { partition, offset };
        let wanted = BTreeSet::from([at(0, 7), at(0, 90), at(3, 5)]);
        let pending = Pending { wanted, ..Pending::default() };
        assert_eq!(pending.extent(), Extent::from([(0, 7..91), (3, 5..6)]));
    }

    #[test]
    fn only_what_is_wrong_with_the_frame_itself_is_a_refusal() {
        let code = RDKafkaErrorCode::MessageSizeTooLarge;
        assert_eq!(refusal(&KafkaError::MessageProduction(code)), Some(code));
        assert_eq!(refusal(&KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)), None);
    }
}

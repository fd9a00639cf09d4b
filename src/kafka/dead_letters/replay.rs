//! Sends refused frames back to the frames topic, each at most once.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::mailer::{Failure, Mailer};
use super::{DeadLetters, Extent, Filter, Letter, Record, Stopped};
use crate::kafka::KafkaSettings;
use crate::kafka::reader::Reader;
use crate::pipeline::message::{Position, RawMessage};

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
    let mut pending = Pending::find(&letters, settings, filter, options.again, stop)?;
    let mut run = Replay {
        letters: &letters,
        settings,
        mailer,
        end: std::mem::take(&mut pending.end),
        batch: Batch::default(),
        tally: Tally { replayed_before: pending.replayed_before, ..Tally::default() },
        report,
    };
    for position in filter.positions.difference(&pending.seen) {
        run.settle(*position, &Fate::NotReplayable("there is no dead letter at this position".into()));
    }
    let read = letters.scan(&pending.extent(), stop, |record| match record {
        Record::Letter(letter) if pending.wanted.remove(&letter.message.position) => run.take(&letter, stop),
        _ => Ok(()),
    });
    match read {
        // Whoever asks to stop gets what was begun finished.
        Err(error) if error.is::<Stopped>() => {
            run.send()?;
            return Err(error);
        }
        read => read?,
    }
    run.send()?;
    for position in pending.wanted {
        run.settle(position, &Fate::NotReplayable("retention has taken it meanwhile".into()));
    }
    Ok(run.tally)
}

/// Positions of letters, found by a first pass.
#[derive(Default)]
struct Pending {
    /// To be replayed.
    wanted: BTreeSet<Position>,
    /// Of the listed ones, those where a letter lies.
    seen: BTreeSet<Position>,
    /// How many are left alone because they have a marker.
    replayed_before: u64,
    /// How far the topic was read.
    end: Extent,
}

impl Pending {
    /// Those of the letters that `filter` means that have no marker.
    fn find(
        letters: &DeadLetters,
        settings: &KafkaSettings,
        filter: &Filter,
        again: bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        // A marker must not be hidden behind a transaction of the service that is still open.
        let settled = letters.letters.settled_extent(settings, stop)?;
        let mut extent = letters.extent(filter)?;
        for (partition, range) in &mut extent {
            range.end = settled.get(partition).map_or(range.end, |settled| settled.end);
        }
        let mut pending = Self { end: settled, ..Self::default() };
        letters.scan(&extent, stop, |record| {
            match record {
                Record::Letter(letter) if filter.matches(&letter) => {
                    pending.wanted.insert(letter.message.position);
                    if !filter.positions.is_empty() {
                        pending.seen.insert(letter.message.position);
                    }
                }
                Record::Marker(of) if !again && pending.wanted.remove(&of) => pending.replayed_before += 1,
                Record::Letter(_) | Record::Marker(_) => {}
            }
            Ok(())
        })?;
        Ok(pending)
    }

    /// Where the second pass has to read.
    fn extent(&self) -> Extent {
        let mut extent = Extent::new();
        for Position { partition, offset } in &self.wanted {
            extent.entry(*partition).or_insert(*offset..*offset).end = offset + 1;
        }
        extent
    }
}

/// A replay under way.
struct Replay<'a, R> {
    letters: &'a DeadLetters,
    settings: &'a KafkaSettings,
    /// None in a dry run.
    mailer: Option<Mailer>,
    /// How far the first pass has read.
    end: Extent,
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
        let together = self.transact(&batch)?;
        for one in &batch {
            let sent = match &together {
                // Which of them is refused, each will tell alone.
                Err(_) if batch.len() > 1 => self.transact(std::slice::from_ref(one))?,
                sent => sent.clone(),
            };
            self.settle(one.0, &sent.map_or_else(Fate::NotReplayable, |()| Fate::Replayed));
        }
        Ok(())
    }

    /// Sends these frames in one transaction; `Err` of the inner result says why the broker refuses one of them.
    fn transact(&mut self, frames: &[(Position, RawMessage)]) -> anyhow::Result<Result<(), String>> {
        let Some(mailer) = self.mailer.as_mut().filter(|_| !frames.is_empty()) else { return Ok(Ok(())) };
        match mailer.send(frames) {
            Ok(()) => Ok(Ok(())),
            Err(Failure::Lost(error)) => Err(error.into()),
            Err(Failure::Refused(why)) => self.check_alone().map(|()| Err(why)),
        }
    }

    /// After a refusal the mailer has connected anew, and may have cut off another replay that had cut off this
    /// one: what that one has sent, this one does not know of.
    fn check_alone(&self) -> anyhow::Result<()> {
        // A reader of its own: the other one is in the middle of its pass. And not to be stopped: what was begun
        // is finished.
        let topic = &self.settings.dead_letters_topic;
        let reader = Reader::open(self.settings, topic, "kafka.dead_letters_topic")?;
        let stop = CancellationToken::new();
        let mut tail = reader.settled_extent(self.settings, &stop)?;
        for (partition, range) in &mut tail {
            range.start = self.end.get(partition).map_or(range.start, |read| read.end.max(range.start));
        }
        let mut markers = 0;
        reader.scan(&tail, &stop, |message| {
            markers += u64::from(matches!(Record::read(message), Record::Marker(_)));
            Ok(())
        })?;
        anyhow::ensure!(
            markers == self.tally.replayed,
            "another replay has begun meanwhile; run this one again"
        );
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
}

//! Sends refused frames back to the frames topic, each at most once.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::mailer::{Failure, Mailer};
use super::{DeadLetters, Extent, Filter, Letter, Record, Stopped};
use crate::kafka::KafkaSettings;
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
        let Some(mailer) = self.mailer.as_mut().filter(|_| !batch.is_empty()) else {
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

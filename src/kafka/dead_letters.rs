//! The dead-letter topic, for the person on call: to look through, and to send letters back from.
//!
//! # How a letter is known to have been replayed
//! Beside every frame that is sent back goes a *marker* into the partition of its letter: the letter's key,
//! no value, and the header `memebg.replayed.from`. Frame and marker are in one transaction, so there is never
//! one without the other, and the topic itself says what is done: no file, no group, no extra topic.
//! A marker always lies behind its letter and outlives it under retention by time or size.

mod letter;
mod mailer;
mod replay;

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

pub use letter::{Filter, Letter, Origin, REPLAYED_FROM, Record};
pub use replay::{Fate, ReplayOptions, Tally, replay};

use super::reader::Reader;
pub use super::reader::{Extent, Stopped};
use super::{Error, KafkaSettings};
use crate::pipeline::message::{Position, RawMessage};

/// A view of the dead-letter topic, and of the frames topic where a letter came without its value.
pub struct DeadLetters {
    letters: Reader,
    frames: Reader,
    frames_topic: String,
}

impl DeadLetters {
    /// Connects to the cluster of `settings` and finds both topics. Blocks.
    ///
    /// # Errors
    /// When the settings are refused, no broker answers or a topic does not exist.
    pub fn open(settings: &KafkaSettings) -> Result<Self, Error> {
        Ok(Self {
            letters: Reader::open(settings, &settings.dead_letters_topic, "kafka.dead_letters_topic")?,
            frames: Reader::open(settings, &settings.frames_topic, "kafka.frames_topic")?,
            frames_topic: settings.frames_topic.clone(),
        })
    }

    /// Where letters that `filter` means can lie: from its time, or its first position of each partition, on.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn extent(&self, filter: &Filter) -> Result<Extent, Error> {
        let all = match filter.since_ms {
            Some(since_ms) => self.letters.extent_since(since_ms)?,
            None => self.letters.extent()?,
        };
        Ok(narrowed(all, &filter.positions))
    }

    /// Shows every record of `extent` to `each`, in the order of each partition. Nothing is kept. Blocks.
    ///
    /// # Errors
    /// [`Stopped`], what `each` returns, or a broker that hands over nothing any more.
    pub fn scan(
        &self,
        extent: &Extent,
        stop: &CancellationToken,
        mut each: impl FnMut(Record<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.letters.scan(extent, stop, |message| each(Record::read(message)))
    }

    /// The record at a position; `None` where there is none (any more).
    ///
    /// # Errors
    /// As [`DeadLetters::scan`].
    pub fn at(&self, position: Position, stop: &CancellationToken) -> anyhow::Result<Option<RawMessage>> {
        self.letters.at(position, stop)
    }

    /// The refused message of a letter that came without its value, from the place where it lay. `Err` of the
    /// inner result says why it cannot be had.
    ///
    /// # Errors
    /// As [`DeadLetters::scan`].
    pub fn original(
        &self,
        letter: &Letter<'_>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Result<RawMessage, String>> {
        let Some(origin) = letter.origin.filter(|origin| origin.topic == self.frames_topic) else {
            return Ok(Err("its value was left in another topic than kafka.frames_topic".into()));
        };
        let Position { partition, offset } = origin.position;
        let place = format!("{}/{partition}/{offset}", origin.topic);
        Ok(match self.frames.at(origin.position, stop)? {
            None => Err(format!("its value was left at {place}, and is not there any more")),
            // A topic that was deleted and made anew has other messages at the same places.
            Some(found) if !is_original(letter, &found) => {
                Err(format!("its value was left at {place}, where another message lies now"))
            }
            Some(found) => Ok(found),
        })
    }
}

/// Nothing before the first listed position of a partition, and no partition without one, is of use.
fn narrowed(mut extent: Extent, positions: &BTreeSet<Position>) -> Extent {
    if !positions.is_empty() {
        extent.retain(|partition, range| {
            let first = positions.iter().find(|it| it.partition == *partition);
            first.is_some_and(|first| {
                range.start = range.start.max(first.offset);
                !range.is_empty()
            })
        });
    }
    extent
}

fn is_original(letter: &Letter<'_>, found: &RawMessage) -> bool {
    // The key, too, may have been too large to be sent on.
    letter.message.key.is_none_or(|key| found.key.as_deref() == Some(key))
        && letter.message.timestamp_ms == found.timestamp_ms
        && letter.omitted_bytes == found.value.as_ref().map(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_behind_the_first_listed_position_is_read() {
        let at = |partition, offset| Position { partition, offset };
        let all = Extent::from([(0, 5..100), (1, 0..100), (2, 0..100)]);
        assert_eq!(narrowed(all.clone(), &BTreeSet::new()), all);
        let listed = BTreeSet::from([at(0, 2), at(0, 50), at(2, 40), at(2, 60), at(1, 100)]);
        assert_eq!(narrowed(all, &listed), Extent::from([(0, 5..100), (2, 40..100)]));
    }
}

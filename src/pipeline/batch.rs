//! When to close a batch: a pure state machine without I/O and without a clock of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// When a batch is closed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSettings {
    /// Frames in a full batch. At most the largest batch size of the model, which 0 stands for.
    pub max_frames: usize,
    /// A batch is closed when its oldest frame has waited this long, milliseconds.
    pub max_wait_ms: u64,
    /// Close at once when a grader is idle. Best where the batch size hardly matters (CPU); off, an
    /// idle GPU waits up to `max_wait_ms` for a fuller batch.
    pub eager: bool,
}

/// A full batch would be more than the model takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("batch.max_frames {asked} is above {most}, the largest batch size here; set model.batch_sizes")]
pub struct TooLarge {
    asked: usize,
    most: usize,
}

impl BatchSettings {
    /// With the size of a full batch, for a model that takes `most` frames at a time. Unasked it is no more than the
    /// frames that may be `in_flight`, or no batch would ever be full.
    ///
    /// # Errors
    /// When more is asked for than `most`.
    pub fn for_model(self, most: usize, in_flight: usize) -> Result<Self, TooLarge> {
        match self.max_frames {
            0 => Ok(Self { max_frames: most.min(in_flight), ..self }),
            asked if asked > most => Err(TooLarge { asked, most }),
            _ => Ok(self),
        }
    }
}

/// Full batches that wait for each of several graders before one takes more than a frame.
const BACKLOG: usize = 2;

/// The frames that wait for a grader, oldest first: at most a full batch, or two for each of several graders.
pub struct Batcher<T> {
    settings: BatchSettings,
    graders: usize,
    waiting: VecDeque<(T, Instant)>,
}

impl<T> Batcher<T> {
    /// Nothing waits yet for one of so many graders.
    #[must_use]
    pub fn new(settings: BatchSettings, graders: usize) -> Self {
        Self { settings, graders: graders.max(1), waiting: VecDeque::new() }
    }

    /// Whether another frame would not fit; the stage before then has to wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.full_batch() * self.shares()
    }

    /// Into how many batches what waits is divided.
    fn shares(&self) -> usize {
        if self.graders == 1 { 1 } else { BACKLOG * self.graders }
    }

    fn full_batch(&self) -> usize {
        self.settings.max_frames.max(1)
    }

    /// Adds a frame, or hands it back when there is no room.
    ///
    /// # Errors
    /// The frame itself, when [`Batcher::is_full`].
    pub fn push(&mut self, frame: T, now: Instant) -> Result<(), T> {
        if self.is_full() {
            return Err(frame);
        }
        self.waiting.push_back((frame, now));
        Ok(())
    }

    /// When the oldest frame will have waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let (_, since) = self.waiting.front()?;
        Some(*since + Duration::from_millis(self.settings.max_wait_ms))
    }

    /// Closes a batch for an idle grader if it is time to: full, waited long enough, eager, or
    /// `flush` because nothing more will come. Returns the frames and how long the oldest waited.
    ///
    /// The only grader takes whatever waits. One of several takes a single frame, because in a batch the second waits for
    /// the first, which another grader may spare it; with a backlog it takes more, up to full batches, which are the
    /// fastest, once two of them wait for each grader.
    pub fn close(&mut self, now: Instant, flush: bool) -> Option<(Vec<T>, Duration)> {
        let (_, since) = self.waiting.front()?;
        let waited = now.saturating_duration_since(*since);
        let (waiting, full) = (self.waiting.len(), self.full_batch());
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        let frames = if self.settings.eager {
            (waiting / self.shares()).max(1)
        } else if flush || due || waiting >= full {
            waiting
        } else {
            return None;
        };
        Some((self.waiting.drain(..frames.min(full)).map(|(frame, _)| frame).collect(), waited))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batcher(max_frames: usize, eager: bool) -> Batcher<u32> {
        of_graders(max_frames, eager, 1)
    }

    fn of_graders(max_frames: usize, eager: bool, graders: usize) -> Batcher<u32> {
        Batcher::new(BatchSettings { max_frames, max_wait_ms: 100, eager }, graders)
    }

    #[test]
    fn a_full_batch_is_the_largest_that_the_model_takes_or_what_is_asked_for() {
        let of = |asked| BatchSettings { max_frames: asked, max_wait_ms: 100, eager: true };
        let resolved = |asked, most, in_flight| of(asked).for_model(most, in_flight).map(|it| it.max_frames);
        assert_eq!(resolved(0, 64, 512), Ok(64));
        assert_eq!(resolved(0, 64, 24), Ok(24));
        assert_eq!(resolved(16, 64, 512), Ok(16));
        assert_eq!(resolved(16, 2, 512), Err(TooLarge { asked: 16, most: 2 }));
    }

    #[test]
    fn an_eager_batch_closes_with_whatever_waits() {
        let (mut batcher, now) = (batcher(8, true), Instant::now());
        assert_eq!(batcher.close(now, false), None, "an empty batch never closes");
        batcher.push(1, now).unwrap();
        assert_eq!(batcher.close(now, false), Some((vec![1], Duration::ZERO)));
    }

    #[test]
    fn a_patient_batch_closes_when_full_or_when_its_oldest_frame_has_waited() {
        let (mut batcher, start) = (batcher(2, false), Instant::now());
        batcher.push(1, start).unwrap();
        assert_eq!(batcher.close(start, false), None);
        let due = batcher.deadline().unwrap();
        assert_eq!(batcher.close(due, false), Some((vec![1], Duration::from_millis(100))));
        batcher.push(2, start).unwrap();
        batcher.push(3, start).unwrap();
        assert_eq!(batcher.close(start, false).unwrap().0, [2, 3]);
    }

    #[test]
    fn one_of_several_graders_takes_a_frame_and_of_a_backlog_a_full_batch() {
        let (mut batcher, now) = (of_graders(2, true, 2), Instant::now());
        let frames = |batcher: &mut Batcher<u32>| batcher.close(now, false).unwrap().0;
        (1..=7).for_each(|frame| batcher.push(frame, now).unwrap());
        assert_eq!(frames(&mut batcher), [1], "two full batches for each grader would be 8");
        (8..=9).for_each(|frame| batcher.push(frame, now).unwrap());
        assert_eq!(frames(&mut batcher), [2, 3], "and they are");
        assert_eq!((frames(&mut batcher), frames(&mut batcher)), (vec![4], vec![5]));
    }

    #[test]
    fn a_frame_too_many_is_handed_back() {
        let now = Instant::now();
        for graders in 1..4 {
            let mut batcher = of_graders(2, false, graders);
            let room = (0..99).take_while(|frame| batcher.push(*frame, now).is_ok()).count();
            assert_eq!(room, if graders == 1 { 2 } else { 2 * BACKLOG * graders });
            assert_eq!(batcher.push(99, now), Err(99));
        }
    }

    proptest! {
        /// No frame is lost, doubled or reordered; no batch is empty or too large; no frame waits
        /// beyond its deadline when a grader asks often enough.
        #[test]
        fn every_frame_leaves_once_in_order_and_in_time(
            steps in prop::collection::vec((0_u64..60, any::<bool>()), 1..80),
            max_frames in 1_usize..9,
            eager in any::<bool>(),
            graders in 1_usize..4,
        ) {
            let mut batcher = of_graders(max_frames, eager, graders);
            let (mut now, mut next, mut out) = (Instant::now(), 0_u32, Vec::new());
            let longest_step = Duration::from_millis(60);
            for (pause_ms, arrives) in steps {
                now += Duration::from_millis(pause_ms);
                if arrives && batcher.push(next, now).is_ok() {
                    next += 1;
                }
                if let Some((frames, waited)) = batcher.close(now, false) {
                    prop_assert!(!frames.is_empty() && frames.len() <= max_frames);
                    prop_assert!(waited <= Duration::from_millis(100) + longest_step);
                    out.extend(frames);
                }
            }
            while let Some((frames, _)) = batcher.close(now, true) {
                prop_assert!(!frames.is_empty() && frames.len() <= max_frames);
                out.extend(frames);
            }
            prop_assert_eq!(out, (0..next).collect::<Vec<_>>());
        }
    }
}

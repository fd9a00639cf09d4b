//! The summary of one embryo: what all its graded frames of the day-5 window say together, and what
//! embryologists say beside them.
//!
//! # Why the order of the events does not matter
//! An [`Embryo`] keeps a set: one contribution per frame. Where a frame was graded twice, the contribution
//! with the greater content wins (see `contribution.rs`), never the one that came later. Everything is summed
//! in whole ten-thousandths. So frames that come late, twice or in another order after a crash lead to the
//! same summary.

mod combine;
mod contribution;
mod event;
mod review;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use chrono::{DateTime, TimeDelta, Utc};

use super::grade_event::GradeEvent;
use super::rejection::Rejection;
use contribution::Contribution;
pub use contribution::{Place, Vote};
pub use event::{
    CompactContribution, Disagreement, EmbryoSummary, FrameCounts, LastFrame, SUMMARY_EVENT_TYPE,
    SummaryStatus, TrajectoryPoint, WindowEvent,
};
use review::Reviews;
pub use review::{Comparison, KnownReview, SummaryAssessment, SummaryReview};

/// Most frames of one embryo that are kept. All 11 planes every 10 minutes for 10 hours are 660.
pub const MAX_FRAMES: usize = 1_000;

/// Hours post insemination within which frames count, in hundredths: grade events carry two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from_centi_hpi: u32,
    to_centi_hpi: u32,
}

impl Window {
    /// The window of `select.min_hpi` and `select.max_hpi`.
    #[must_use]
    pub fn new(min_hpi: f64, max_hpi: f64) -> Self {
        Self { from_centi_hpi: contribution::centi(min_hpi), to_centi_hpi: contribution::centi(max_hpi) }
    }

    /// The end is part of it: a frame just before the end is rounded up to it.
    fn contains(self, centi_hpi: u32) -> bool {
        (self.from_centi_hpi..=self.to_centi_hpi).contains(&centi_hpi)
    }
}

/// What an event did to a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The summary says something else now.
    Changed,
    /// It was known, or a better one of the same frame was.
    Unchanged,
    /// The frame lies before the window.
    OutsideWindow,
}

/// Frames and reviews of one embryo, and what follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Embryo {
    id: String,
    window: Window,
    frames: BTreeMap<(u64, u32), Contribution>,
    reviews: Reviews,
    /// The latest frame: where the embryo lies, and when its window ends.
    last: Place,
    /// There were more than [`MAX_FRAMES`].
    left_out: bool,
    ended: bool,
    /// Of the last published summary; 0 before the first.
    version: u64,
}

impl Embryo {
    /// An embryo of which this is the first event. `None` when the frame lies before the window.
    ///
    /// # Errors
    /// `schema_invalid` when the event contradicts its schema.
    pub fn first(window: Window, event: &GradeEvent) -> Result<Option<Self>, Rejection> {
        let last = Place::of(event)?;
        let mut embryo = Self {
            id: event.embryo_id.clone(),
            window,
            frames: BTreeMap::new(),
            reviews: Reviews::default(),
            last,
            left_out: false,
            ended: false,
            version: 0,
        };
        let effect = embryo.add(event)?;
        Ok((effect != Effect::OutsideWindow).then_some(embryo))
    }

    /// Takes in one grade event.
    ///
    /// # Errors
    /// `schema_invalid` when the event contradicts its schema.
    pub fn add(&mut self, event: &GradeEvent) -> Result<Effect, Rejection> {
        let place = Place::of(event)?;
        let contribution = Contribution::of(event)?;
        if place.centi_hpi < self.window.from_centi_hpi {
            return Ok(Effect::OutsideWindow);
        }
        let mut changed = self.saw(place.clone());
        if self.window.contains(place.centi_hpi) {
            changed |= self.keep((event.run, event.focal_plane.index), contribution);
        }
        Ok(if changed { Effect::Changed } else { Effect::Unchanged })
    }

    /// The greatest place wins, so that the order does not matter.
    fn saw(&mut self, place: Place) -> bool {
        let later = place > self.last;
        if later {
            self.last = place;
        }
        later
    }

    fn keep(&mut self, frame: (u64, u32), contribution: Contribution) -> bool {
        let changed = match self.frames.entry(frame) {
            Entry::Vacant(free) => {
                free.insert(contribution);
                true
            }
            Entry::Occupied(mut known) => {
                let better = contribution > *known.get();
                if better {
                    known.insert(contribution);
                }
                better
            }
        };
        if self.frames.len() <= MAX_FRAMES {
            return changed;
        }
        // Which ones stay must not depend on the order either: those whose mixed numbers are smallest, a
        // fair sample of the window.
        let surplus =
            self.frames.keys().copied().max_by_key(|(run, plane)| (mix(*run, *plane), *run, *plane));
        if let Some(surplus) = surplus {
            self.frames.remove(&surplus);
            let first = !std::mem::replace(&mut self.left_out, true);
            return first || (changed && surplus != frame);
        }
        changed
    }

    /// When the window of this embryo ends by the wall clock.
    #[must_use]
    pub fn ends_at(&self) -> DateTime<Utc> {
        let left = i64::from(self.window.to_centi_hpi) - i64::from(self.last.centi_hpi);
        // A hundredth of an hour is 36 seconds.
        self.last.captured_at + TimeDelta::seconds(left * 36)
    }

    /// The window has ended by the wall clock. It stays so. Returns whether that is news.
    pub fn end(&mut self) -> bool {
        let news = self.status() == SummaryStatus::Provisional;
        self.ended = true;
        news
    }

    /// Whether frames are still expected.
    #[must_use]
    pub fn status(&self) -> SummaryStatus {
        if self.ended || self.last.centi_hpi >= self.window.to_centi_hpi {
            SummaryStatus::Final
        } else {
            SummaryStatus::Provisional
        }
    }

    /// Opaque pseudonym.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What [`Embryo::summary`] says is published.
    pub fn published(&mut self) {
        self.version += 1;
    }
}

/// Spreads frames evenly (the finaliser of SplitMix64), so that what is left out is no stretch of time.
fn mix(run: u64, plane: u32) -> u64 {
    let mut value = run.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(plane);
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
        value = (value ^ (value >> shift)).wrapping_mul(factor);
    }
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;

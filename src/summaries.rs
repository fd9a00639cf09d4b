//! Which embryos are kept in memory, which have something new to say, and which may be forgotten.
//!
//! Pure: the topics are read and written by [`crate::kafka::summaries`].
//!
//! # Reviews that come before any grade of their embryo
//! They wait. Whoever commits what was read asks [`Keeper::waits_from`] and commits no further, so that they are read
//! again after a restart; taking in a review twice changes nothing.

mod opinions;
mod settings;

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::{
    Comparison, Effect, Embryo, EmbryoSummary, GradeEvent, Head, Rejection, Review, SummaryStatus, Window,
};
pub use opinions::MIN_REVIEWED_EMBRYOS;
use opinions::{Opinions, kappa};
pub use settings::{ReviewsSettings, SummariesSettings};

/// Most reviews of a partition that wait for their embryo: each was signed by a person, who waits too.
pub const MAX_WAITING_REVIEWS: usize = 1_000;

/// What became of a grade event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// It was taken in, and with it these reviews, which had waited for the embryo.
    Taken(Effect, Vec<Comparison>),
    /// Its embryo was finished and forgotten: it has to be restored first.
    Forgotten,
}

/// What became of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reviewed {
    /// It was taken in.
    New(Comparison),
    /// It was known.
    Known,
    /// Its embryo was finished and forgotten: it has to be restored first.
    Forgotten,
    /// There is no embryo yet: it waits.
    Waits,
    /// There is no embryo yet, and [`MAX_WAITING_REVIEWS`] others wait: it cannot.
    Refused,
}

/// The embryos of the assigned partitions.
#[derive(Debug)]
pub struct Keeper {
    window: Window,
    grace: TimeDelta,
    max_embryos: usize,
    partitions: BTreeMap<i32, Partition>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Partition {
    embryos: HashMap<String, Kept>,
    /// Hashes of those that were forgotten, with the offset of their last summary where it is known. Two of the same
    /// hash only cost a look into the topic.
    forgotten: HashMap<u64, Option<i64>>,
    opinions: Opinions,
    /// Reviews without an embryo, by their offset.
    waiting: BTreeMap<i64, Review>,
}

#[derive(Debug)]
struct Kept {
    embryo: Embryo,
    changed: bool,
    touched: u64,
}

impl Keeper {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new(settings: &SummariesSettings, window: Window) -> Self {
        Self {
            window,
            grace: TimeDelta::minutes(settings.grace_minutes.into()),
            max_embryos: settings.max_embryos,
            partitions: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Replaces what is known of a partition by nothing, for [`Self::restore`] to fill.
    pub fn begin(&mut self, partition: i32) {
        self.partitions.insert(partition, Partition::default());
    }

    /// Gives up a partition.
    pub fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Goes on from a published summary, of which only the last of an embryo counts. A final one is only
    /// remembered as forgotten, with its offset.
    ///
    /// # Errors
    /// What about the summary cannot be.
    pub fn restore(&mut self, partition: i32, summary: &EmbryoSummary, offset: i64) -> Result<(), String> {
        let embryo = Embryo::restore(self.window, summary)?;
        let Some(part) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let id = hash(embryo.id());
        part.opinions.set(id, summary.comparison());
        if summary.status == SummaryStatus::Final {
            part.embryos.remove(embryo.id());
            part.forgotten.insert(id, Some(offset));
        } else {
            self.keep(partition, embryo);
        }
        Ok(())
    }

    /// Brings back one that was forgotten, from its last summary.
    ///
    /// # Errors
    /// What about the summary cannot be.
    pub fn recall(&mut self, partition: i32, summary: &EmbryoSummary) -> Result<(), String> {
        let embryo = Embryo::restore(self.window, summary)?;
        self.keep(partition, embryo);
        Ok(())
    }

    fn keep(&mut self, partition: i32, embryo: Embryo) {
        let Some(part) = self.partitions.get_mut(&partition) else { return };
        part.forgotten.remove(&hash(embryo.id()));
        self.clock += 1;
        let kept = Kept { embryo, changed: false, touched: self.clock };
        part.embryos.insert(kept.embryo.id().to_owned(), kept);
    }

    /// Where the last summary of a forgotten embryo lies, as far as that is known.
    #[must_use]
    pub fn last_summary(&self, partition: i32, embryo_id: &str) -> Option<i64> {
        self.partitions.get(&partition)?.forgotten.get(&hash(embryo_id)).copied().flatten()
    }

    /// Takes in a grade event. Of a partition that is not kept nothing is taken in.
    ///
    /// # Errors
    /// When it contradicts its schema.
    pub fn receive(&mut self, partition: i32, event: &GradeEvent) -> Result<Received, Rejection> {
        let nothing = Received::Taken(Effect::Unchanged, Vec::new());
        let Some(part) = self.partitions.get_mut(&partition) else { return Ok(nothing) };
        if part.forgotten.contains_key(&hash(&event.embryo_id)) {
            return Ok(Received::Forgotten);
        }
        self.clock += 1;
        let mut reviews = Vec::new();
        let effect = match part.embryos.entry(event.embryo_id.clone()) {
            Entry::Occupied(mut kept) => {
                let kept = kept.get_mut();
                let effect = kept.embryo.add(event)?;
                kept.changed |= effect == Effect::Changed;
                kept.touched = self.clock;
                effect
            }
            Entry::Vacant(free) => match Embryo::first(self.window, event)? {
                Some(mut embryo) => {
                    let mine = part.waiting.extract_if(.., |_, it| it.embryo_id == event.embryo_id);
                    for (_, review) in mine {
                        if embryo.review(&review) == Effect::Changed {
                            reviews.push(embryo.compare(&review));
                        }
                    }
                    free.insert(Kept { embryo, changed: true, touched: self.clock });
                    Effect::Changed
                }
                None => Effect::OutsideWindow,
            },
        };
        Ok(Received::Taken(effect, reviews))
    }

    /// Takes in a review that lies at `offset` of the reviews topic.
    pub fn review(&mut self, partition: i32, offset: i64, review: &Review) -> Reviewed {
        let Some(part) = self.partitions.get_mut(&partition) else { return Reviewed::Known };
        if part.forgotten.contains_key(&hash(&review.embryo_id)) {
            return Reviewed::Forgotten;
        }
        let Some(kept) = part.embryos.get_mut(&review.embryo_id) else {
            if part.waiting.len() >= MAX_WAITING_REVIEWS && !part.waiting.contains_key(&offset) {
                return Reviewed::Refused;
            }
            part.waiting.insert(offset, review.clone());
            return Reviewed::Waits;
        };
        self.clock += 1;
        kept.touched = self.clock;
        if kept.embryo.review(review) != Effect::Changed {
            return Reviewed::Known;
        }
        kept.changed = true;
        Reviewed::New(kept.embryo.compare(review))
    }

    /// The offset of the first review of a partition that waits for its embryo.
    #[must_use]
    pub fn waits_from(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.waiting.keys().next().copied()
    }

    /// Reviews that wait for their embryo.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.partitions.values().map(|part| part.waiting.len()).sum()
    }

    /// Nothing was published of this embryo after all: it begins anew.
    pub fn not_found(&mut self, partition: i32, embryo_id: &str) {
        if let Some(part) = self.partitions.get_mut(&partition) {
            part.forgotten.remove(&hash(embryo_id));
        }
    }

    /// Ends the windows that are over by the wall clock.
    pub fn tick(&mut self, now: DateTime<Utc>) {
        for kept in self.partitions.values_mut().flat_map(|part| part.embryos.values_mut()) {
            if kept.embryo.ends_at() + self.grace <= now {
                kept.changed |= kept.embryo.end();
            }
        }
    }

    /// What is to be published, with its partition.
    #[must_use]
    pub fn due(&self, may: impl Fn(i32) -> bool) -> Vec<(i32, EmbryoSummary)> {
        let of = |(partition, part): (&i32, &Partition)| -> Vec<_> {
            let changed = part.embryos.values().filter(|kept| kept.changed);
            changed.map(|kept| (*partition, kept.embryo.summary())).collect()
        };
        self.partitions.iter().filter(|(partition, _)| may(**partition)).flat_map(of).collect()
    }

    /// This was published. Finished embryos beyond the bound are forgotten, the longest untouched first.
    pub fn published(&mut self, due: &[(i32, EmbryoSummary)]) {
        for (partition, summary) in due {
            let Some(part) = self.partitions.get_mut(partition) else { continue };
            part.opinions.set(hash(&summary.embryo_id), summary.comparison());
            if let Some(kept) = part.embryos.get_mut(&summary.embryo_id) {
                kept.embryo.published();
                kept.changed = false;
            }
        }
        let surplus = self.embryos().saturating_sub(self.max_embryos);
        if surplus == 0 {
            return;
        }
        let finished = |kept: &Kept| !kept.changed && kept.embryo.status() == SummaryStatus::Final;
        let mut oldest: Vec<u64> = (self.partitions.values().flat_map(|part| part.embryos.values()))
            .filter(|kept| finished(kept))
            .map(|kept| kept.touched)
            .collect();
        oldest.sort_unstable();
        oldest.truncate(surplus);
        let Some(last) = oldest.last() else { return };
        for part in self.partitions.values_mut() {
            let gone = part.embryos.extract_if(|_, kept| finished(kept) && kept.touched <= *last);
            part.forgotten.extend(gone.map(|(id, _)| (hash(&id), None)));
        }
    }

    /// Embryos in memory.
    #[must_use]
    pub fn embryos(&self) -> usize {
        self.partitions.values().map(|part| part.embryos.len()).sum()
    }

    /// Quadratic-weighted kappa between the reviewers and the published summaries of the assigned partitions, by the
    /// newest review of each embryo. None of fewer than [`MIN_REVIEWED_EMBRYOS`].
    #[must_use]
    pub fn kappa(&self, head: Head) -> Option<f64> {
        kappa(self.partitions.values().map(|part| &part.opinions), head)
    }
}

fn hash(embryo_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    embryo_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "summaries/tests.rs"]
mod tests;

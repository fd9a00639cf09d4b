//! Which embryos are kept in memory, which have something new to say, and which may be forgotten.
//!
//! Pure: the topics are read and written by [`crate::kafka::summaries`].

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::{Effect, Embryo, EmbryoSummary, GradeEvent, Rejection, SummaryStatus, Window};

/// Options of `memebg summarize`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummariesSettings {
    /// Topic of summaries, compacted; has as many partitions as the grades topic.
    pub topic: String,
    /// Consumer group. Empty: `kafka.group_id` and `-summaries`.
    pub group_id: String,
    /// An embryo is published at most this often.
    pub publish_interval_ms: u64,
    /// How long after the end of its window a summary becomes final by the wall clock.
    pub grace_minutes: u32,
    /// Embryos in memory; finished ones beyond that are forgotten.
    pub max_embryos: usize,
}

impl SummariesSettings {
    /// The consumer group.
    #[must_use]
    pub fn group(&self, service_group: &str) -> String {
        if self.group_id.is_empty() { format!("{service_group}-summaries") } else { self.group_id.clone() }
    }

    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// The option that cannot be used.
    pub fn validate(&self, service_group: &str, grades_topic: &str) -> Result<(), String> {
        if self.group(service_group) == service_group {
            return Err("summaries.group_id is kafka.group_id; the two read different topics".into());
        }
        if self.topic.is_empty() || self.topic == grades_topic {
            return Err(format!("summaries.topic {:?} is empty or kafka.grades_topic", self.topic));
        }
        if self.publish_interval_ms == 0 || self.max_embryos == 0 {
            return Err("summaries.publish_interval_ms and summaries.max_embryos must be above 0".into());
        }
        Ok(())
    }
}

/// Where the reviews of embryologists come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewsSettings {
    /// Topic of reviews; has as many partitions as the grades topic.
    pub topic: String,
}

impl ReviewsSettings {
    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// When another topic has the name.
    pub fn validate(&self, others: &[(&str, &str)]) -> Result<(), String> {
        let other = others.iter().find(|(_, topic)| *topic == self.topic);
        match other {
            Some((option, _)) => Err(format!("reviews.topic {:?} is {option}", self.topic)),
            None if self.topic.is_empty() => Err("reviews.topic is empty".into()),
            None => Ok(()),
        }
    }
}

/// What became of a grade event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It was taken in.
    Taken(Effect),
    /// Its embryo was finished and forgotten: it has to be restored first.
    Forgotten,
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
    /// Hashes of those that were forgotten. Two of the same hash only cost a look into the topic.
    forgotten: HashSet<u64>,
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

    /// Whether the state of a partition has been read back.
    #[must_use]
    pub fn has(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
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
    /// remembered as forgotten, unless it is `wanted`.
    ///
    /// # Errors
    /// What about the summary cannot be.
    pub fn restore(&mut self, partition: i32, summary: &EmbryoSummary, wanted: bool) -> Result<(), String> {
        let embryo = Embryo::restore(self.window, summary)?;
        let Some(part) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let id = hash(embryo.id());
        if summary.status == SummaryStatus::Final && !wanted {
            part.embryos.remove(embryo.id());
            part.forgotten.insert(id);
        } else {
            part.forgotten.remove(&id);
            self.clock += 1;
            let kept = Kept { embryo, changed: false, touched: self.clock };
            part.embryos.insert(kept.embryo.id().to_owned(), kept);
        }
        Ok(())
    }

    /// Takes in a grade event of an assigned partition.
    ///
    /// # Errors
    /// When it contradicts its schema.
    pub fn receive(&mut self, partition: i32, event: &GradeEvent) -> Result<Received, Rejection> {
        let part = self.partitions.entry(partition).or_default();
        if part.forgotten.contains(&hash(&event.embryo_id)) {
            return Ok(Received::Forgotten);
        }
        self.clock += 1;
        let effect = match part.embryos.entry(event.embryo_id.clone()) {
            Entry::Occupied(mut kept) => {
                let kept = kept.get_mut();
                let effect = kept.embryo.add(event)?;
                kept.changed |= effect == Effect::Changed;
                kept.touched = self.clock;
                effect
            }
            Entry::Vacant(free) => match Embryo::first(self.window, event)? {
                Some(embryo) => {
                    free.insert(Kept { embryo, changed: true, touched: self.clock });
                    Effect::Changed
                }
                None => Effect::OutsideWindow,
            },
        };
        Ok(Received::Taken(effect))
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
            let part = self.partitions.get_mut(partition);
            if let Some(kept) = part.and_then(|part| part.embryos.get_mut(&summary.embryo_id)) {
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
            part.forgotten.extend(gone.map(|(id, _)| hash(&id)));
        }
    }

    /// Embryos in memory.
    #[must_use]
    pub fn embryos(&self) -> usize {
        self.partitions.values().map(|part| part.embryos.len()).sum()
    }
}

fn hash(embryo_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    embryo_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(max_embryos: usize) -> Keeper {
        let settings = SummariesSettings {
            topic: "summaries".into(),
            group_id: String::new(),
            publish_interval_ms: 1,
            grace_minutes: 60,
            max_embryos,
        };
        let mut keeper = Keeper::new(&settings, Window::new(110.0, 120.0));
        keeper.begin(0);
        keeper
    }

    fn event(embryo: &str) -> GradeEvent {
        let json = include_str!("../schemas/examples/grade/graded.json");
        GradeEvent { embryo_id: embryo.to_owned(), ..serde_json::from_str(json).unwrap() }
    }

    #[test]
    fn an_embryo_is_due_once_per_change_and_again_when_its_window_ends() {
        let mut keeper = keeper(10);
        for _ in 0..2 {
            keeper.receive(0, &event("a")).unwrap();
        }
        let due = keeper.due(|_| true);
        assert_eq!((due.len(), due[0].1.version), (1, 1));
        keeper.published(&due);
        assert!(keeper.due(|_| true).is_empty());
        keeper.tick("2026-01-31T16:00:00Z".parse().unwrap());
        assert!(keeper.due(|_| true).is_empty(), "within its window");
        keeper.tick("2026-01-31T18:00:00Z".parse().unwrap());
        let due = keeper.due(|_| true);
        assert_eq!((due[0].1.version, due[0].1.status), (2, SummaryStatus::Final));
        assert!(keeper.due(|partition| partition != 0).is_empty());
    }

    #[test]
    fn finished_embryos_beyond_the_bound_are_forgotten_and_come_back_only_restored() {
        let mut keeper = keeper(1);
        for id in ["a", "b", "c"] {
            keeper.receive(0, &event(id)).unwrap();
        }
        keeper.tick("2026-02-01T00:00:00Z".parse().unwrap());
        let due = keeper.due(|_| true);
        keeper.published(&due);
        assert_eq!(keeper.embryos(), 1, "c was touched last");
        assert_eq!(keeper.receive(0, &event("a")), Ok(Received::Forgotten));
        let (_, summary) = due.iter().find(|(_, it)| it.embryo_id == "a").unwrap();
        keeper.restore(0, summary, true).unwrap();
        assert_eq!(keeper.receive(0, &event("a")), Ok(Received::Taken(Effect::Unchanged)));
    }
}

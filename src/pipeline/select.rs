//! The pure rule: is this frame wanted?
//!
//! Day 5 is a window of hours post insemination; the Istanbul consensus (2011) sees a blastocyst at
//! 116 +- 2 hpi. What is remembered is bounded and belongs to one assignment of one partition, so a
//! frame that is read again after a rebalance is never mistaken for a duplicate.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use chrono::{DateTime, Utc};
use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::domain::{Clocks, Frame, FrameEvent, FrameId, SkipReason};

/// Which of the focal planes of a run is graded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FocalPlanePolicy {
    /// The middle one, `focal_plane_count / 2`.
    Central,
    /// Every one, each with a grade event of its own.
    All,
    /// The sharpest one; the planes of a run wait for each other.
    Sharpest,
}

/// Which frames are wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectSettings {
    /// Sites that may send. Empty: every site may; otherwise an unknown site is a dead letter.
    pub sites: Vec<String>,
    /// Start of the day-5 window, hours post insemination, included.
    pub min_hpi: f64,
    /// End of the day-5 window, hours post insemination, excluded.
    pub max_hpi: f64,
    /// Which focal planes of a run are graded.
    pub focal_planes: FocalPlanePolicy,
    /// Least time between two wanted runs of one embryo, minutes. Absent: every run is wanted.
    #[serde(default)]
    pub spacing_minutes: Option<f64>,
    /// How far an incubator's clock may be ahead of ours, seconds.
    pub clock_tolerance_seconds: u32,
    /// Frames and embryos remembered per partition, to know duplicates and spacing.
    pub remembered_per_partition: NonZeroUsize,
}

/// What is to become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is to be graded.
    Keep,
    /// It is one of several planes, of which the sharpest is to be graded.
    Candidate,
    /// It is not wanted.
    Skip(SkipReason),
}

/// What is remembered of one assignment of one partition.
struct Memory {
    epoch: u64,
    frames: LruCache<(FrameId, String), ()>,
    last_run: LruCache<String, (u64, DateTime<Utc>)>,
}

/// The rule and what it remembers.
pub struct Selector {
    settings: SelectSettings,
    memory: BTreeMap<i32, Memory>,
}

impl Selector {
    /// A selector that remembers nothing yet.
    #[must_use]
    pub fn new(settings: SelectSettings) -> Self {
        Self { settings, memory: BTreeMap::new() }
    }

    /// Whether a site may send.
    #[must_use]
    pub fn knows_site(&self, site_id: &str) -> bool {
        self.settings.sites.is_empty() || self.settings.sites.iter().any(|site| site == site_id)
    }

    /// Decides about one frame of a partition's assignment `epoch`, and remembers it if it is wanted.
    pub fn decide(
        &mut self,
        event: &FrameEvent<'_>,
        clocks: &Clocks,
        partition: i32,
        epoch: u64,
    ) -> Decision {
        if clocks.hpi < self.settings.min_hpi {
            return Decision::Skip(SkipReason::TooEarly);
        }
        if clocks.hpi >= self.settings.max_hpi {
            return Decision::Skip(SkipReason::TooLate);
        }
        let central = event.focal_plane_count / 2;
        if self.settings.focal_planes == FocalPlanePolicy::Central && event.focal_plane_index != central {
            return Decision::Skip(SkipReason::OtherFocalPlane);
        }
        let spacing = self.settings.spacing_minutes;
        let memory = self.memory_of(partition, epoch);
        let key = (event.id(), event.image.sha256.to_string());
        if memory.frames.contains(&key) {
            return Decision::Skip(SkipReason::Duplicate);
        }
        if let Some(spacing) = spacing {
            let last = memory.last_run.get(event.embryo_id.as_ref());
            // Planes of the last wanted run itself are wanted too.
            let close = last.filter(|(run, _)| *run != event.run).is_some_and(|(_, at)| {
                let apart = (clocks.captured_at - *at).num_seconds().unsigned_abs();
                std::time::Duration::from_secs(apart).as_secs_f64() < spacing * 60.0
            });
            if close {
                return Decision::Skip(SkipReason::SpacedOut);
            }
            memory.last_run.put(event.embryo_id.to_string(), (event.run, clocks.captured_at));
        }
        memory.frames.put(key, ());
        match self.settings.focal_planes {
            FocalPlanePolicy::Sharpest if event.focal_plane_count > 1 => Decision::Candidate,
            _ => Decision::Keep,
        }
    }

    /// Forgets a frame that became a dead letter, so that sending it again is not a duplicate.
    pub fn forget(&mut self, frame: &Frame, partition: i32) {
        if let Some(memory) = self.memory.get_mut(&partition) {
            memory.frames.pop(&(frame.id.clone(), frame.image.sha256.clone()));
            // It keeps no other run away either.
            if memory.last_run.peek(&frame.id.embryo_id).is_some_and(|(run, _)| *run == frame.id.run) {
                memory.last_run.pop(&frame.id.embryo_id);
            }
        }
    }

    fn memory_of(&mut self, partition: i32, epoch: u64) -> &mut Memory {
        let capacity = self.settings.remembered_per_partition;
        // Not `LruCache::new`, which would reserve the whole capacity for every partition at once.
        let fresh = || Memory { epoch, frames: LruCache::unbounded(), last_run: LruCache::unbounded() };
        let memory = self.memory.entry(partition).or_insert_with(fresh);
        if memory.epoch != epoch {
            *memory = fresh();
        }
        while memory.frames.len() >= capacity.get() {
            memory.frames.pop_lru();
        }
        while memory.last_run.len() >= capacity.get() {
            memory.last_run.pop_lru();
        }
        memory
    }
}

#[cfg(test)]
#[path = "select/tests.rs"]
mod tests;

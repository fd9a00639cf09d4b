//! The planes of one run wait for each other, and the sharpest goes on.
//!
//! A pure state machine, bounded in runs and in time; the caller owns the clock. A plane that comes
//! after its run was decided is not wanted any more. That holds for as long as the run is remembered: a
//! rebalance or a restart in the middle of a run can decide it twice, for two of its planes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long and how many runs may wait for their planes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FocusSettings {
    /// How long a run waits for a missing plane, milliseconds.
    pub max_wait_ms: u64,
    /// Runs that may wait at a time; one more decides the oldest with the planes it has.
    pub max_runs: usize,
}

/// Which run a plane belongs to: partition, epoch, embryo and run number.
pub type RunKey = (i32, u64, String, u64);

/// A decided run.
#[derive(Debug, PartialEq, Eq)]
pub struct Decided<T> {
    /// The sharpest plane; `None` when only a late plane came.
    pub sharpest: Option<T>,
    /// The other planes, in order of arrival.
    pub others: Vec<T>,
}

struct Waiting<T> {
    expected: usize,
    since: Instant,
    planes: Vec<(f32, T)>,
}

/// The runs that wait for planes.
pub struct Focus<T> {
    settings: FocusSettings,
    waiting: HashMap<RunKey, Waiting<T>>,
    /// Keys in order of their first plane. May hold keys already decided.
    order: VecDeque<RunKey>,
    decided: VecDeque<RunKey>,
}

impl<T> Focus<T> {
    /// No run waits yet.
    #[must_use]
    pub fn new(settings: FocusSettings) -> Self {
        Self { settings, waiting: HashMap::new(), order: VecDeque::new(), decided: VecDeque::new() }
    }

    /// A plane has come. Returns what is decided by it: its own run when complete, or the oldest run
    /// when too many wait.
    pub fn push(
        &mut self,
        key: RunKey,
        planes: usize,
        sharpness: f32,
        plane: T,
        now: Instant,
    ) -> Option<Decided<T>> {
        if self.decided.contains(&key) {
            return Some(Decided { sharpest: None, others: vec![plane] });
        }
        let run = self.waiting.entry(key.clone()).or_insert_with(|| {
            self.order.push_back(key.clone());
            Waiting { expected: planes, since: now, planes: Vec::new() }
        });
        run.planes.push((sharpness, plane));
        if run.planes.len() >= run.expected {
            return self.decide(&key);
        }
        let oldest = self.order.front().filter(|_| self.waiting.len() > self.settings.max_runs).cloned()?;
        self.decide(&oldest)
    }

    /// When the oldest run has waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = self.waiting.get(self.order.front()?)?;
        Some(oldest.since + Duration::from_millis(self.settings.max_wait_ms))
    }

    /// Decides the oldest run if it has waited long enough, or at once when `flush` is set.
    pub fn expire(&mut self, now: Instant, flush: bool) -> Option<Decided<T>> {
        if !flush && self.deadline()? > now {
            return None;
        }
        let oldest = self.order.front()?.clone();
        self.decide(&oldest)
    }

    fn decide(&mut self, key: &RunKey) -> Option<Decided<T>> {
        let run = self.waiting.remove(key)?;
        self.order.retain(|waiting| waiting != key);
        if self.decided.len() >= self.settings.max_runs {
            self.decided.pop_front();
        }
        self.decided.push_back(key.clone());
        // The first of equals, so that the choice does not depend on arithmetic noise.
        let best =
            run.planes.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (at, (sharp, _))| {
                best.filter(|(_, sharpest)| sharpest >= sharp).or(Some((at, *sharp)))
            });
        let mut others: Vec<T> = run.planes.into_iter().map(|(_, plane)| plane).collect();
        let sharpest = best.map(|(at, _)| others.remove(at));
        Some(Decided { sharpest, others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(run: u64) -> RunKey {
        (0, 1, "e".into(), run)
    }

    fn focus(max_runs: usize) -> Focus<&'static str> {
        Focus::new(FocusSettings { max_wait_ms: 1_000, max_runs })
    }

    #[test]
    fn a_complete_run_is_decided_at_once_for_its_sharpest_plane() {
        let (mut focus, now) = (focus(8), Instant::now());
        assert_eq!(focus.push(key(1), 3, 1.0, "low", now), None);
        assert_eq!(focus.push(key(1), 3, 9.0, "middle", now), None);
        let decided = focus.push(key(1), 3, 2.0, "high", now).unwrap();
        assert_eq!(decided, Decided { sharpest: Some("middle"), others: vec!["low", "high"] });
    }

    #[test]
    fn a_run_with_a_missing_plane_is_decided_when_its_time_is_up() {
        let (mut focus, start) = (focus(8), Instant::now());
        focus.push(key(1), 3, 1.0, "low", start);
        assert_eq!(focus.expire(start, false), None);
        let later = focus.deadline().unwrap();
        assert_eq!(later, start + Duration::from_secs(1));
        assert_eq!(focus.expire(later, false).unwrap().sharpest, Some("low"));
        assert_eq!(focus.deadline(), None);
    }

    #[test]
    fn a_late_plane_of_a_decided_run_is_not_wanted() {
        let (mut focus, now) = (focus(8), Instant::now());
        focus.push(key(1), 2, 1.0, "low", now);
        focus.expire(now, true);
        let late = focus.push(key(1), 2, 9.0, "late", now).unwrap();
        assert_eq!(late, Decided { sharpest: None, others: vec!["late"] });
    }

    #[test]
    fn one_run_too_many_decides_the_oldest() {
        let (mut focus, now) = (focus(2), Instant::now());
        focus.push(key(1), 2, 1.0, "one", now);
        focus.push(key(2), 2, 1.0, "two", now);
        assert_eq!(focus.push(key(3), 2, 1.0, "three", now).unwrap().sharpest, Some("one"));
    }
}

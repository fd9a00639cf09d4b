//! From the records of the topics to what the board shows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::images::Images;
use super::wall::Wall;
use crate::domain::{GradeEvent, RejectionCode};
use crate::kafka::dead_letters::REPLAYED_FROM;
use crate::pipeline::event::{self, Incoming};
use crate::pipeline::message::MessageView;
use crate::pipeline::select::{FocalPlanePolicy, SelectSettings};
use crate::telemetry::seldom::Seldom;

/// Over how long throughput is measured.
const WINDOW_SECONDS: i64 = 60;
/// Header of a dead letter: why.
const CODE_HEADER: &str = "memebg.error.code";

/// Names of the topics that are followed.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Frame events.
    pub frames: String,
    /// Grade events.
    pub grades: String,
    /// Dead letters.
    pub dead_letters: String,
    /// Summaries.
    pub summaries: String,
}

/// How it goes with the service, for the head line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Frame events of the last minute, per second.
    pub frames_per_second: f64,
    /// Grade events of the last minute.
    pub grades_per_minute: u64,
    /// Frames that wait for the graders; none when not known.
    pub lag_frames: Option<i64>,
    /// Dead letters since the start of the board's history, those that were sent back included.
    pub dead_letters: u64,
    /// The same by code, most first.
    pub dead_letters_by_code: Vec<(&'static str, u64)>,
    /// Letters that were sent back.
    pub replayed: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Embryos on the wall.
    pub embryos: usize,
}

/// What is shared between the thread that reads and the pages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topics: Topics,
    select: SelectSettings,
    max_value_bytes: usize,
    images: Images,
    maps: bool,
    wall: Mutex<Wall>,
    counts: Mutex<Counts>,
    unreadable: Seldom<&'static str>,
}

#[derive(Debug, Default)]
struct Counts {
    frames: Recent,
    grades: Recent,
    lag_frames: Option<i64>,
    letters: BTreeMap<&'static str, u64>,
    replayed: u64,
    unreadable: u64,
}

/// Events of the last minute, by second.
#[derive(Debug, Default)]
struct Recent(VecDeque<(i64, u64)>);

impl Recent {
    fn count(&mut self, at: DateTime<Utc>, now: DateTime<Utc>) {
        let second = at.timestamp();
        // What is read back from the past is not what happens now.
        if second <= now.timestamp() - WINDOW_SECONDS {
            return;
        }
        match self.0.iter_mut().rev().find(|(known, _)| *known == second) {
            Some((_, events)) => *events += 1,
            None => self.0.push_back((second, 1)),
        }
        // Clocks of producers may differ by more than the window.
        if self.0.len() > 2 * usize::try_from(WINDOW_SECONDS).unwrap_or(0) {
            self.0.pop_front();
        }
    }

    fn sum(&self, now: DateTime<Utc>) -> u64 {
        let recent = self.0.iter().filter(|(second, _)| *second > now.timestamp() - WINDOW_SECONDS);
        recent.map(|(_, events)| events).sum()
    }
}

impl Board {
    /// Knows nothing yet. `maps` says whether it can be asked where the model looked.
    #[must_use]
    pub fn new(
        topics: Topics,
        select: SelectSettings,
        max_value_bytes: usize,
        images: Images,
        wall: Wall,
        maps: bool,
    ) -> Self {
        let (wall, counts) = (Mutex::new(wall), Mutex::default());
        let unreadable = Seldom::default();
        Self(Arc::new(Inner { topics, select, max_value_bytes, images, maps, wall, counts, unreadable }))
    }

    /// The embryos.
    pub fn wall(&self) -> MutexGuard<'_, Wall> {
        self.0.wall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The photographs.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.0.images
    }

    /// Whether it can be asked where the model looked.
    #[must_use]
    pub fn has_maps(&self) -> bool {
        self.0.maps
    }

    /// What is followed.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.0.topics
    }

    /// How many frames wait for the graders, if that is known.
    pub fn set_lag(&self, frames: Option<i64>) {
        self.counts().lag_frames = frames;
    }

    /// How it goes.
    #[must_use]
    pub fn standing(&self, now: DateTime<Utc>) -> Standing {
        let embryos = self.wall().len();
        let counts = self.counts();
        let mut by_code: Vec<_> = counts.letters.iter().map(|(code, letters)| (*code, *letters)).collect();
        by_code.sort_by_key(|(_, letters)| std::cmp::Reverse(*letters));
        #[allow(clippy::cast_precision_loss, reason = "events of one minute")]
        let frames_per_second = counts.frames.sum(now) as f64 / WINDOW_SECONDS as f64;
        Standing {
            frames_per_second: (frames_per_second * 10.0).round() / 10.0,
            grades_per_minute: counts.grades.sum(now),
            lag_frames: counts.lag_frames,
            dead_letters: counts.letters.values().sum(),
            dead_letters_by_code: by_code,
            replayed: counts.replayed,
            unreadable: counts.unreadable,
            embryos,
        }
    }

    /// Takes in a record of one of the topics.
    pub fn receive(&self, message: &MessageView<'_>, now: DateTime<Utc>) {
        let at = message.timestamp_ms.and_then(DateTime::from_timestamp_millis).unwrap_or(now);
        let topics = &self.0.topics;
        match message.topic {
            topic if topic == topics.frames => self.frame(message, at, now),
            topic if topic == topics.grades => self.grade(message, at, now),
            topic if topic == topics.dead_letters => self.dead_letter(message),
            topic if topic == topics.summaries => {
                let Some(value) = message.value else { return };
                match serde_json::from_slice(value) {
                    Ok(summary) => self.wall().summary(summary, at),
                    Err(error) => self.unreadable("summary", &error),
                }
            }
            _ => {}
        }
    }

    /// Keeps the image of a frame that the service grades. One that cannot be read, the service makes a dead letter of.
    fn frame(&self, message: &MessageView<'_>, at: DateTime<Utc>, now: DateTime<Utc>) {
        self.counts().frames.count(at, now);
        let mut scratch = Vec::new();
        let Ok(Incoming { event, image }) = event::read(message, self.0.max_value_bytes, &mut scratch) else {
            return;
        };
        let select = &self.0.select;
        let Ok(clocks) = event.validate(now, i64::from(select.clock_tolerance_seconds)) else { return };
        let central = event.focal_plane_index == event.focal_plane_count / 2;
        let wanted = (select.min_hpi..select.max_hpi).contains(&clocks.hpi)
            && (select.focal_planes != FocalPlanePolicy::Central || central)
            && (select.sites.is_empty() || select.sites.iter().any(|site| *site == event.site_id));
        if wanted {
            self.0.images.keep(event.to_frame(clocks).image, image.as_deref());
        }
    }

    fn grade(&self, message: &MessageView<'_>, at: DateTime<Utc>, now: DateTime<Utc>) {
        match serde_json::from_slice::<GradeEvent>(message.value.unwrap_or_default()) {
            Ok(event) => {
                self.counts().grades.count(at, now);
                self.wall().grade(event, at);
            }
            Err(error) => self.unreadable("grade event", &error),
        }
    }

    fn dead_letter(&self, message: &MessageView<'_>) {
        let mut counts = self.counts();
        if message.header(REPLAYED_FROM).is_some() {
            counts.replayed += 1;
            return;
        }
        let code = message.header(CODE_HEADER).unwrap_or_default();
        let known = RejectionCode::ALL.iter().find(|known| known.as_str() == code);
        *counts.letters.entry(known.map_or("other", |known| known.as_str())).or_default() += 1;
    }

    /// The board only looks on: what it cannot read it counts and passes over.
    fn unreadable(&self, what: &'static str, error: &serde_json::Error) {
        self.counts().unreadable += 1;
        if let Some(suppressed) = self.0.unreadable.due(what) {
            // Only where, not what: the text of serde repeats values.
            let (line, column) = (error.line(), error.column());
            tracing::warn!(what, line, column, suppressed, "a record cannot be read and is not shown");
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "intake/tests.rs"]
pub(super) mod tests;

//! What the board knows of the embryos: pure, bounded, and asked by every page that is open.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::domain::{
    AbstainReason, EmbryoSummary, FocalPlane, GradeEvent, GradeId, GradeStatus, Heads, Instrument,
    ModelIdentity, ReviewedSummary,
};

/// Published versions of a summary that a review may still refer to. In a fast demo that is some minutes.
const VERSIONS: usize = 64;
/// Embryos of which a page is told that they are gone. One that missed more begins anew.
const GONE: usize = 256;

/// Where an embryo lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// The clinic or laboratory.
    pub site_id: String,
    /// The incubator; a summary does not say it.
    pub instrument: Option<Instrument>,
    /// Slide, if it lies on one.
    pub slide_id: Option<String>,
    /// Dish, if it lies in one.
    pub dish_id: Option<String>,
    /// Well, from 1.
    pub well: u32,
}

/// One graded or abstained frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrameGrade {
    /// The grade event.
    pub id: GradeId,
    /// Number of the capture.
    pub run: u64,
    /// Focal plane.
    pub focal_plane: FocalPlane,
    /// When the photograph was taken.
    pub captured_at: DateTime<Utc>,
    /// When the grade event was written.
    pub graded_at: DateTime<Utc>,
    /// Hours post insemination.
    pub hpi: f64,
    /// Whether there is a grade.
    pub status: GradeStatus,
    /// Why not, when not.
    pub reasons: Vec<AbstainReason>,
    /// Gardner string, when graded.
    pub gardner: Option<String>,
    /// That of the least sure head, when graded.
    pub confidence: Option<f64>,
    /// What each head says.
    #[serde(flatten)]
    pub heads: Option<Heads>,
    /// The image.
    pub image_sha256: String,
    /// The model that was asked.
    pub model: ModelIdentity,
    /// Version of memebg.
    pub pipeline_version: String,
}

impl FrameGrade {
    fn new(event: GradeEvent, graded_at: DateTime<Utc>) -> Self {
        let graded = event.status == GradeStatus::Graded;
        Self {
            confidence: event.heads.as_ref().filter(|_| graded).map(Heads::confidence),
            id: event.id,
            run: event.run,
            focal_plane: event.focal_plane,
            captured_at: event.captured_at,
            graded_at,
            hpi: event.hpi,
            status: event.status,
            reasons: event.reasons,
            gardner: event.gardner,
            heads: event.heads,
            image_sha256: event.image_sha256,
            model: event.model,
            pipeline_version: event.pipeline_version,
        }
    }
}

/// One embryo.
#[derive(Debug, Clone)]
pub struct Embryo {
    /// Where it lies.
    pub place: Place,
    /// By run and focal plane.
    pub frames: BTreeMap<(u64, u32), FrameGrade>,
    /// The newest summary, without its contributions.
    pub summary: Option<EmbryoSummary>,
    versions: VecDeque<ReviewedSummary>,
    /// When the newest event about it was written.
    heard: DateTime<Utc>,
    changed: u64,
}

impl Embryo {
    /// The last photograph.
    #[must_use]
    pub fn latest(&self) -> Option<&FrameGrade> {
        self.frames.last_key_value().map(|(_, frame)| frame)
    }

    /// What was on the table under this version.
    #[must_use]
    pub fn on_the_table(&self, version: u64) -> Option<&ReviewedSummary> {
        self.versions.iter().find(|it| it.version == version)
    }
}

/// Embryos that changed.
#[derive(Debug)]
pub struct Changes<'a> {
    /// To be named the next time.
    pub sequence: u64,
    /// Whether these are all there are, and any other is to be forgotten.
    pub all: bool,
    /// Those that say something new.
    pub embryos: Vec<(&'a String, &'a Embryo)>,
    /// Those that are not known any more.
    pub gone: Vec<&'a String>,
}

/// Every embryo that the board remembers.
#[derive(Debug)]
pub struct Wall {
    max_embryos: usize,
    max_frames: usize,
    embryos: HashMap<String, Embryo>,
    /// The same by when they were heard of.
    by_age: BTreeSet<(DateTime<Utc>, String)>,
    gone: VecDeque<(u64, String)>,
    sequence: u64,
}

impl Wall {
    /// Remembers nothing yet, and never more than this many embryos and frames of each.
    #[must_use]
    pub fn new(max_embryos: usize, max_frames: usize) -> Self {
        Self {
            max_embryos,
            max_frames,
            embryos: HashMap::new(),
            by_age: BTreeSet::new(),
            gone: VecDeque::new(),
            // 0 is what a page has seen that was never told.
            sequence: 1,
        }
    }

    /// Takes in a grade event.
    pub fn grade(&mut self, event: GradeEvent, graded_at: DateTime<Utc>) {
        let max_frames = self.max_frames;
        let place = Place {
            site_id: event.site_id.clone(),
            instrument: Some(event.instrument.clone()),
            slide_id: event.slide_id.clone(),
            dish_id: event.dish_id.clone(),
            well: event.well,
        };
        let Some(embryo) = self.change(&event.embryo_id, &place, graded_at) else { return };
        let frame = FrameGrade::new(event, graded_at);
        if embryo.latest().is_none_or(|latest| latest.run <= frame.run) {
            embryo.place = place;
        }
        embryo.frames.insert((frame.run, frame.focal_plane.index), frame);
        if embryo.frames.len() > max_frames {
            embryo.frames.pop_first();
        }
    }

    /// Takes in a summary. An older version than the known one changes nothing.
    pub fn summary(&mut self, mut summary: EmbryoSummary, published_at: DateTime<Utc>) {
        let known = self.embryos.get(&summary.embryo_id).and_then(|it| it.summary.as_ref());
        if known.is_some_and(|known| known.version >= summary.version) {
            return;
        }
        let on_the_table = ReviewedSummary {
            version: summary.version,
            gardner: summary.gardner.clone(),
            model_digest: summary.models.last().map(|it| it.digest.clone()).unwrap_or_default(),
        };
        // They are nine tenths of it, and only for the summarizer to go on from.
        summary.contributions = Vec::new();
        summary.known_reviews = Vec::new();
        let place = Place {
            site_id: summary.site_id.clone(),
            instrument: None,
            slide_id: summary.slide_id.clone(),
            dish_id: summary.dish_id.clone(),
            well: summary.well,
        };
        let Some(embryo) = self.change(&summary.embryo_id, &place, published_at) else { return };
        embryo.versions.push_back(on_the_table);
        if embryo.versions.len() > VERSIONS {
            embryo.versions.pop_front();
        }
        embryo.summary = Some(summary);
    }

    /// What is known of an embryo.
    #[must_use]
    pub fn embryo(&self, id: &str) -> Option<&Embryo> {
        self.embryos.get(id)
    }

    /// What changed since a page was last told, which was when `since` was the sequence; 0 is never.
    #[must_use]
    pub fn changes(&self, since: u64) -> Changes<'_> {
        let all = since == 0
            || since > self.sequence
            || (self.gone.len() == GONE && self.gone.front().is_some_and(|(at, _)| *at > since));
        let embryos = self.embryos.iter().filter(|(_, embryo)| all || embryo.changed > since).collect();
        let gone = self.gone.iter().filter(|(at, id)| !all && *at > since && !self.embryos.contains_key(id));
        Changes { sequence: self.sequence, all, embryos, gone: gone.map(|(_, id)| id).collect() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.embryos.len()
    }

    /// Whether nothing is known yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.embryos.is_empty()
    }

    /// The embryo, as one that changed. None when there is no room for one that is older than all others: partitions
    /// are read one faster than the other, and what is shown must not depend on that.
    fn change(&mut self, id: &str, place: &Place, at: DateTime<Utc>) -> Option<&mut Embryo> {
        self.sequence += 1;
        if let Some(known) = self.embryos.get(id) {
            self.by_age.remove(&(known.heard, id.to_owned()));
        } else if self.embryos.len() >= self.max_embryos {
            self.by_age.first().filter(|(oldest, _)| *oldest <= at)?;
            let (_, oldest) = self.by_age.pop_first()?;
            self.embryos.remove(&oldest);
            self.gone.push_back((self.sequence, oldest));
            if self.gone.len() > GONE {
                self.gone.pop_front();
            }
        }
        let embryo = self.embryos.entry(id.to_owned()).or_insert_with(|| Embryo {
            place: place.clone(),
            frames: BTreeMap::new(),
            summary: None,
            versions: VecDeque::new(),
            heard: at,
            changed: 0,
        });
        embryo.heard = embryo.heard.max(at);
        embryo.changed = self.sequence;
        self.by_age.insert((embryo.heard, id.to_owned()));
        Some(embryo)
    }
}

#[cfg(test)]
#[path = "wall/tests.rs"]
pub(super) mod tests;

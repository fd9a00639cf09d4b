//! The synthetic incubators: the schedule, with a picture for every photograph.

use chrono::{DateTime, Utc};

use super::event::{Encoded, frame_event};
use super::random::mix;
use super::schedule::{IncubatorSettings, Schedule, Shot};
use super::{Embryo, IncubatorError, Photograph, Renderer};
use crate::domain::MediaType;

/// A room of synthetic incubators: an iterator over their photographs in the order of their due
/// times. It ends when its simulated clock, which starts three years ago, reaches the present: after
/// `1095 * seconds_per_day`.
///
/// A picture is drawn when it is asked for (about 3 ms for 320 px, optimised build); the iterator
/// does not wait for due times.
#[derive(Debug)]
pub struct Incubator {
    schedule: Schedule,
    renderer: Renderer,
    number: u64,
    again: Option<Photograph>,
}

impl Incubator {
    /// Sets the room up; `now` is where its clocks end.
    ///
    /// # Errors
    /// [`IncubatorError::Setting`] when a setting is out of range.
    pub fn new(settings: &IncubatorSettings, now: DateTime<Utc>) -> Result<Self, IncubatorError> {
        let schedule = Schedule::new(settings, now)?;
        Ok(Self { schedule, renderer: Renderer::new(settings.image_side_px), number: 0, again: None })
    }

    /// Whether the accident that befalls one photograph in `every` befalls this one. Drawn rather
    /// than counted: a count in step with the focal planes would only ever hit the same plane.
    fn befalls(&self, every: u32, purpose: u64) -> bool {
        every > 0
            && mix(&[self.schedule.settings().seed, purpose, self.number]).is_multiple_of(u64::from(every))
    }

    fn photograph(&mut self, shot: Shot) -> Result<Photograph, IncubatorError> {
        let embryo = Embryo::new(shot.embryo_seed);
        let picture = self.renderer.render(&embryo, shot.hpi, shot.exposure.plane.offset_um);
        let mut jpeg = Renderer::jpeg(&picture)?;
        if self.befalls(self.schedule.settings().damaged_every, 1) {
            jpeg.truncate(jpeg.len() / 3);
        }
        let image = Encoded {
            bytes: &jpeg,
            media_type: MediaType::Jpeg,
            width: picture.width(),
            height: picture.height(),
            um_per_px: Some(self.renderer.um_per_px()),
        };
        Ok(Photograph {
            due: shot.due,
            event: frame_event(&shot.exposure, &image)?,
            embryo_id: shot.exposure.embryo_id,
            truth: Some(embryo.truth_at(shot.hpi)),
            hpi: shot.hpi,
        })
    }
}

impl Iterator for Incubator {
    type Item = Result<Photograph, IncubatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(photograph) = self.again.take() {
            return Some(Ok(photograph));
        }
        let shot = self.schedule.shot(self.number)?;
        let photograph = self.photograph(shot);
        if self.befalls(self.schedule.settings().resent_every, 2) {
            self.again = photograph.as_ref().ok().cloned();
        }
        self.number += 1;
        Some(photograph)
    }
}

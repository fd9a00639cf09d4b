//! The synthetic incubators: the schedule, with a picture for every photograph.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::event::frame_event;
use super::random::mix;
use super::schedule::{IncubatorSettings, Schedule, Shot};
use super::{Embryo, IncubatorError, Photograph, Renderer};
use crate::domain::{Image, ImageLocation, MediaType};

/// What is left of a damaged photograph. It ends inside the header: decoders fill up a picture that
/// lacks only its lower part, and would not notice.
const DAMAGED_BYTES: usize = 128;

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
            jpeg.truncate(DAMAGED_BYTES);
        }
        let image = Image {
            location: ImageLocation::Inline,
            sha256: hex::encode(Sha256::digest(&jpeg)),
            media_type: MediaType::Jpeg,
            bytes: jpeg.len() as u64,
            width: picture.width(),
            height: picture.height(),
        };
        let um_per_px = Some(self.renderer.um_per_px());
        Ok(Photograph {
            due: shot.due,
            event: frame_event(&shot.exposure, &jpeg, &image, um_per_px)?,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::schedule::tests::demo;
    use super::*;
    use crate::domain::FrameEvent;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_770_000_000, 0).unwrap()
    }

    fn small(seed: u64) -> IncubatorSettings {
        IncubatorSettings { image_side_px: 64, damaged_every: 0, resent_every: 0, seed, ..demo() }
    }

    fn take(settings: &IncubatorSettings, count: usize) -> Vec<Photograph> {
        Incubator::new(settings, now()).unwrap().take(count).map(Result::unwrap).collect()
    }

    /// The image bytes of an event, after checking their length and digest.
    fn image_of(event: &[u8]) -> Vec<u8> {
        let event = FrameEvent::from_json(event).unwrap();
        let data = event.image.data.unwrap();
        let bytes = base64_simd::STANDARD.decode_to_vec(data.0.as_bytes()).unwrap();
        assert_eq!(bytes.len() as u64, event.image.bytes);
        assert_eq!(hex::encode(Sha256::digest(&bytes)), event.image.sha256);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_event_is_a_valid_frame_event_with_a_picture_of_the_stated_size(seed: u64) {
            for photograph in take(&small(seed), 3) {
                let event = FrameEvent::from_json(&photograph.event).unwrap();
                let clocks = event.validate(now(), 0).unwrap();
                prop_assert_eq!(clocks.hpi, photograph.hpi);
                prop_assert_eq!(&*event.embryo_id, &photograph.embryo_id);
                let picture = image::load_from_memory(&image_of(&photograph.event)).unwrap();
                prop_assert_eq!((picture.width(), picture.height()), (event.image.width, event.image.height));
                prop_assert!(photograph.truth.is_some());
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_photographs_and_another_seed_others() {
        assert_eq!(take(&small(7), 4), take(&small(7), 4));
        assert_ne!(take(&small(7), 4), take(&small(8), 4));
    }

    #[test]
    fn a_damaged_photograph_has_the_right_digest_and_does_not_decode() {
        for photograph in take(&IncubatorSettings { damaged_every: 1, ..small(3) }, 4) {
            assert!(image::load_from_memory(&image_of(&photograph.event)).is_err());
        }
    }

    #[test]
    fn about_one_photograph_in_n_is_damaged_on_every_focal_plane() {
        let mut incubator = Incubator::new(&small(5), now()).unwrap();
        let planes = u64::from(incubator.schedule.settings().focal_planes);
        let mut hits = vec![0_u32; 5];
        for number in 0..10_000 {
            incubator.number = number;
            hits[(number % planes) as usize] += u32::from(incubator.befalls(20, 1));
        }
        assert!(hits.iter().all(|hits| (60..140).contains(hits)), "{hits:?}");
        assert!(!incubator.befalls(0, 1));
    }

    #[test]
    fn a_resent_event_follows_itself_unchanged() {
        let twice = take(&IncubatorSettings { resent_every: 1, ..small(4) }, 6);
        assert!(twice.chunks(2).all(|pair| pair[0] == pair[1]));
        assert_ne!(twice[0], twice[2]);
    }
}

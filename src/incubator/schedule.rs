//! Which well is photographed when. Pure arithmetic on the number of the photograph: nothing is
//! kept, so a schedule costs the same for ten embryos and for ten thousand.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::IncubatorError;
use super::event::{Exposure, Holder};
use super::random::{Random, mix};
use crate::domain::{FocalPlane, InseminationMethod, Instrument, TimeZeroSource};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The simulated clocks start this long before now. Their time runs faster than ours and must never
/// overtake it, so a run ends after `ERA_DAYS * seconds_per_day`: 18 hours at 60 s a day.
const ERA_DAYS: u64 = 3 * 365;
/// How old the embryos of the first slide are when a run starts: day 5, so that grades come at once.
const FIRST_SLIDE_HPI: u64 = 112;

/// A room of synthetic incubators.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncubatorSettings {
    /// Number of incubators, 1 to 100.
    pub incubators: u32,
    /// Slides in each incubator, 1 to 100. With at least `days * 2.4` slides in the room some
    /// embryo is on day 5 (110 to 120 hpi) at any moment.
    pub slides_per_incubator: u32,
    /// Embryos on each slide, 1 to 100.
    pub wells_per_slide: u32,
    /// Focal planes of each capture, odd, 1 to 31.
    pub focal_planes: u32,
    /// Distance between two focal planes, micrometres, above 0 and at most 50.
    pub focal_step_um: f64,
    /// Simulated minutes between two captures of one embryo, 1 to 1440.
    pub capture_every_minutes: u32,
    /// Width and height of a photograph, pixels, 64 to 2048.
    pub image_side_px: u32,
    /// Wall-clock seconds that one day of culture lasts, 1 to 86400.
    pub seconds_per_day: f64,
    /// Days of culture before a slide is replaced by a new one, 5 to 7.
    pub days: u32,
    /// One photograph in this many arrives damaged: a JPEG cut short before it was hashed. 0 for none.
    pub damaged_every: u32,
    /// One event in this many is sent twice, as a producer does after a lost acknowledgement. 0 for
    /// none.
    pub resent_every: u32,
    /// The same seed gives the same embryos and photographs.
    pub seed: u64,
    /// Site that the events name.
    pub site_id: String,
}

impl IncubatorSettings {
    /// Checks every field against its limits.
    ///
    /// # Errors
    /// [`IncubatorError::Setting`] naming the field.
    pub fn validate(&self) -> Result<(), IncubatorError> {
        let check = |fits: bool, field, value: &dyn std::fmt::Display, want| {
            if fits { Ok(()) } else { Err(IncubatorError::Setting { field, value: value.to_string(), want }) }
        };
        let to_100 = 1..=100;
        let site = &self.site_id;
        let site_fits = (1..=128).contains(&site.len()) && site.bytes().all(|byte| byte.is_ascii_graphic());
        let step = self.focal_step_um;
        let planes = self.focal_planes;
        check(to_100.contains(&self.incubators), "incubators", &self.incubators, "1 to 100")?;
        check(
            to_100.contains(&self.slides_per_incubator),
            "slides_per_incubator",
            &self.slides_per_incubator,
            "1 to 100",
        )?;
        check(to_100.contains(&self.wells_per_slide), "wells_per_slide", &self.wells_per_slide, "1 to 100")?;
        check(planes % 2 == 1 && planes <= 31, "focal_planes", &planes, "an odd number up to 31")?;
        check(step > 0.0 && step <= 50.0, "focal_step_um", &step, "above 0 and at most 50")?;
        check(
            (1..=1_440).contains(&self.capture_every_minutes),
            "capture_every_minutes",
            &self.capture_every_minutes,
            "1 to 1440",
        )?;
        check(
            (64..=2_048).contains(&self.image_side_px),
            "image_side_px",
            &self.image_side_px,
            "64 to 2048",
        )?;
        check(
            (1.0..=86_400.0).contains(&self.seconds_per_day),
            "seconds_per_day",
            &self.seconds_per_day,
            "1 to 86400",
        )?;
        check((5..=7).contains(&self.days), "days", &self.days, "5 to 7; no embryo reaches day 5 in fewer")?;
        check(site_fits, "site_id", &"not usable", "1 to 128 printable ASCII characters without spaces")
    }
}

/// One photograph that is due.
#[derive(Debug)]
pub(super) struct Shot {
    pub due: Duration,
    pub embryo_seed: u64,
    pub hpi: f64,
    pub exposure: Exposure,
}

#[derive(Debug)]
pub(super) struct Schedule {
    settings: IncubatorSettings,
    slides: u64,
    era_start: DateTime<Utc>,
}

impl Schedule {
    pub(super) fn new(settings: &IncubatorSettings, now: DateTime<Utc>) -> Result<Self, IncubatorError> {
        settings.validate()?;
        let whole_ms = now.timestamp_millis() - (ERA_DAYS * DAY_MS) as i64;
        let era_start = DateTime::from_timestamp_millis(whole_ms).ok_or_else(|| IncubatorError::Setting {
            field: "now",
            value: now.to_string(),
            want: "a year between 1970 and 9999",
        })?;
        let slides = u64::from(settings.incubators) * u64::from(settings.slides_per_incubator);
        Ok(Self { settings: settings.clone(), slides, era_start })
    }

    pub(super) fn settings(&self) -> &IncubatorSettings {
        &self.settings
    }

    /// The photograph of a number, counted from 0 in the order of their due times; `None` when the
    /// simulated clock would pass the present.
    ///
    /// All wells are photographed once per capture interval, evenly spread over it, one well of
    /// every slide after the other.
    pub(super) fn shot(&self, number: u64) -> Option<Shot> {
        let settings = &self.settings;
        let planes = u64::from(settings.focal_planes);
        let (capture, plane) = (number / planes, number % planes);
        let embryos = self.slides * u64::from(settings.wells_per_slide);
        let capture_ms = u64::from(settings.capture_every_minutes) * 60_000;
        // All planes of a capture carry the time of its first.
        let elapsed_ms = capture.checked_mul(capture_ms)? / embryos;
        if elapsed_ms > ERA_DAYS * DAY_MS {
            return None;
        }
        let due_ms = number.checked_mul(capture_ms)? as f64 / (embryos * planes) as f64;
        let due = Duration::from_secs_f64(due_ms / DAY_MS as f64 * settings.seconds_per_day);

        let (slide, well) = ((capture % embryos) % self.slides, (capture % embryos) / self.slides + 1);
        let culture_ms = u64::from(settings.days) * DAY_MS;
        let head_start_ms = FIRST_SLIDE_HPI * HOUR_MS + slide * culture_ms / self.slides;
        let age_ms = elapsed_ms + head_start_ms;
        let (generation, age_ms) = (age_ms / culture_ms, age_ms % culture_ms);

        let captured_at = self.era_start + TimeDelta::milliseconds(elapsed_ms as i64);
        let insemination_time = captured_at - TimeDelta::milliseconds(age_ms as i64);
        let incubator = slide / u64::from(settings.slides_per_incubator) + 1;
        let slide_id = format!(
            "D{}_S{:05}_I{incubator:04}",
            insemination_time.format("%Y.%m.%d"),
            generation * self.slides + slide + 1,
        );
        let slide_seed = mix(&[settings.seed, slide, generation]);
        let well = u32::try_from(well).ok()?;
        let index = u32::try_from(plane).ok()?;
        let steps = f64::from(index) - f64::from(settings.focal_planes / 2);
        Some(Shot {
            due,
            embryo_seed: mix(&[slide_seed, u64::from(well)]),
            hpi: age_ms as f64 / HOUR_MS as f64,
            exposure: Exposure {
                site_id: settings.site_id.clone(),
                instrument: Instrument {
                    vendor: "memebg".to_owned(),
                    model: "synthetic".to_owned(),
                    serial: format!("I{incubator:04}"),
                },
                embryo_id: format!("{slide_id}_P-{well}"),
                holder: Holder::Slide(slide_id),
                well,
                run: age_ms / capture_ms + 1,
                plane: FocalPlane {
                    index,
                    offset_um: steps * settings.focal_step_um,
                    count: settings.focal_planes,
                },
                captured_at,
                insemination_time,
                insemination_method: match Random::new(slide_seed).chance(0.6) {
                    true => InseminationMethod::Icsi,
                    false => InseminationMethod::Ivf,
                },
                time_zero_source: TimeZeroSource::Incubator,
            },
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// A room much like the demo's.
    pub(in super::super) fn demo() -> IncubatorSettings {
        IncubatorSettings {
            incubators: 4,
            slides_per_incubator: 4,
            wells_per_slide: 3,
            focal_planes: 5,
            focal_step_um: 15.0,
            capture_every_minutes: 60,
            image_side_px: 320,
            seconds_per_day: 60.0,
            days: 6,
            damaged_every: 20,
            resent_every: 20,
            seed: 1,
            site_id: "demo".to_owned(),
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_770_000_000_123).unwrap()
    }

    fn schedule(settings: &IncubatorSettings) -> Schedule {
        Schedule::new(settings, now()).unwrap()
    }

    fn is_selected(shot: &Shot) -> bool {
        shot.exposure.plane.offset_um == 0.0 && (110.0..120.0).contains(&shot.hpi)
    }

    /// Twenty minutes of the demo.
    fn shots(settings: &IncubatorSettings) -> Vec<Shot> {
        let schedule = schedule(settings);
        (0..)
            .map_while(|number| schedule.shot(number))
            .take_while(|shot| shot.due.as_secs() < 1_200)
            .collect()
    }

    #[test]
    fn the_demo_has_day_five_frames_in_every_five_seconds_from_the_first_on() {
        let shots = shots(&demo());
        let busy: HashSet<u64> =
            shots.iter().filter(|shot| is_selected(shot)).map(|shot| shot.due.as_secs() / 5).collect();
        assert_eq!(busy.len(), 240);
    }

    #[test]
    fn the_demo_sends_a_hundred_frames_a_second_of_which_one_or_two_are_wanted() {
        let shots = shots(&demo());
        let per_second = shots.len() as f64 / 1_200.0;
        let wanted = shots.iter().filter(|shot| is_selected(shot)).count() as f64 / 1_200.0;
        assert!((80.0..150.0).contains(&per_second), "{per_second}");
        assert!((1.0..3.0).contains(&wanted), "{wanted}");
    }

    #[test]
    fn photographs_come_in_order_each_once_and_the_run_of_an_embryo_rises_by_one() {
        let shots = shots(&demo());
        assert!(shots.is_sorted_by_key(|shot| shot.due));
        let mut runs: HashMap<&str, u64> = HashMap::new();
        for capture in shots.chunks_exact(5) {
            let first = &capture[0].exposure;
            let offsets: Vec<f64> = capture.iter().map(|shot| shot.exposure.plane.offset_um).collect();
            assert_eq!(offsets, [-30.0, -15.0, 0.0, 15.0, 30.0]);
            for shot in capture {
                assert_eq!((&shot.exposure.embryo_id, shot.exposure.run), (&first.embryo_id, first.run));
                assert_eq!(shot.exposure.captured_at, first.captured_at);
            }
            if let Some(before) = runs.insert(&first.embryo_id, first.run) {
                assert_eq!(first.run, before + 1);
            }
        }
        assert!(runs.len() > 48 + 100, "slides are replaced: {} embryos", runs.len());
    }

    #[test]
    fn the_simulated_clock_ends_the_run_before_it_overtakes_the_present() {
        let fast = IncubatorSettings { seconds_per_day: 1.0, ..demo() };
        let schedule = schedule(&fast);
        let captures_per_day = 24 * 48;
        let last = ERA_DAYS * captures_per_day * 5;
        let shot = schedule.shot(last).unwrap();
        assert!(shot.exposure.captured_at <= now());
        assert_eq!(shot.due.as_secs(), ERA_DAYS);
        assert!(schedule.shot(last + 5).is_none());
        assert!(schedule.shot(u64::MAX).is_none());
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_value() {
        let refused = |settings: IncubatorSettings| Schedule::new(&settings, now()).unwrap_err().to_string();
        assert_eq!(
            refused(IncubatorSettings { focal_planes: 4, ..demo() }),
            "incubator.focal_planes is 4: want an odd number up to 31"
        );
        assert!(refused(IncubatorSettings { days: 4, ..demo() }).starts_with("incubator.days is 4"));
        assert!(refused(IncubatorSettings { incubators: 0, ..demo() }).contains("incubators is 0"));
        assert!(refused(IncubatorSettings { seconds_per_day: f64::NAN, ..demo() }).contains("NaN"));
        assert!(refused(IncubatorSettings { focal_step_um: 0.0, ..demo() }).contains("focal_step_um"));
        assert!(!refused(IncubatorSettings { site_id: "Jane Doe".to_owned(), ..demo() }).contains("Jane"));
    }
}

//! Folders of ASTEC time-lapse incubators.
//!
//! ```text
//! 20260131093000/           start of the culture by the incubator's clock
//!   DishInfo.ini            wells, focal planes; also the patient, which is not read
//!   DISH4.json              insemination and UTC offset of that clock: the laboratory's, see `culture`
//!   DISH4/1021500/00012.jpg the twelfth picture of dish 4, taken 1 day, 2 hours, 15 minutes, 0 seconds later
//! ```
//!
//! The manufacturer's description is not public either. This is how programs of others that read such folders do it:
//! the pictures of a dish are numbered from 1 through the wells whose `Well<n>Avail` is 1, each with its
//! `Well<n>ZCount` planes, `Well<n>ZSliceUm` micrometres apart. Compare a picture of each well with the incubator's own
//! display before use. In which direction the planes rise is not known: the sign of `focal_offset_um` may be reversed;
//! the central plane is the central plane either way.
//!
//! `DishInfo.ini` is Shift_JIS. The keys and numbers that are read are ASCII, and no second byte of a Shift_JIS
//! character is a line end or `=`, so bytes are enough.

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta, TimeZone as _, Utc};

use super::culture::Culture;
use super::layout::{Candidate, stem_of};
use super::settings::AdapterSettings;
use super::{Refusal, number};
use crate::domain::{FocalPlane, Instrument};
use crate::incubator::{Exposure, Holder};

/// `DishInfo.ini` and the dish's file.
pub(super) fn companions(relative: &str) -> Result<Vec<String>, Refusal> {
    let place = Place::parse(relative)?;
    let start = place.start;
    Ok(vec![format!("{start}/DishInfo.ini"), format!("{start}/DISH{}.json", place.dish)])
}

/// When a culture began, by the name of its folder.
pub(super) fn start_time(name: &str) -> Option<NaiveDateTime> {
    number(name, "20", 12).filter(|_| name.len() == 14)?;
    NaiveDateTime::parse_from_str(name, "%Y%m%d%H%M%S").ok()
}

/// What a path says.
struct Place<'a> {
    start: &'a str,
    dish: u64,
    elapsed_seconds: u64,
    picture: u64,
}

impl<'a> Place<'a> {
    fn parse(relative: &'a str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = relative.split('/').collect();
        let parsed = || {
            let [start, dish, elapsed, _] = *parts else { return None };
            start_time(start)?;
            let stem = stem_of(relative);
            let dish_number = number(dish, "DISH", 2).filter(|it| *it > 0 && format!("DISH{it}") == dish)?;
            let digits = number(elapsed, "", 7).filter(|_| elapsed.len() == 7)?;
            let (days, hours) = (digits / 1_000_000, digits / 10_000 % 100);
            let (minutes, seconds) = (digits / 100 % 100, digits % 100);
            let is_time = hours < 24 && minutes < 60 && seconds < 60;
            let picture = number(stem, "", 5).filter(|it| *it > 0 && stem.len() == 5)?;
            let elapsed_seconds = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
            is_time.then_some(Self { start, dish: dish_number, elapsed_seconds, picture })
        };
        parsed().ok_or_else(|| {
            Refusal::wrong(
                "the path is not <yyyymmddhhmmss>/DISH<n>/<dhhmmss>/<nnnnn>.jpg below adapter.folder",
            )
        })
    }
}

/// The numbers of `DishInfo.ini` that are read. Not even kept: everything else.
struct DishInfo(HashMap<(String, String), u64>);

impl DishInfo {
    fn parse(bytes: &[u8], dish: u64) -> Result<Self, Refusal> {
        let section_of_dish = format!("Dish{dish}Info");
        let (mut section, mut numbers) = (String::new(), HashMap::new());
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if let Some(name) = line.strip_prefix(b"[").and_then(|line| line.strip_suffix(b"]")) {
                section = String::from_utf8_lossy(name).into_owned();
                continue;
            }
            let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = line.split_at(at);
            let (Ok(key), value) = (std::str::from_utf8(key.trim_ascii()), value.trim_ascii()) else {
                continue;
            };
            if !is_read(&section, key, &section_of_dish) {
                continue;
            }
            let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
            let value = std::str::from_utf8(value).ok().and_then(|value| number(value, "", 14));
            let value =
                value.ok_or_else(|| Refusal::not_yet(format!("{key} of DishInfo.ini is no number")))?;
            if numbers.insert((section.clone(), key.to_owned()), value).is_some() {
                return Err(Refusal::not_yet(format!("{key} stands twice in DishInfo.ini")));
            }
        }
        Ok(Self(numbers))
    }

    fn get(&self, section: &str, key: &str) -> Result<u64, Refusal> {
        let found = self.0.get(&(section.to_owned(), key.to_owned())).copied();
        found.ok_or_else(|| Refusal::not_yet(format!("DishInfo.ini has no {key} in [{section}]")))
    }

    /// Well, index within its planes, number of planes, micrometres between them.
    fn well_of(&self, dish: u64, picture: u64) -> Result<(u32, u32, u32, f64), Refusal> {
        let section = format!("Dish{dish}Info");
        if self.get(&section, "Avail")? != 1 {
            return Err(Refusal::not_yet(format!("DishInfo.ini says that dish {dish} is not in use")));
        }
        let wells = self.get("Timelapse", "WellCount")?.min(1_000);
        let mut first = 1;
        for well in 1..=wells {
            if self.get(&section, &format!("Well{well}Avail"))? != 1 {
                continue;
            }
            let planes = self.get(&section, &format!("Well{well}ZCount"))?;
            if (first..first + planes).contains(&picture) {
                let step = self.get(&section, &format!("Well{well}ZSliceUm"))?;
                let fits = [well, picture - first, planes, step].map(u32::try_from);
                let [Ok(well), Ok(index), Ok(planes), Ok(step)] = fits else { break };
                return Ok((well, index, planes, f64::from(step)));
            }
            first += planes;
        }
        Err(Refusal::wrong(format!("DishInfo.ini has no well with picture {picture}")))
    }
}

/// The whitelist.
fn is_read(section: &str, key: &str, section_of_dish: &str) -> bool {
    let well = || {
        let rest = key.strip_prefix("Well")?;
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        ["Avail", "ZCount", "ZSliceUm"].contains(&rest).then_some(())
    };
    (section == "Timelapse" && ["StartTime", "WellCount"].contains(&key))
        || (section == section_of_dish && (key == "Avail" || well().is_some()))
}

pub(super) fn describe(
    file: &Candidate<'_>,
    dish_info: &[u8],
    dish_file: &[u8],
    settings: &AdapterSettings,
) -> Result<Exposure, Refusal> {
    let place = Place::parse(file.relative)?;
    let info = DishInfo::parse(dish_info, place.dish)?;
    if Ok(info.get("Timelapse", "StartTime")?) != place.start.parse::<u64>() {
        return Err(Refusal::wrong("StartTime of DishInfo.ini is not the name of its folder"));
    }
    let (well, index, count, step_um) = info.well_of(place.dish, place.picture)?;
    let culture = Culture::read("the dish's file", dish_file)?;
    let elapsed = TimeDelta::seconds(i64::try_from(place.elapsed_seconds).unwrap_or(0));
    let start = start_time(place.start).zip(Some(culture.utc_offset()?));
    let start = start.and_then(|(start, offset)| offset.from_local_datetime(&start).single());
    let start = start.ok_or_else(|| Refusal::wrong("the culture's start is no time"))?;
    let dish_id = format!("A{}_{}_DISH{}", place.start, settings.instrument_serial, place.dish);
    Ok(Exposure {
        site_id: settings.site_id.clone(),
        instrument: Instrument {
            vendor: settings.instrument_vendor.clone(),
            model: settings.instrument_model.clone(),
            serial: settings.instrument_serial.clone(),
        },
        embryo_id: format!("{dish_id}_W{well}"),
        holder: Holder::Dish(dish_id),
        well,
        // Rises with time, and is the same for all planes of a capture.
        run: place.elapsed_seconds,
        plane: FocalPlane { index, offset_um: step_um * (f64::from(index) - f64::from(count / 2)), count },
        captured_at: start.with_timezone(&Utc) + elapsed,
        insemination_time: culture.insemination_time,
        insemination_method: culture.insemination_method,
        time_zero_source: culture.time_zero_source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{candidate, settings};

    /// Wells 1 and 3 are in use. The patient's name is Shift_JIS, with a `[` as the second byte of a character.
    const INI: &[u8] = b"[Timelapse]\r\nStartTime=20260131093000\r\nDishCount=9\r\nWellCount=3\r\n[IncubatorInfo]\r\n\
        IncubatorName=Doe\r\n[Dish3Info]\r\nAvail=0\r\n[Dish4Info]\r\nAvail=1\r\nPatientName=\x83\x5b\x83\x5d=Doe\r\n\
        PID1=12345678\r\nWell1Avail=1\r\nWell1ZCount=3\r\nWell1ZSliceUm=10\r\nWell2Avail=0\r\nWell2ZCount=0\r\n\
        Well2ZSliceUm=0\r\nWell3Avail=1\r\nWell3ZCount=3\r\nWell3ZSliceUm=20\r\nComment=\x83\x5b\r\n";
    const DISH: &[u8] = br#"{"insemination_time": "2026-01-31T08:00:00+09:00", "insemination_method": "IVF",
        "time_zero_source": "manual", "incubator_utc_offset": "+09:00", "patient": "Doe"}"#;

    fn astec() -> AdapterSettings {
        AdapterSettings { instrument_serial: "CCM1".into(), ..settings() }
    }

    fn described(path: &str, ini: &[u8]) -> Result<Exposure, Refusal> {
        describe(&candidate(path), ini, DISH, &astec())
    }

    #[test]
    fn pictures_are_counted_through_the_wells_in_use() {
        for (picture, well, index, offset_um) in
            [("00001", 1, 0, -10.0), ("00003", 1, 2, 10.0), ("00004", 3, 0, -20.0), ("00005", 3, 1, 0.0)]
        {
            let frame = described(&format!("20260131093000/DISH4/4221500/{picture}.jpg"), INI).unwrap();
            assert_eq!((frame.well, frame.plane), (well, FocalPlane { index, offset_um, count: 3 }));
            assert_eq!(frame.embryo_id, format!("A20260131093000_CCM1_DISH4_W{well}"));
            assert_eq!(frame.captured_at.to_rfc3339(), "2026-02-04T22:45:00+00:00");
            assert_eq!(frame.run, ((4 * 24 + 22) * 60 + 15) * 60);
        }
        let companions = companions("20260131093000/DISH4/4221500/00001.jpg").unwrap();
        assert_eq!(companions, ["20260131093000/DishInfo.ini", "20260131093000/DISH4.json"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_of_it_is_repeated() {
        for path in [
            "20260131093000/DISH4/4221500/1.jpg",
            "20260131093000/DISH4/4241500/00001.jpg",
            "20260131093000/DISH04/4221500/00001.jpg",
            "20261331093000/DISH4/4221500/00001.jpg",
            "Doe/20260131093000/DISH4/4221500/00001.jpg",
            "20260131093000/DISH4/Doe/00001.jpg",
            "20260131093000/DISH4/4221500/00007.jpg",
            "20260131093000/DISH3/4221500/00001.jpg",
            "20260131093000/DISH5/4221500/00001.jpg",
            "20260131093001/DISH4/4221500/00001.jpg",
        ] {
            let refusal = described(path, INI).unwrap_err();
            assert!(!refusal.message.contains("Doe"), "{path}: {}", refusal.message);
        }
    }

    #[test]
    fn a_number_that_is_none_or_stands_twice_is_refused_without_its_value() {
        for (was, is) in [
            ("Well3ZCount=3", "Well3ZCount=Doe"),
            ("Well3ZCount=3", "Well3ZCount="),
            ("Well3ZCount=3", ""),
            ("Well3ZCount=3", "Well3ZCount=3\nWell3ZCount=5"),
            ("StartTime=20260131093000", "StartTime=0"),
        ] {
            let ini = INI.to_vec();
            let at = ini.windows(was.len()).position(|window| window == was.as_bytes()).unwrap();
            let ini = [&ini[..at], is.as_bytes(), &ini[at + was.len()..]].concat();
            let refusal = described("20260131093000/DISH4/4221500/00005.jpg", &ini).unwrap_err();
            assert!(!refusal.message.contains("Doe"), "{}", refusal.message);
        }
    }

    #[test]
    fn without_the_offset_of_the_incubators_clock_nothing_is_sent() {
        let dish = br#"{"insemination_time": "2026-01-31T08:00:00+09:00", "insemination_method": "IVF",
            "time_zero_source": "manual"}"#;
        let file = candidate("20260131093000/DISH4/4221500/00001.jpg");
        let refusal = describe(&file, INI, dish, &astec()).unwrap_err();
        assert!(refusal.may_pass && refusal.message.contains("incubator_utc_offset"));
    }
}

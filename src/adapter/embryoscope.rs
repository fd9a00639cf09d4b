//! EmbryoScope-style names.
//!
//! Taken are names of exactly this form:
//!
//! ```text
//! D2026.01.31_S00001_I0001_P-3_WELL3_RUN123[_FP4].jpeg
//! └─ slide ─────────────┘ │   │     │       └ focal plane, where adapter.plane_names says that names have it
//!                         │   │     └ run: number of the capture
//!                         │   └ well
//!                         └ P, or P and the well: the end of the embryo id
//! ```
//!
//! The manufacturer's description of its exports is not public, and no real export was at hand: compare some frames with
//! the incubator's display first. What the number behind `P` means is known from ids
//! alone; where it is not that of the well, the name is refused rather than two embryos taken for one.
//!
//! Names hold neither insemination nor capture times. Those of a slide stand in `<slide>.json`, beside its images or,
//! where the planes have folders (`F-15`, `F0`, `F15`), beside those.

use chrono::NaiveDate;

use super::culture::Culture;
use super::layout::{Candidate, folder_of, stem_of};
use super::settings::{AdapterSettings, CapturedAt, PlaneNames};
use super::{Refusal, number};
use crate::domain::{FocalPlane, Instrument};
use crate::incubator::{Exposure, Holder};

/// What a name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// `D2026.01.31_S00001_I0001`.
    slide: String,
    /// `I0001`.
    serial: String,
    well: u32,
    run: u64,
    plane: Option<usize>,
}

impl Name {
    /// Reads a name without its extension; `None` when it has another form.
    pub(super) fn parse(stem: &str) -> Option<Self> {
        let parts: Vec<&str> = stem.split('_').collect();
        let (parts, plane) = match parts.as_slice() {
            [head @ .., last] if last.starts_with("FP") => (head, Some(number(last, "FP", 3)?)),
            all => (all, None),
        };
        let [day, slide, serial, patient, well, run] = *parts else { return None };
        let well = number(well, "WELL", 3)?;
        let agrees = patient == "P" || number(patient, "P-", 3)? == well;
        if !is_slide_of(day, slide, serial) || !agrees {
            return None;
        }
        Some(Self {
            slide: [day, slide, serial].join("_"),
            serial: serial.to_owned(),
            well: u32::try_from(well).ok()?,
            run: number(run, "RUN", 9)?,
            plane: plane.map(usize::try_from).transpose().ok()?,
        })
    }
}

/// Whether it is `D2026.01.31_S00001_I0001`.
pub(super) fn is_slide(id: &str) -> bool {
    let parts: Vec<&str> = id.split('_').collect();
    matches!(*parts, [day, slide, serial] if is_slide_of(day, slide, serial))
}

/// Whether it is `D2026.01.31_S00001_I0001_P-3`.
pub(super) fn is_embryo(id: &str) -> bool {
    let Some((slide, patient)) = id.rsplit_once('_') else { return false };
    is_slide(slide) && number(patient, "P-", 3).is_some()
}

fn is_slide_of(day: &str, slide: &str, serial: &str) -> bool {
    let date = day.strip_prefix('D').filter(|date| date.len() == 10);
    date.is_some_and(|date| NaiveDate::parse_from_str(date, "%Y.%m.%d").is_ok())
        && number(slide, "S", 9).is_some()
        && number(serial, "I", 9).is_some()
}

/// The offset that a folder `F-15` stands for, micrometres.
pub(super) fn plane_folder(name: &str) -> Option<i32> {
    let digits = name.strip_prefix('F')?;
    let size = i32::try_from(number(digits.strip_prefix('-').unwrap_or(digits), "", 3)?).ok()?;
    // `F-0` and `F007` are nobody's spelling, and two folders of one plane would be two planes.
    Some(if digits.starts_with('-') { -size } else { size }).filter(|um| format!("F{um}") == name)
}

/// The slide's file.
pub(super) fn companion(relative: &str, settings: &AdapterSettings) -> Result<String, Refusal> {
    let name = name_of(relative)?;
    let mut folder = folder_of(relative);
    if settings.plane_names == PlaneNames::Folder {
        folder = folder_of(folder);
    }
    let separator = if folder.is_empty() { "" } else { "/" };
    Ok(format!("{folder}{separator}{}.json", name.slide))
}

pub(super) fn describe(
    file: &Candidate<'_>,
    slide_file: &[u8],
    settings: &AdapterSettings,
) -> Result<Exposure, Refusal> {
    let name = name_of(file.relative)?;
    let plane = plane_of(&name, file.relative, settings)?;
    let culture = Culture::read("the slide's file", slide_file)?;
    let captured_at = match settings.captured_at {
        CapturedAt::Modified => file.modified,
        CapturedAt::SlideFile => culture.captured_at(name.run)?,
    };
    Ok(Exposure {
        site_id: settings.site_id.clone(),
        instrument: Instrument {
            vendor: settings.instrument_vendor.clone(),
            model: settings.instrument_model.clone(),
            serial: name.serial,
        },
        embryo_id: format!("{}_P-{}", name.slide, name.well),
        holder: Holder::Slide(name.slide),
        well: name.well,
        run: name.run,
        plane,
        captured_at,
        insemination_time: culture.insemination_time,
        insemination_method: culture.insemination_method,
        time_zero_source: culture.time_zero_source,
    })
}

fn name_of(relative: &str) -> Result<Name, Refusal> {
    Name::parse(stem_of(relative)).ok_or_else(|| {
        Refusal::wrong(
            "the name is not D<date>_S<slide>_I<instrument>_P[-<well>]_WELL<well>_RUN<run>[_FP<plane>], with the \
             same well twice",
        )
    })
}

fn plane_of(name: &Name, relative: &str, settings: &AdapterSettings) -> Result<FocalPlane, Refusal> {
    let offsets = &settings.focal_offsets_um;
    let index = match (settings.plane_names, name.plane) {
        (PlaneNames::None, None) => Some(0),
        (PlaneNames::From0, Some(number)) => Some(number),
        (PlaneNames::From1, Some(number)) => number.checked_sub(1),
        (PlaneNames::Folder, None) => {
            let folder = folder_of(relative);
            let um = plane_folder(stem_less(folder));
            um.and_then(|um| offsets.iter().position(|offset| (offset - f64::from(um)).abs() < 1e-9))
        }
        _ => None,
    };
    let found = index.and_then(|index| Some((u32::try_from(index).ok()?, *offsets.get(index)?)));
    let (index, offset_um) = found.ok_or_else(|| {
        Refusal::wrong(
            "its focal plane is none of adapter.focal_offsets_um, read as adapter.plane_names says",
        )
    })?;
    let count = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
    Ok(FocalPlane { index, offset_um, count })
}

/// The last folder of a path.
fn stem_less(folder: &str) -> &str {
    folder.rsplit('/').next().unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{candidate, settings};

    const SLIDE: &str = "D2026.01.31_S00001_I0001";
    const FILE: &[u8] = br#"{"insemination_time": "2026-01-31T10:00:00Z", "insemination_method": "ICSI",
        "time_zero_source": "emr", "patient_name": "Jane Doe", "captures": {"12": "2026-02-05T06:00:00+01:00"}}"#;

    fn embryoscope() -> AdapterSettings {
        AdapterSettings { focal_offsets_um: vec![-15.0, 0.0, 15.0], ..settings() }
    }

    fn described(path: &str, settings: &AdapterSettings) -> Result<Exposure, Refusal> {
        describe(&candidate(path), FILE, settings)
    }

    #[test]
    fn a_name_in_a_plane_folder_and_the_slide_file_make_a_frame() {
        let path = format!("week 5/F-15/{SLIDE}_P_WELL3_RUN12.jpeg");
        assert_eq!(companion(&path, &embryoscope()).unwrap(), format!("week 5/{SLIDE}.json"));
        let frame = described(&path, &embryoscope()).unwrap();
        assert_eq!(frame.embryo_id, format!("{SLIDE}_P-3"));
        assert!(matches!(frame.holder, Holder::Slide(slide) if slide == SLIDE));
        assert_eq!((frame.well, frame.run, frame.instrument.serial.as_str()), (3, 12, "I0001"));
        assert_eq!(frame.plane, FocalPlane { index: 0, offset_um: -15.0, count: 3 });
        assert_eq!(frame.captured_at.to_rfc3339(), "2026-02-05T05:00:00+00:00");
        assert_eq!(frame.insemination_time.to_rfc3339(), "2026-01-31T10:00:00+00:00");
        assert_eq!(frame.time_zero_source.as_str(), "emr");
    }

    #[test]
    fn planes_are_counted_as_the_setting_says_and_never_guessed() {
        let named = |plane_names| AdapterSettings { plane_names, ..embryoscope() };
        let path = |plane: &str| format!("{SLIDE}_P-3_WELL3_RUN12{plane}.jpg");
        for (plane_names, plane, index) in [
            (PlaneNames::From0, "_FP0", Some(0)),
            (PlaneNames::From0, "_FP2", Some(2)),
            (PlaneNames::From0, "_FP3", None),
            (PlaneNames::From1, "_FP0", None),
            (PlaneNames::From1, "_FP3", Some(2)),
            (PlaneNames::From1, "", None),
            (PlaneNames::Folder, "_FP1", None),
            (PlaneNames::Folder, "", None),
        ] {
            let found = described(&path(plane), &named(plane_names)).ok().map(|frame| frame.plane.index);
            assert_eq!(found, index, "{plane_names:?} {plane}");
        }
        assert_eq!(plane_folder("F15"), Some(15));
        assert!(
            ["F", "F-", "F-0", "F007", "F+15", "F1.5", "G15"].iter().all(|name| plane_folder(name).is_none())
        );
    }

    #[test]
    fn a_name_of_another_form_is_refused_without_repeating_it() {
        for name in [
            "Doe_Jane",
            "D2026.01.31_S00001_I0001_P-2_WELL3_RUN12",
            "D2026.02.31_S00001_I0001_P_WELL3_RUN12",
            "D2026.1.31_S00001_I0001_P_WELL3_RUN12",
            "D2026.01.31_S00001_I0001_P_WELL3_RUN",
            "D2026.01.31_S00001_I0001_P_WELL3_RUN+1",
            "D2026.01.31_S00001_I0001_P_WELL3_RUN12_copy",
            "D2026.01.31_S00001_I0001_PDoe_WELL3_RUN12",
            "D2026.01.31_S00001_I0001_P_WELL3_RUN12_FP",
        ] {
            let refusal = described(&format!("F0/{name}.jpg"), &embryoscope()).unwrap_err();
            assert!(!refusal.may_pass && !refusal.message.contains("Doe"), "{name}");
        }
    }

    #[test]
    fn a_run_whose_time_is_not_in_the_slide_file_waits_and_the_modification_time_is_taken_only_when_asked_for()
     {
        let path = format!("F0/{SLIDE}_P_WELL3_RUN13.jpeg");
        let refusal = described(&path, &embryoscope()).unwrap_err();
        assert!(refusal.may_pass && refusal.message.contains("run 13"), "{}", refusal.message);
        let modified = AdapterSettings { captured_at: CapturedAt::Modified, ..embryoscope() };
        assert_eq!(described(&path, &modified).unwrap().captured_at, candidate(&path).modified);
    }
}

//! A JSON file beside each image, `x.json` beside `x.jpg`, with the fields of the frame event but for `image`.

use serde::Deserialize;

use super::layout::{folder_of, stem_of};
use super::pseudonym::Pseudonyms;
use super::settings::AdapterSettings;
use super::{Refusal, time};
use crate::domain::{FocalPlane, InseminationMethod, Instrument, Rejection, TimeZeroSource};
use crate::incubator::{Exposure, Holder};

/// The fields that are read; any other is left where it is.
#[derive(Deserialize)]
struct Sidecar {
    site_id: String,
    instrument: Maker,
    slide_id: Option<String>,
    dish_id: Option<String>,
    well: u32,
    embryo_id: String,
    run: u64,
    focal_plane_index: u32,
    focal_offset_um: f64,
    focal_plane_count: u32,
    captured_at: String,
    insemination_time: String,
    insemination_method: InseminationMethod,
    time_zero_source: TimeZeroSource,
}

/// [`Instrument`], which refuses other fields, without them.
#[derive(Deserialize)]
struct Maker {
    vendor: String,
    model: String,
    serial: String,
}

/// The JSON file of an image.
pub(super) fn companion(relative: &str) -> String {
    let folder = folder_of(relative);
    let separator = if folder.is_empty() { "" } else { "/" };
    format!("{folder}{separator}{}.json", stem_of(relative))
}

pub(super) fn describe(
    json: &[u8],
    settings: &AdapterSettings,
    pseudonyms: &Pseudonyms,
) -> Result<Exposure, Refusal> {
    let sidecar: Sidecar = serde_json::from_slice(json)
        .map_err(|error| Refusal::not_yet(Rejection::unreadable("a sidecar", &error).message))?;
    if sidecar.site_id != settings.site_id {
        return Err(Refusal::wrong("site_id of the sidecar is not adapter.site_id"));
    }
    let holder = match (&sidecar.slide_id, &sidecar.dish_id) {
        (Some(slide), None) => Holder::Slide(pseudonyms.of("slide_id", slide)?),
        (None, Some(dish)) => Holder::Dish(pseudonyms.of("dish_id", dish)?),
        _ => return Err(Refusal::wrong("the sidecar needs exactly one of slide_id and dish_id")),
    };
    Ok(Exposure {
        site_id: sidecar.site_id,
        instrument: Instrument {
            vendor: sidecar.instrument.vendor,
            model: sidecar.instrument.model,
            serial: sidecar.instrument.serial,
        },
        holder,
        well: sidecar.well,
        embryo_id: pseudonyms.of("embryo_id", &sidecar.embryo_id)?,
        run: sidecar.run,
        plane: FocalPlane {
            index: sidecar.focal_plane_index,
            offset_um: sidecar.focal_offset_um,
            count: sidecar.focal_plane_count,
        },
        captured_at: time("captured_at", &sidecar.captured_at)?,
        insemination_time: time("insemination_time", &sidecar.insemination_time)?,
        insemination_method: sidecar.insemination_method,
        time_zero_source: sidecar.time_zero_source,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::adapter::tests::{settings, sidecar};

    fn described(json: &Value) -> Result<Exposure, Refusal> {
        let settings = settings();
        describe(json.to_string().as_bytes(), &settings, &Pseudonyms::open(&settings).unwrap())
    }

    #[test]
    fn a_sidecar_says_everything_but_the_image() {
        let frame = described(&sidecar(2, 12)).unwrap();
        assert_eq!((frame.embryo_id.as_str(), frame.run), ("D2026.01.31_S00001_I0001_P-2", 12));
        assert_eq!(frame.captured_at.to_rfc3339(), "2026-02-05T06:00:00+00:00");
        assert_eq!((companion("a/b.c.jpg"), companion("x.png")), ("a/b.c.json".into(), "x.json".into()));
    }

    #[test]
    fn whatever_is_missing_or_wrong_is_named_and_never_repeated() {
        let fields = sidecar(2, 12).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for field in fields {
            let mut without = sidecar(2, 12);
            without.as_object_mut().unwrap().remove(&field);
            let refusal = described(&without).unwrap_err();
            assert!(refusal.message.contains(&field), "{field}: {}", refusal.message);
            let mut wrong = sidecar(2, 12);
            wrong[&field] = json!("Jane Doe");
            let refusal = described(&wrong).unwrap_err();
            assert!(!refusal.message.contains("Doe"), "{field}: {}", refusal.message);
        }
        let mut both = sidecar(2, 12);
        both["dish_id"] = json!("D2026.01.31_S00001_I0001");
        assert!(described(&both).unwrap_err().message.contains("exactly one"));
    }

    #[test]
    fn a_sidecar_that_is_cut_short_may_still_become_whole() {
        let settings = settings();
        let pseudonyms = Pseudonyms::open(&settings).unwrap();
        let refusal = describe(br#"{"site_id": "nor"#, &settings, &pseudonyms).unwrap_err();
        assert!(refusal.may_pass, "{}", refusal.message);
    }
}

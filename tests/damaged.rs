//! Real photographs and real frame events, damaged at random, through the functions that the pipeline calls: each is
//! a picture, a frame within the schema, or a rejection that says why; nothing panics and nothing takes long.
//!
//! Some seconds. For longer: `PROPTEST_CASES=100000 cargo test --test damaged`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use image::{DynamicImage, ImageFormat};
use memebg::domain::{FRAME_EVENT_TYPE, Image, ImageLocation, MediaType, Rejection, RejectionCode};
use memebg::incubator::{Embryo, Renderer};
use memebg::pipeline::decode::{DecodeSettings, from_base64, picture};
use memebg::pipeline::event;
use memebg::pipeline::message::{MessageView, Position};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const SIDE_PX: usize = 32;
const LIMITS: DecodeSettings = DecodeSettings { max_image_bytes: 300_000, max_pixels: 300_000, threads: 1 };
const MAX_VALUE_BYTES: usize = 20_000;
/// A thousand times what the slowest takes on an idle machine.
const LONG: Duration = Duration::from_secs(20);

/// A thing done to bytes. Places count from the beginning, as a share of the length.
#[derive(Debug, Clone)]
enum Damage {
    FlipBit(f64, u8),
    Cut(f64),
    Remove(f64, usize),
    /// Says a piece twice.
    Repeat(f64, usize),
    /// Brings a piece of another file in.
    Splice(f64, f64, usize),
    /// Writes what lengths, counts and offsets are worst at, in either byte order.
    Number(f64, u32, bool, bool),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let place = || 0.0..1.0;
    let number =
        prop::sample::select(vec![0, 1, 2, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, u32::MAX, 0x8000_0000]);
    let one = prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::FlipBit(at, bit)),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), 1..64_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (place(), 1..4_096_usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        1 => (place(), place(), 1..512_usize).prop_map(|(at, from, length)| Damage::Splice(at, from, length)),
        3 => (place(), number, any::<bool>(), any::<bool>())
            .prop_map(|(at, number, wide, big)| Damage::Number(at, number, wide, big)),
    ];
    prop::collection::vec(one, 1..6)
}

/// Half of it strikes the first 64 bytes, where headers are.
fn inflict(bytes: &mut Vec<u8>, damage: &[Damage], other: &[u8], headers_only: bool) {
    for one in damage {
        let within = if headers_only { bytes.len().min(64) } else { bytes.len() };
        let place =
            |share: f64, length: usize| ((share * length as f64) as usize).min(length.saturating_sub(1));
        match *one {
            Damage::FlipBit(at, bit) => {
                let at = place(at, within);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Damage::Cut(at) => bytes.truncate(place(at, within)),
            Damage::Remove(at, length) => {
                let at = place(at, within);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Damage::Repeat(at, length) => {
                let at = place(at, within);
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Damage::Splice(at, from, length) => {
                let (at, from) = (place(at, within), place(from, other.len()));
                let piece = &other[from..(from + length).min(other.len())];
                bytes.splice(at..(at + length).min(bytes.len()), piece.iter().copied());
            }
            Damage::Number(at, number, wide, big) => {
                let width = if wide { 4 } else { 2 };
                let mut piece = number.to_le_bytes()[..width].to_vec();
                if big {
                    piece.reverse();
                }
                let at = place(at, within);
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, piece);
            }
        }
    }
}

/// Makes the checksums of a PNG's chunks right again: else nothing behind them is ever reached.
fn mend_checksums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (Some(named), Some(place)) = (png.get(at + 4..at + 8 + length), at.checked_add(12 + length))
        else {
            return;
        };
        let checksum = crc32fast::hash(named);
        let Some(old) = png.get_mut(place - 4..place) else { return };
        old.copy_from_slice(&checksum.to_be_bytes());
        at = place;
    }
}

struct Photograph {
    media_type: MediaType,
    bytes: Vec<u8>,
    width: u32,
    height: u32,
}

/// In every format and kind of pixel that is accepted; two JPEGs come from cameras.
static PHOTOGRAPHS: LazyLock<Vec<Photograph>> = LazyLock::new(|| {
    let drawn = DynamicImage::from(Renderer::new(64).render(&Embryo::new(7), 116.0, 0.0));
    let kinds = [drawn.clone(), drawn.to_rgb8().into(), drawn.to_luma16().into(), drawn.to_rgba16().into()];
    let formats = [
        (MediaType::Jpeg, ImageFormat::Jpeg),
        (MediaType::Png, ImageFormat::Png),
        (MediaType::Bmp, ImageFormat::Bmp),
        (MediaType::Tiff, ImageFormat::Tiff),
    ];
    let mut photographs = Vec::new();
    for (media_type, format) in formats {
        for kind in &kinds {
            let mut bytes = std::io::Cursor::new(Vec::new());
            // Not every format holds every kind of pixel.
            if kind.write_to(&mut bytes, format).is_ok() {
                photographs.push(Photograph { media_type, bytes: bytes.into_inner(), width: 64, height: 64 });
            }
        }
    }
    for bytes in [&include_bytes!("pictures/cat.jpg")[..], include_bytes!("pictures/cell.jpg")] {
        let picture = image::load_from_memory(bytes).expect("a picture");
        let (width, height) = (picture.width(), picture.height());
        photographs.push(Photograph { media_type: MediaType::Jpeg, bytes: bytes.to_vec(), width, height });
    }
    photographs
});

fn describing(bytes: &[u8], photograph: &Photograph) -> Image {
    Image {
        location: ImageLocation::Inline,
        sha256: hex::encode(Sha256::digest(bytes)),
        media_type: photograph.media_type,
        bytes: bytes.len() as u64,
        width: photograph.width,
        height: photograph.height,
    }
}

const EVENTS: [&str; 5] = [
    include_str!("../schemas/examples/frame/by_uri.json"),
    include_str!("../schemas/examples/frame/dish.json"),
    include_str!("../schemas/examples/frame/inline_jpeg.json"),
    include_str!("../schemas/examples/frame/outer_plane_png.json"),
    include_str!("../schemas/examples/frame/whole_numbers_written_as_floats.json"),
];
/// What may stand in the place of a value.
const VALUES: [&str; 16] = [
    "0",
    "1001",
    "null",
    "true",
    "-1",
    "1e308",
    "0.5",
    "99999999999999999999",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "1",
    "[[[[]]]]",
    "\"2026-01-31T12:10:00Z\"",
];
static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../schemas/frame.v1.schema.json")).expect("JSON");
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema")
});

/// Puts one of `VALUES` behind a colon.
fn replace_value(json: &mut Vec<u8>, which: usize, value: &str) {
    let colons: Vec<_> =
        json.windows(2).enumerate().filter(|(_, two)| *two == b"\":").map(|(at, _)| at + 2).collect();
    let Some(&start) = colons.get(which % colons.len().max(1)) else { return };
    let length = json[start..].iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(0);
    json.splice(start..start + length, value.bytes());
}

fn check_rejection(rejection: &Rejection) -> Result<(), TestCaseError> {
    prop_assert!(!rejection.message.is_empty() && rejection.message.chars().count() <= 1_000);
    prop_assert!(!rejection.message.contains("panicked"), "{}", rejection);
    Ok(())
}

/// Some seconds of cases, unless the environment asks for more.
fn config(usual_cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = cases.unwrap_or(usual_cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn a_damaged_photograph_is_a_picture_or_a_rejection(
        which in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        damage in damage(),
        headers_only in any::<bool>(),
        mended in any::<bool>(),
    ) {
        let photograph = which.get(&PHOTOGRAPHS);
        let mut bytes = photograph.bytes.clone();
        inflict(&mut bytes, &damage, &other.get(&PHOTOGRAPHS).bytes, headers_only);
        if mended && photograph.media_type == MediaType::Png {
            mend_checksums(&mut bytes);
        }
        let began = Instant::now();
        let result = picture(&bytes, &describing(&bytes, photograph), &LIMITS, SIDE_PX);
        prop_assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        match result {
            Ok(decoded) => {
                prop_assert_eq!(decoded.picture.grey().len(), SIDE_PX * SIDE_PX);
                let statistics = decoded.statistics;
                for value in [statistics.sharpness, statistics.mean_grey, statistics.contrast] {
                    prop_assert!(value.is_finite() && value >= 0.0, "{:?}", statistics);
                }
                prop_assert!(statistics.mean_grey <= 255.0);
            }
            Err(rejection) => {
                check_rejection(&rejection)?;
                let expected = [
                    RejectionCode::ImageUndecodable,
                    RejectionCode::ImageTooManyPixels,
                    RejectionCode::ImageSizeMismatch,
                    RejectionCode::ImageTooLarge,
                ];
                prop_assert!(expected.contains(&rejection.code), "{}", rejection);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(15_000))]

    #[test]
    fn a_damaged_frame_event_is_a_frame_within_the_schema_or_a_rejection(
        which in 0..EVENTS.len(),
        other in 0..EVENTS.len(),
        damage in prop::option::of(damage()),
        values in prop::collection::vec((any::<usize>(), prop::sample::select(VALUES.to_vec())), 0..3),
        structured in any::<bool>(),
    ) {
        let mut json = EVENTS[which].as_bytes().to_vec();
        for (place, value) in values {
            replace_value(&mut json, place, value);
        }
        if structured {
            let envelope = format!(r#"{{"specversion":"1.0","type":"{FRAME_EVENT_TYPE}","source":"/s","id":"1","data":"#);
            json = [envelope.as_bytes(), &json, b"}"].concat();
        }
        if let Some(damage) = damage {
            inflict(&mut json, &damage, EVENTS[other].as_bytes(), false);
        }
        let headers = if structured { vec![("content-type", Some(&b"application/cloudevents+json"[..]))] } else { vec![] };
        let message = MessageView {
            topic: "frames",
            position: Position { partition: 0, offset: 0 },
            key: None,
            value: Some(&json),
            headers,
            timestamp_ms: None,
        };
        let now: DateTime<Utc> = "2026-02-01T00:00:00Z".parse().unwrap();
        let mut scratch = Vec::new();
        let read = event::read(&message, MAX_VALUE_BYTES, &mut scratch);
        let read = read.and_then(|read| Ok((read.event.validate(now, 300)?, read.event)));
        match read {
            Err(rejection) => check_rejection(&rejection)?,
            Ok((clocks, event)) => {
                let value: serde_json::Value = serde_json::from_slice(&json).expect("it was read");
                let value = if structured { &value["data"] } else { &value };
                let complaints: Vec<_> = SCHEMA.iter_errors(value).map(|error| error.to_string()).collect();
                prop_assert!(complaints.is_empty(), "{:?} in {}", complaints, value);
                prop_assert!(clocks.hpi.is_finite() && clocks.hpi >= 0.0);
                let frame = event.to_frame(clocks);
                prop_assert!(frame.id.embryo_id.len() <= 128 && frame.plane.index < frame.plane.count);
                if let Some(data) = &event.image.data {
                    match from_base64(data.0.as_bytes(), 100) {
                        Ok(image) => prop_assert!(image.len() <= 100),
                        Err(rejection) => check_rejection(&rejection)?,
                    }
                }
            }
        }
    }
}

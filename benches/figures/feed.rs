//! Frame events as time-lapse incubators send them: 500 x 500 px JPEGs of about 45 kB, inline, 7 focal planes.

use std::sync::{Arc, Mutex};

use base64_simd::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use image::GrayImage;
use image::codecs::jpeg::JpegEncoder;
use memebg::incubator::{Embryo, Renderer};
use sha2::{Digest, Sha256};

pub const SIDE_PX: u32 = 500;
/// Gives about 45 kB, hence 60 kB as base64.
const JPEG_QUALITY: u8 = 93;
const PLANES: u64 = 7;
const CENTRAL: u64 = PLANES / 2;
/// Capture interval of 20 minutes.
const CAPTURES_PER_HOUR: f64 = 3.0;
/// Different photographs; the frames share them.
const PHOTOGRAPHS: u64 = 32;

/// Key and value of a message.
pub type Message = (String, Vec<u8>);

/// An encoded photograph, ready to be put into events.
pub struct Photograph {
    pub jpeg: Vec<u8>,
    base64: String,
    sha256: String,
}

impl Photograph {
    pub fn new(jpeg: Vec<u8>) -> Self {
        let (base64, sha256) = (STANDARD.encode_to_string(&jpeg), hex::encode(Sha256::digest(&jpeg)));
        Self { jpeg, base64, sha256 }
    }

    /// What the photograph of a drawn day-5 embryo takes.
    pub fn of_embryo(seed: u64) -> Self {
        Self::new(jpeg(&drawn(seed)))
    }

    /// So many bytes that are no photograph, for frames that nobody looks at.
    pub fn never_looked_at(bytes: usize) -> Self {
        Self::new((0..bytes).map(|index| (index * 31 % 251) as u8).collect())
    }
}

/// A drawn day-5 embryo.
pub fn drawn(seed: u64) -> GrayImage {
    Renderer::new(SIDE_PX).render(&Embryo::new(seed), 110.0 + (seed % 10) as f64, 0.0)
}

pub fn jpeg(picture: &GrayImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(picture).expect("a JPEG");
    bytes
}

/// One frame event.
pub fn event(photograph: &Photograph, embryo: u64, run: u64, plane: u64, hpi: f64) -> Message {
    let embryo_id = format!("D2026.01.05_S{:05}_I0001_P-{}", embryo / 12, embryo % 12 + 1);
    let insemination = DateTime::<Utc>::from_timestamp(1_767_600_000, 0).expect("a time");
    let captured = insemination + TimeDelta::milliseconds((hpi * 3_600_000.0) as i64);
    let (offset, bytes) = (15.0 * (plane as f64 - CENTRAL as f64), photograph.jpeg.len());
    let (well, time) = (embryo % 12 + 1, |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ"));
    let value = format!(
        r#"{{"site_id":"north","instrument":{{"vendor":"v","model":"m","serial":"1"}},"slide_id":"S{:05}",
"well":{well},"embryo_id":"{embryo_id}","run":{run},"focal_plane_index":{plane},"focal_offset_um":{offset:.1},
"focal_plane_count":{PLANES},"captured_at":"{}","insemination_time":"{}","insemination_method":"ICSI",
"time_zero_source":"incubator","image":{{"data":"{}","sha256":"{}","media_type":"image/jpeg","bytes":{bytes},
"width":{SIDE_PX},"height":{SIDE_PX},"um_per_px":0.6}}}}"#,
        embryo / 12,
        time(captured),
        time(insemination),
        photograph.base64,
        photograph.sha256
    );
    (embryo_id, value.into_bytes())
}

/// Frames of which none is wanted, with images of `image_bytes`: of `embryos`, in the order in which they are captured,
/// all planes but the central one, and that one before day 5.
pub fn skipped(frames: u64, image_bytes: usize, embryos: u64) -> impl Iterator<Item = Message> {
    let photograph = Photograph::never_looked_at(image_bytes);
    (0..frames).map(move |index| {
        let (plane, capture) = (index % PLANES, index / PLANES);
        let (embryo, run) = (capture % embryos, capture / embryos);
        let hpi = (run as f64 / CAPTURES_PER_HOUR) % 109.0;
        event(&photograph, embryo, run, plane, hpi)
    })
}

/// Day-5 frames of the central plane, each of another embryo.
pub fn selected(frames: u64) -> impl Iterator<Item = Message> {
    let photographs = photographs(frames.min(PHOTOGRAPHS) as usize);
    (0..frames).map(move |index| {
        let photograph = &photographs[index as usize % photographs.len()];
        event(photograph, index, 1, CENTRAL, 110.0 + (index % 600) as f64 / 60.0)
    })
}

/// The first of the photographs that the frames share; each is drawn once.
fn photographs(count: usize) -> Vec<Arc<Photograph>> {
    static DRAWN: Mutex<Vec<Arc<Photograph>>> = Mutex::new(Vec::new());
    let mut drawn = DRAWN.lock().expect("nobody panicked");
    while drawn.len() < count {
        let seed = drawn.len() as u64 * 7 + 3;
        drawn.push(Arc::new(Photograph::of_embryo(seed)));
    }
    drawn.iter().take(count).map(Arc::clone).collect()
}

/// The same, each image padded to so many bytes, as some instruments do.
pub fn padded(frames: u64, image_bytes: usize) -> impl Iterator<Item = Message> {
    let mut jpeg = jpeg(&drawn(3));
    jpeg.resize(image_bytes.max(jpeg.len()), 0);
    let photograph = Photograph::new(jpeg);
    (0..frames).map(move |index| event(&photograph, index, 1, CENTRAL, 115.0))
}

/// The real mix: of 7 planes the central one is wanted, and of 5.5 days of culture ten hours: one frame in a hundred.
pub fn mix(frames: u64) -> impl Iterator<Item = Message> {
    let (mut unwanted, mut wanted) = (skipped(frames, 45_000, 96), selected(frames / 100 + 1));
    (0..frames).filter_map(move |index| if index % 100 == 50 { wanted.next() } else { unwanted.next() })
}

//! Frame events to send: a good one, to be spoilt field by field.

use std::sync::LazyLock;

use image::GrayImage;
use memebg::domain::{FRAME_EVENT_TYPE, Letter};
use memebg::incubator::{Embryo, Renderer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const SIDE_PX: u32 = 320;
/// Sent with every record: when it reached Kafka has nothing to do with when the test runs.
pub const SENT_AT_MS: i64 = 1_741_172_460_000;

/// A day-5 blastocyst, in focus.
pub static PHOTOGRAPH: LazyLock<GrayImage> = LazyLock::new(|| {
    let embryo = Embryo::with_quality(7, Letter::A, Letter::B);
    Renderer::new(SIDE_PX).render(&embryo, 116.0, 0.0)
});
static PHOTOGRAPH_JPEG: LazyLock<Vec<u8>> = LazyLock::new(|| jpeg(&PHOTOGRAPH));

pub fn jpeg(picture: &GrayImage) -> Vec<u8> {
    Renderer::jpeg(picture).expect("a JPEG")
}

/// The encoded [`PHOTOGRAPH`].
pub fn photograph_jpeg() -> &'static [u8] {
    &PHOTOGRAPH_JPEG
}

/// Run 1 of an embryo at 116 hpi: the central one of three planes, with [`PHOTOGRAPH`] inline.
pub fn event(embryo_id: &str) -> Value {
    let mut event = json!({
        "site_id": "north",
        "instrument": { "vendor": "Invented", "model": "Lapse 3", "serial": "L3-0001" },
        "slide_id": "S1",
        "well": 1,
        "embryo_id": embryo_id,
        "run": 1,
        "focal_plane_index": 1,
        "focal_offset_um": 0.0,
        "focal_plane_count": 3,
        "captured_at": "2025-03-05T11:00:00Z",
        "insemination_time": "2025-02-28T15:00:00Z",
        "insemination_method": "ICSI",
        "time_zero_source": "incubator",
    });
    set_image(&mut event, photograph_jpeg(), "image/jpeg", SIDE_PX, SIDE_PX);
    event
}

/// Describes `bytes` as the image of `event`, truthfully, and puts them inline.
pub fn set_image(event: &mut Value, bytes: &[u8], media_type: &str, width: u32, height: u32) {
    event["image"] = json!({
        "data": base64_simd::STANDARD.encode_to_string(bytes),
        "sha256": hex::encode(Sha256::digest(bytes)),
        "media_type": media_type,
        "bytes": bytes.len(),
        "width": width,
        "height": height,
    });
}

/// Says that the image lies at `uri` instead.
pub fn set_uri(event: &mut Value, uri: &str) {
    let image = event["image"].as_object_mut().expect("an image");
    image.remove("data");
    image.insert("uri".to_owned(), json!(uri));
}

/// A message to produce.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where the key leads, unless it is said here.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A frame event as a CloudEvent in binary mode, keyed by its embryo.
    pub fn of(event: &Value) -> Self {
        let embryo_id = event["embryo_id"].as_str().expect("an embryo id");
        Self::with_value(embryo_id, event.to_string().into_bytes())
    }

    /// Any value, with the headers of a frame event.
    pub fn with_value(key: &str, value: impl Into<Vec<u8>>) -> Self {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_type", FRAME_EVENT_TYPE),
            ("ce_source", "/tests"),
            ("ce_id", key),
            ("content-type", "application/json"),
        ];
        Self {
            partition: None,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: headers.map(|(name, value)| (name.to_owned(), value.into())).into(),
        }
    }

    /// With a header replaced or added.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(present, _)| present != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Bytes that no compression makes smaller.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

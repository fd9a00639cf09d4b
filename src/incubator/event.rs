//! Writes the frame event of one photograph.

use std::borrow::Cow;

use base64_simd::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::domain::{
    FocalPlane, FrameEvent, Image, ImageEvent, ImageLocation, InseminationMethod, Instrument, Text,
    TimeZeroSource,
};

/// What the embryo lies in.
#[derive(Debug, Clone)]
pub(crate) enum Holder {
    Slide(String),
    Dish(String),
}

/// One photograph before it is taken: everything but the image.
#[derive(Debug, Clone)]
pub(crate) struct Exposure {
    pub site_id: String,
    pub instrument: Instrument,
    pub holder: Holder,
    pub well: u32,
    pub embryo_id: String,
    pub run: u64,
    pub plane: FocalPlane,
    pub captured_at: DateTime<Utc>,
    pub insemination_time: DateTime<Utc>,
    pub insemination_method: InseminationMethod,
    pub time_zero_source: TimeZeroSource,
}

/// The frame event as JSON. The image, of which `bytes` are the encoded ones, goes inline unless its description says
/// where it lies.
pub(crate) fn frame_event(
    exposure: &Exposure,
    bytes: &[u8],
    image: &Image,
    um_per_px: Option<f64>,
) -> Result<Vec<u8>, serde_json::Error> {
    let clock = |time: &DateTime<Utc>| Some(Text(time.to_rfc3339_opts(SecondsFormat::Millis, true).into()));
    let (slide_id, dish_id) = match &exposure.holder {
        Holder::Slide(id) => (Some(Text(id.into())), None),
        Holder::Dish(id) => (None, Some(Text(id.into()))),
    };
    let (uri, data) = match &image.location {
        ImageLocation::Inline => (None, Some(Text(STANDARD.encode_to_string(bytes).into()))),
        ImageLocation::Uri(uri) => (Some(Text(uri.into())), None),
    };
    serde_json::to_vec(&FrameEvent {
        site_id: Cow::Borrowed(&exposure.site_id),
        instrument: exposure.instrument.clone(),
        slide_id,
        dish_id,
        well: exposure.well,
        embryo_id: Cow::Borrowed(&exposure.embryo_id),
        run: exposure.run,
        focal_plane_index: exposure.plane.index,
        focal_offset_um: exposure.plane.offset_um,
        focal_plane_count: exposure.plane.count,
        captured_at: clock(&exposure.captured_at),
        insemination_time: clock(&exposure.insemination_time),
        insemination_method: exposure.insemination_method,
        time_zero_source: exposure.time_zero_source,
        image: ImageEvent {
            uri,
            data,
            sha256: Cow::Borrowed(&image.sha256),
            media_type: image.media_type,
            bytes: image.bytes,
            width: image.width,
            height: image.height,
            um_per_px,
        },
    })
}

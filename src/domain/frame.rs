//! The frame event: one photograph of one embryo at one focal plane.
//!
//! `FrameEvent` borrows from the message, so that a frame that is not wanted costs one scan of its
//! JSON and no copy. `Frame` is the owned description that travels with a wanted frame.

mod check;

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use check::{clock, id, invalid, short};

use super::label::label_enum;
use super::rejection::{Rejection, RejectionCode};
use super::wire::{object, present, whole};

/// CloudEvents `type` of a frame event.
pub const FRAME_EVENT_TYPE: &str = "org.memebg.incubator.frame.v1";

/// Longest accepted image URI, in characters.
const MAX_URI_CHARS: usize = 2_048;
/// Largest number that a well, plane index or plane count may reach.
const MAX_PLANES: u32 = 1_000;

label_enum! {
    /// How the oocyte was inseminated.
    InseminationMethod {
        /// Conventional insemination.
        Ivf = "IVF",
        /// Intracytoplasmic sperm injection.
        Icsi = "ICSI",
    }
}

label_enum! {
    /// Who says when the clock of this embryo started.
    TimeZeroSource {
        /// The time-lapse incubator's own record.
        Incubator = "incubator",
        /// The laboratory's electronic medical record.
        Emr = "emr",
        /// Typed in by a person.
        Manual = "manual",
    }
}

label_enum! {
    /// Image formats that are accepted.
    MediaType {
        /// JPEG.
        Jpeg = "image/jpeg",
        /// PNG.
        Png = "image/png",
        /// Windows bitmap.
        Bmp = "image/bmp",
        /// TIFF.
        Tiff = "image/tiff",
    }
}

/// The incubator that took the photograph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instrument {
    /// Manufacturer.
    pub vendor: String,
    /// Model, e.g. `EmbryoScope+`.
    pub model: String,
    /// Serial number or asset tag.
    pub serial: String,
}

/// A string that borrows from the message unless JSON escapes forbid it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The image of a frame event as it is on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEvent<'a> {
    /// Where the image lies; exactly one of `uri` and `data`.
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub uri: Option<Text<'a>>,
    /// The image itself, base64 (RFC 4648, standard alphabet, padded).
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Text<'a>>,
    /// Lower-case hexadecimal SHA-256 of the encoded image.
    #[serde(borrow)]
    pub sha256: Cow<'a, str>,
    /// Format.
    pub media_type: MediaType,
    /// Length of the encoded image.
    #[serde(deserialize_with = "whole")]
    pub bytes: u64,
    /// Width in pixels.
    #[serde(deserialize_with = "whole")]
    pub width: u32,
    /// Height in pixels.
    #[serde(deserialize_with = "whole")]
    pub height: u32,
    /// Scale, micrometres per pixel, where the instrument says it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub um_per_px: Option<f64>,
}

/// A frame event as it is on the wire: `schemas/frame.v1.schema.json`.
///
/// Unknown fields are refused: a field that this version does not know might be patient data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameEvent<'a> {
    /// The clinic or laboratory.
    #[serde(borrow)]
    pub site_id: Cow<'a, str>,
    /// The incubator.
    #[serde(deserialize_with = "object")]
    pub instrument: Instrument,
    /// Slide; exactly one of `slide_id` and `dish_id`.
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub slide_id: Option<Text<'a>>,
    /// Dish; exactly one of `slide_id` and `dish_id`.
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub dish_id: Option<Text<'a>>,
    /// Well of the slide or dish, from 1.
    #[serde(deserialize_with = "whole")]
    pub well: u32,
    /// Opaque pseudonym of the embryo; the Kafka key.
    #[serde(borrow)]
    pub embryo_id: Cow<'a, str>,
    /// Number of the capture, rising with time.
    #[serde(deserialize_with = "whole")]
    pub run: u64,
    /// Index of the focal plane within the run, from 0.
    #[serde(deserialize_with = "whole")]
    pub focal_plane_index: u32,
    /// Distance from the central plane, micrometres, signed.
    pub focal_offset_um: f64,
    /// Number of focal planes in the run.
    #[serde(deserialize_with = "whole")]
    pub focal_plane_count: u32,
    /// When the photograph was taken (RFC 3339). Absent and null have a code of their own.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub captured_at: Option<Text<'a>>,
    /// Time zero (RFC 3339).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub insemination_time: Option<Text<'a>>,
    /// How the oocyte was inseminated.
    pub insemination_method: InseminationMethod,
    /// Who says so.
    pub time_zero_source: TimeZeroSource,
    /// The photograph.
    #[serde(borrow, deserialize_with = "object")]
    pub image: ImageEvent<'a>,
}

/// The two clocks of a frame and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clocks {
    /// When the photograph was taken.
    pub captured_at: DateTime<Utc>,
    /// Time zero.
    pub insemination_time: DateTime<Utc>,
    /// Hours post insemination at capture.
    pub hpi: f64,
}

/// Where a focal plane lies in its run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FocalPlane {
    /// Index within the run, from 0.
    pub index: u32,
    /// Distance from the central plane, micrometres, signed.
    pub offset_um: f64,
    /// Number of planes in the run.
    pub count: u32,
}

/// What makes two frame events the same frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId {
    /// Opaque pseudonym of the embryo.
    pub embryo_id: String,
    /// Number of the capture.
    pub run: u64,
    /// Index of the focal plane.
    pub focal_plane_index: u32,
}

/// Where the bytes of an image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageLocation {
    /// In the message itself; decoded from there when its turn comes.
    Inline,
    /// In a file or an object store.
    Uri(String),
}

/// An owned description of the image of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Where its bytes are.
    pub location: ImageLocation,
    /// Lower-case hexadecimal SHA-256 of the encoded image.
    pub sha256: String,
    /// Format.
    pub media_type: MediaType,
    /// Length of the encoded image.
    pub bytes: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// An owned, validated frame without its image bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Identity.
    pub id: FrameId,
    /// The clinic or laboratory.
    pub site_id: String,
    /// The incubator.
    pub instrument: Instrument,
    /// Slide, if it lies on one.
    pub slide_id: Option<String>,
    /// Dish, if it lies in one.
    pub dish_id: Option<String>,
    /// Well, from 1.
    pub well: u32,
    /// Focal plane.
    pub plane: FocalPlane,
    /// Clocks.
    pub clocks: Clocks,
    /// Image.
    pub image: Image,
}

impl<'a> FrameEvent<'a> {
    /// Reads a JSON object. What the text means is not looked at: see [`FrameEvent::validate`].
    ///
    /// # Errors
    /// `invalid_json` when it is not JSON, `schema_invalid` when a field is missing, unknown or of
    /// the wrong type.
    pub fn from_json(json: &'a [u8]) -> Result<Self, Rejection> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        object(&mut reader)
            .and_then(|event| reader.end().map(|()| event))
            .map_err(|error| Rejection::unreadable("a frame event", &error))
    }

    /// Checks every field against the schema's limits and reads the clocks.
    ///
    /// `now` and `tolerance_seconds` decide what lies in the future.
    ///
    /// # Errors
    /// `schema_invalid` or one of the clock codes, naming the field and its value.
    pub fn validate(&self, now: DateTime<Utc>, tolerance_seconds: i64) -> Result<Clocks, Rejection> {
        id("site_id", &self.site_id)?;
        id("embryo_id", &self.embryo_id)?;
        id("instrument.serial", &self.instrument.serial)?;
        short("instrument.vendor", &self.instrument.vendor)?;
        short("instrument.model", &self.instrument.model)?;
        match (&self.slide_id, &self.dish_id) {
            (Some(slide), None) => id("slide_id", &slide.0)?,
            (None, Some(dish)) => id("dish_id", &dish.0)?,
            _ => return Err(invalid("exactly one of slide_id and dish_id is needed")),
        }
        if !(1..=MAX_PLANES).contains(&self.well) {
            return Err(invalid(format!("well {} is not within 1 and {MAX_PLANES}", self.well)));
        }
        if !(1..=MAX_PLANES).contains(&self.focal_plane_count) {
            return Err(invalid(format!(
                "focal_plane_count {} is not within 1 and {MAX_PLANES}",
                self.focal_plane_count
            )));
        }
        if self.focal_plane_index >= self.focal_plane_count {
            return Err(invalid(format!(
                "focal_plane_index {} is not below focal_plane_count {}",
                self.focal_plane_index, self.focal_plane_count
            )));
        }
        self.image.validate()?;
        self.clocks(now, tolerance_seconds)
    }

    fn clocks(&self, now: DateTime<Utc>, tolerance_seconds: i64) -> Result<Clocks, Rejection> {
        let captured_at = clock("captured_at", self.captured_at.as_ref())?;
        let insemination_time = clock("insemination_time", self.insemination_time.as_ref())?;
        if captured_at < insemination_time {
            return Err(Rejection::new(
                RejectionCode::ClockReversed,
                format!("captured_at {captured_at} is before insemination_time {insemination_time}"),
            ));
        }
        if (captured_at - now).num_seconds() > tolerance_seconds {
            return Err(Rejection::new(
                RejectionCode::ClockInFuture,
                format!("captured_at {captured_at} is later than now, {now}; check the incubator's clock"),
            ));
        }
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a few days are exact in f64")]
        let hpi = (captured_at - insemination_time).num_milliseconds() as f64 / 3_600_000.0;
        Ok(Clocks { captured_at, insemination_time, hpi })
    }

    /// What makes it the same frame as another.
    #[must_use]
    pub fn id(&self) -> FrameId {
        FrameId {
            embryo_id: self.embryo_id.clone().into_owned(),
            run: self.run,
            focal_plane_index: self.focal_plane_index,
        }
    }

    /// The owned description of a validated frame.
    #[must_use]
    pub fn to_frame(&self, clocks: Clocks) -> Frame {
        let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.clone().into_owned());
        Frame {
            id: self.id(),
            site_id: self.site_id.clone().into_owned(),
            instrument: self.instrument.clone(),
            slide_id: owned(&self.slide_id),
            dish_id: owned(&self.dish_id),
            well: self.well,
            plane: FocalPlane {
                index: self.focal_plane_index,
                offset_um: self.focal_offset_um,
                count: self.focal_plane_count,
            },
            clocks,
            image: Image {
                location: match &self.image.uri {
                    Some(uri) => ImageLocation::Uri(uri.0.clone().into_owned()),
                    None => ImageLocation::Inline,
                },
                sha256: self.image.sha256.clone().into_owned(),
                media_type: self.image.media_type,
                bytes: self.image.bytes,
                width: self.image.width,
                height: self.image.height,
            },
        }
    }
}

impl ImageEvent<'_> {
    fn validate(&self) -> Result<(), Rejection> {
        match (&self.uri, &self.data) {
            (Some(uri), None) if (1..=MAX_URI_CHARS).contains(&uri.0.chars().count()) => {}
            (None, Some(data)) if !data.0.is_empty() => {}
            (Some(_), None) => return Err(invalid("image.uri is empty or too long")),
            (None, Some(_)) => return Err(invalid("image.data is empty")),
            _ => return Err(invalid("exactly one of image.uri and image.data is needed")),
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_hex) {
            return Err(invalid("image.sha256 is not 64 lower-case hexadecimal digits"));
        }
        if self.bytes == 0 || self.width == 0 || self.height == 0 {
            return Err(invalid(format!(
                "image of {} bytes, {} x {} pixels is empty",
                self.bytes, self.width, self.height
            )));
        }
        match self.um_per_px {
            Some(scale) if scale <= 0.0 => Err(invalid(format!("image.um_per_px {scale} is not positive"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

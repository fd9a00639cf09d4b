//! From the bytes of a photograph to the picture a model sees.
//!
//! Everything here is synchronous and works on one image: the caller runs it on a bounded pool of
//! threads. The bytes come from outside, so the order is: size, digest, format, header, and only then
//! pixels.

mod jpeg;
mod pages;
mod raster;

use std::panic::catch_unwind;

use fast_image_resize::images::{Image as Surface, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{Image, Picture, PictureStatistics, Rejection, RejectionCode};
use raster::Raster;

/// Threads that decode unasked. One decodes 500 to 1,000 images a second: two keep the models of any CPU busy, and those
/// of a GPU need more.
const MIN_UNASKED_THREADS: usize = 2;
/// Each may hold a decoded image of the largest allowed size.
const MAX_UNASKED_THREADS: usize = 16;

/// Limits of decoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeSettings {
    /// Most bytes an encoded image may have.
    pub max_image_bytes: u64,
    /// Most pixels an image may have, by its header. Bounds the memory of one decode: at most 8 bytes
    /// per pixel for what is decoded, and as much again inside the decoder.
    pub max_pixels: u64,
    /// Threads that decode. 0: half as many as there are cores, from 2 to 16.
    pub threads: usize,
}

impl DecodeSettings {
    /// Threads for a machine of `cores`.
    #[must_use]
    pub fn threads_on(&self, cores: usize) -> usize {
        if self.threads == 0 {
            (cores / 2).clamp(MIN_UNASKED_THREADS, MAX_UNASKED_THREADS)
        } else {
            self.threads
        }
    }
}

/// A picture and what the quality gate wants to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What the model sees.
    pub picture: Picture,
    /// How sharp, bright and rich in contrast it is.
    pub statistics: PictureStatistics,
}

/// The bytes of an inline image.
///
/// # Errors
/// `image_too_large` by the length of the text, before anything is decoded; `image_bad_base64` when it
/// is not padded RFC 4648 base64 of the standard alphabet.
pub fn from_base64(text: impl AsRef<[u8]>, max_image_bytes: u64) -> Result<Vec<u8>, Rejection> {
    let text = text.as_ref();
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let bytes = (text.len() / 4 * 3).saturating_sub(padding) as u64;
    within_limit(bytes, max_image_bytes)?;
    base64_simd::STANDARD.decode_to_vec(text).map_err(|_| {
        let message = "image.data is not padded base64 of the standard alphabet (RFC 4648)";
        Rejection::new(RejectionCode::ImageBadBase64, message)
    })
}

/// Decodes, crops the centre to a square and scales it to `side_px` x `side_px` grey pixels.
///
/// Colour becomes luma (ITU-R BT.601, as in JPEG), 16 bits become 8, transparency is ignored, and so is
/// the orientation an EXIF tag asks for: width and height of the event are those of the stored pixels.
///
/// # Errors
/// `image_too_large`, `image_digest_mismatch`, `image_undecodable`, `image_too_many_pixels` or
/// `image_size_mismatch`. Never panics, whatever the bytes.
pub fn picture(
    bytes: &[u8],
    image: &Image,
    limits: &DecodeSettings,
    side_px: usize,
) -> Result<Decoded, Rejection> {
    within_limit(bytes.len() as u64, limits.max_image_bytes)?;
    verify(bytes, image)?;
    // The decoders are several crates' worth of parsers fed by strangers. No panic of theirs is known,
    // yet one would take the thread and with it every frame behind this one.
    let raster = catch_unwind(|| raster::decode(bytes, image, limits.max_pixels))
        .unwrap_or_else(|_| Err(undecodable("the decoder panicked on it")))?;
    let picture = square(&raster, side_px)?;
    let (mean_grey, contrast) = mean_and_deviation(picture.grey());
    let statistics = PictureStatistics { sharpness: laplacian_variance(&picture), mean_grey, contrast };
    Ok(Decoded { picture, statistics })
}

fn within_limit(bytes: u64, max_image_bytes: u64) -> Result<(), Rejection> {
    if bytes <= max_image_bytes {
        return Ok(());
    }
    let message = format!("image of {bytes} bytes exceeds max_image_bytes {max_image_bytes}");
    Err(Rejection::new(RejectionCode::ImageTooLarge, message))
}

/// Is this the image the event describes?
fn verify(bytes: &[u8], image: &Image) -> Result<(), Rejection> {
    let mismatch = |message| Err(Rejection::new(RejectionCode::ImageDigestMismatch, message));
    if bytes.len() as u64 != image.bytes {
        return mismatch(format!("image has {} bytes, the event says {}", bytes.len(), image.bytes));
    }
    let sha256 = hex::encode(Sha256::digest(bytes));
    if sha256 != image.sha256 {
        return mismatch(format!("image has sha256 {sha256}, the event says {}", image.sha256));
    }
    Ok(())
}

fn undecodable(reason: impl std::fmt::Display) -> Rejection {
    Rejection::new(RejectionCode::ImageUndecodable, format!("image cannot be decoded: {reason}"))
}

/// The centre square, scaled with an antialiasing (convolving) bilinear filter. Cropping happens by
/// reading only the square, not by copying it.
fn square(raster: &Raster, side_px: usize) -> Result<Picture, Rejection> {
    let side = u32::try_from(side_px).map_err(undecodable)?;
    let source =
        ImageRef::new(raster.width, raster.height, &raster.luma, PixelType::U8).map_err(undecodable)?;
    let mut target = Surface::new(side, side, PixelType::U8);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .fit_into_destination(Some((0.5, 0.5)));
    Resizer::new().resize(&source, &mut target, &options).map_err(undecodable)?;
    Picture::new(side_px, target.into_vec()).ok_or_else(|| undecodable("the model's side is 0 pixels"))
}

#[allow(clippy::cast_precision_loss, reason = "pixel counts and sums of bytes are far below 2^52")]
fn mean_and_deviation(grey: &[u8]) -> (f32, f32) {
    let (sum, squares) = grey.iter().fold((0_u64, 0_u64), |(sum, squares), value| {
        let value = u64::from(*value);
        (sum + value, squares + value * value)
    });
    moments(sum as f64, squares as f64, grey.len())
}

/// Variance of `4 c - n - s - w - e` over the pixels that have four neighbours.
#[allow(clippy::cast_precision_loss, reason = "sums of at most 1020^2 over a model-sized picture")]
fn laplacian_variance(picture: &Picture) -> f32 {
    let rows: Vec<&[u8]> = picture.grey().chunks_exact(picture.side_px()).collect();
    let (mut sum, mut squares, mut count) = (0_i64, 0_i64, 0_usize);
    for three in rows.windows(3) {
        let [above, row, below] = three else { continue };
        for ((across, north), south) in row.windows(3).zip(above.iter().skip(1)).zip(below.iter().skip(1)) {
            let [west, centre, east] = across else { continue };
            let [centre, north, south, west, east] =
                [centre, north, south, west, east].map(|value| i64::from(*value));
            let response = 4 * centre - north - south - west - east;
            sum += response;
            squares += response * response;
            count += 1;
        }
    }
    let (_, deviation) = moments(sum as f64, squares as f64, count);
    deviation * deviation
}

/// Mean and standard deviation from the sums; zero of nothing.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "grey values fit f32")]
fn moments(sum: f64, squares: f64, count: usize) -> (f32, f32) {
    let count = count.max(1) as f64;
    let mean = sum / count;
    (mean as f32, (squares / count - mean * mean).max(0.0).sqrt() as f32)
}

#[cfg(test)]
mod tests;

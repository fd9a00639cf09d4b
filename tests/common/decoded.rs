//! A JPEG as the models see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use memebg::domain::{Image, ImageLocation, MediaType, Picture};
use memebg::model::multitask::SIDE_PX;
use memebg::pipeline::decode::{self, DecodeSettings};
use sha2::{Digest, Sha256};

/// As the service decodes it.
pub fn decoded(jpeg: &[u8]) -> Picture {
    let (width, height) = image::load_from_memory(jpeg).map(|image| (image.width(), image.height())).unwrap();
    let image = Image {
        location: ImageLocation::Inline,
        sha256: hex::encode(Sha256::digest(jpeg)),
        media_type: MediaType::Jpeg,
        bytes: jpeg.len() as u64,
        width,
        height,
    };
    let limits = DecodeSettings { max_image_bytes: 1 << 20, max_pixels: 1 << 20, threads: 1 };
    decode::picture(jpeg, &image, &limits, SIDE_PX).unwrap().picture
}

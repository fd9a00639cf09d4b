//! Decoding and scaling one 500 x 500 grey JPEG: ours beside the `image` crate alone, in turn within one
//! run, so that whatever else the machine does touches both.
//!
//! Ours does more: it verifies length and SHA-256, refuses damaged data and measures quality.
//! `cargo bench --bench decode`

use std::hint::black_box;

use anyhow::Result;
use image::imageops::{FilterType, crop_imm, resize};
use image::{GrayImage, ImageFormat, Luma};
use memebg::domain::{Image, ImageLocation, MediaType};
use memebg::pipeline::decode::{DecodeSettings, picture};
use sha2::{Digest, Sha256};

mod turns;

const SIDE_PX: u32 = 500;
const MODEL_SIDE_PX: u32 = 224;
const ROUNDS: usize = 400;

fn main() -> Result<()> {
    let bytes = photograph()?;
    let event = Image {
        location: ImageLocation::Inline,
        sha256: hex::encode(Sha256::digest(&bytes)),
        media_type: MediaType::Jpeg,
        bytes: bytes.len() as u64,
        width: SIDE_PX,
        height: SIDE_PX,
    };
    let limits = DecodeSettings { max_image_bytes: 1 << 20, max_pixels: 1 << 20, threads: 1 };
    let image_crate = || -> Result<GrayImage> {
        let grey = image::load_from_memory_with_format(black_box(&bytes), ImageFormat::Jpeg)?.into_luma8();
        let side = grey.width().min(grey.height());
        let (left, top) = ((grey.width() - side) / 2, (grey.height() - side) / 2);
        let square = crop_imm(&grey, left, top, side, side);
        Ok(resize(&*square, MODEL_SIDE_PX, MODEL_SIDE_PX, FilterType::Triangle))
    };
    let ours = || picture(black_box(&bytes), &event, &limits, MODEL_SIDE_PX as usize);
    // Once by hand: what fails is fast.
    ours()?;
    image_crate()?;

    let (own, image) = turns::take(ROUNDS, || drop(black_box(ours())), || drop(black_box(image_crate())));
    println!("{ROUNDS} rounds in turn, one JPEG of {SIDE_PX} x {SIDE_PX} px and {} bytes", bytes.len());
    let own = turns::report("memebg (verify, decode, crop, scale, measure)", &own)?;
    let image = turns::report("image crate (decode, crop, scale)", &image)?;
    println!("the image crate takes {:.2} times as long", image.as_secs_f64() / own.as_secs_f64());
    Ok(())
}

/// A ring on a bright ground with the grain of a sensor, about as large as a time-lapse frame.
fn photograph() -> Result<Vec<u8>> {
    let mut state = 1_u32;
    let image = GrayImage::from_fn(SIDE_PX, SIDE_PX, |x, y| {
        let radius = x.abs_diff(SIDE_PX / 2).pow(2) + y.abs_diff(SIDE_PX / 2).pow(2);
        let ring = if (22_500..30_000).contains(&radius) { 50 } else { 0 };
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = u8::try_from(state >> 28).unwrap_or(0);
        Luma([130 + ring + grain])
    });
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&image)?;
    Ok(bytes)
}

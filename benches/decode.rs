//! Decoding and scaling one 500 x 500 grey JPEG: ours beside the `image` crate alone, in turn within one
//! run, so that whatever else the machine does touches both.
//!
//! Ours does more: it verifies length and SHA-256, refuses damaged data and measures quality.
//! `cargo bench --bench decode`

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use image::imageops::{FilterType, crop_imm, resize};
use image::{GrayImage, ImageFormat, Luma};
use memebg::domain::{Image, ImageLocation, MediaType};
use memebg::pipeline::decode::{DecodeSettings, picture};
use sha2::{Digest, Sha256};

const SIDE_PX: u32 = 500;
const MODEL_SIDE_PX: u32 = 224;
const ROUNDS: usize = 400;
const WARM_UP_ROUNDS: usize = 40;

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
    let ours = || picture(black_box(&bytes), &event, &limits, MODEL_SIDE_PX as usize);
    let image_crate = || -> Result<GrayImage> {
        let grey = image::load_from_memory_with_format(black_box(&bytes), ImageFormat::Jpeg)?.into_luma8();
        let side = grey.width().min(grey.height());
        let (left, top) = ((grey.width() - side) / 2, (grey.height() - side) / 2);
        let square = crop_imm(&grey, left, top, side, side);
        Ok(resize(&*square, MODEL_SIDE_PX, MODEL_SIDE_PX, FilterType::Triangle))
    };

    let (mut own_times, mut image_times) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        let own = time(ours)?;
        let image = time(image_crate)?;
        if round >= WARM_UP_ROUNDS {
            own_times.push(own);
            image_times.push(image);
        }
    }
    println!("{ROUNDS} rounds in turn, one JPEG of {SIDE_PX} x {SIDE_PX} px and {} bytes", bytes.len());
    let own = report("memebg (verify, decode, crop, scale, measure)", own_times)?;
    let image = report("image crate (decode, crop, scale)", image_times)?;
    println!("the image crate takes {:.2} times as long", image.as_secs_f64() / own.as_secs_f64());
    Ok(())
}

fn time<T, E>(work: impl Fn() -> Result<T, E>) -> Result<Duration, E> {
    let start = Instant::now();
    black_box(work()?);
    Ok(start.elapsed())
}

/// Prints and returns the median.
fn report(name: &str, mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().context("no rounds");
    let (low, median, high) = (at(10)?, at(50)?, at(90)?);
    println!("{name:<46} median {median:>9.1?}   10-90 % {low:.1?} to {high:.1?}");
    Ok(median)
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

//! The pixels of a JPEG, PNG, BMP or TIFF as 8-bit luma.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, png::PngDecoder, tiff::TiffDecoder};
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, Limits};

use super::{jpeg, pages, undecodable};
use crate::domain::{Image, MediaType, Rejection, RejectionCode};

/// Most bytes per pixel that are decoded: RGBA with 16 bits.
const MAX_BYTES_PER_PIXEL: u64 = 8;
/// What a decoder may allocate beside the pixels: palettes, tags, text chunks, one strip.
const DECODER_OVERHEAD_BYTES: u64 = 1 << 20;

/// Grey pixels, row by row.
pub(super) struct Raster {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) luma: Vec<u8>,
}

/// Decodes what the event says it is, if the content agrees.
pub(super) fn decode(bytes: &[u8], image: &Image, max_pixels: u64) -> Result<Raster, Rejection> {
    let format = image::guess_format(bytes).map_err(|_| undecodable("it is not an image"))?;
    let expected = match image.media_type {
        MediaType::Jpeg => ImageFormat::Jpeg,
        MediaType::Png => ImageFormat::Png,
        MediaType::Bmp => ImageFormat::Bmp,
        MediaType::Tiff => ImageFormat::Tiff,
    };
    if format != expected {
        return Err(undecodable(format!("its content is {format:?}, the event says {}", image.media_type)));
    }
    let check = |width, height| check_size(width, height, image, max_pixels);
    let input = Cursor::new(bytes);
    match image.media_type {
        MediaType::Jpeg => jpeg::decode(bytes, check),
        MediaType::Png if !png_is_complete(bytes) => Err(undecodable("the PNG is cut short")),
        MediaType::Png if pages::png_is_animated(bytes) => Err(undecodable("the PNG is animated")),
        MediaType::Tiff if pages::tiff_has_pages(bytes) => Err(undecodable("the TIFF has several pages")),
        MediaType::Png => {
            // First: the decoder would say of a header far over the cap only that it lacks memory.
            if let Some((width, height)) = png_size(bytes) {
                check(width, height)?;
            }
            read(PngDecoder::with_limits(input, decoder_limits(max_pixels)), max_pixels, check)
        }
        MediaType::Bmp => read(BmpDecoder::new(input), max_pixels, check),
        MediaType::Tiff => read(TiffDecoder::new(input), max_pixels, check),
    }
}

/// What a header says, against the cap and against the event.
fn check_size(width: u32, height: u32, image: &Image, max_pixels: u64) -> Result<(), Rejection> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > max_pixels {
        return Err(Rejection::new(
            RejectionCode::ImageTooManyPixels,
            format!("image of {width} x {height} pixels exceeds max_pixels {max_pixels}"),
        ));
    }
    if pixels == 0 {
        return Err(undecodable(format!("it has {width} x {height} pixels")));
    }
    if (width, height) != (image.width, image.height) {
        return Err(Rejection::new(
            RejectionCode::ImageSizeMismatch,
            format!("image is {width} x {height} pixels, the event says {} x {}", image.width, image.height),
        ));
    }
    Ok(())
}

fn decoder_limits(max_pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    // Twice: some decoders count the caller's buffer, and the TIFF decoder holds one of its own.
    limits.max_alloc = Some(max_pixels.saturating_mul(2 * MAX_BYTES_PER_PIXEL) + DECODER_OVERHEAD_BYTES);
    limits
}

fn read(
    decoder: Result<impl ImageDecoder, ImageError>,
    max_pixels: u64,
    check: impl Fn(u32, u32) -> Result<(), Rejection>,
) -> Result<Raster, Rejection> {
    let mut decoder = decoder.map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    check(width, height)?;
    decoder.set_limits(decoder_limits(max_pixels)).map_err(undecodable)?;
    let to_luma: fn(Vec<u8>) -> Vec<u8> = match decoder.color_type() {
        ColorType::L8 => |grey| grey,
        ColorType::La8 => |bytes| first_of::<2>(&bytes),
        ColorType::Rgb8 => |bytes| luma::<3>(&bytes),
        ColorType::Rgba8 => |bytes| luma::<4>(&bytes),
        ColorType::L16 => |bytes| narrow(&bytes),
        ColorType::La16 => |bytes| first_of::<2>(&narrow(&bytes)),
        ColorType::Rgb16 => |bytes| luma::<3>(&narrow(&bytes)),
        ColorType::Rgba16 => |bytes| luma::<4>(&narrow(&bytes)),
        other => return Err(undecodable(format!("its pixels are {other:?}, not 8 or 16 bit grey or RGB"))),
    };
    let bytes = usize::try_from(decoder.total_bytes()).map_err(undecodable)?;
    let mut buffer = vec![0; bytes];
    decoder.read_image(&mut buffer).map_err(undecodable)?;
    Ok(Raster { width, height, luma: to_luma(buffer) })
}

/// 16 bits (native byte order) to 8, rounded.
#[allow(clippy::cast_possible_truncation, reason = "(65535 + 128) / 257 is 255")]
fn narrow(bytes: &[u8]) -> Vec<u8> {
    let (samples, _) = bytes.as_chunks::<2>();
    samples.iter().map(|sample| ((u32::from(u16::from_ne_bytes(*sample)) + 128) / 257) as u8).collect()
}

fn first_of<const CHANNELS: usize>(pixels: &[u8]) -> Vec<u8> {
    pixels.iter().step_by(CHANNELS).copied().collect()
}

/// ITU-R BT.601 luma in 1/65536. `CHANNELS` is 3 or 4; the fourth, alpha, is ignored.
#[allow(clippy::cast_possible_truncation, reason = "the weights add up to 65536")]
pub(super) fn luma<const CHANNELS: usize>(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<CHANNELS>();
    let weigh = |pixel: &[u8; CHANNELS]| {
        let weighted =
            pixel.iter().zip([19_595_u32, 38_470, 7_471]).map(|(value, weight)| u32::from(*value) * weight);
        ((weighted.sum::<u32>() + 32_768) >> 16) as u8
    };
    pixels.iter().map(weigh).collect()
}

/// The header is always the first chunk, and begins with width and height.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.get(12..)?.strip_prefix(b"IHDR")?;
    let (width, rest) = header.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(*rest.first_chunk::<4>()?)))
}

/// Follows the chunks to `IEND`: a decoder is content when it has its pixels, yet a file that ends
/// before its end was cut on the way.
fn png_is_complete(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let whole =
            usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|length| length.checked_add(8));
        let Some(next) = whole.and_then(|whole| after.get(whole..)) else { return false };
        if after.starts_with(b"IEND") {
            return true;
        }
        rest = next;
    }
    false
}

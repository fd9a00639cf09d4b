//! JPEG, strictly: a photograph that was cut or damaged on its way is refused.
//!
//! The decoder is used directly, not through the `image` crate, because only so can its strict mode be
//! had. In its lenient mode it fills what is missing with grey and says nothing; a grade of half a
//! blastocyst would follow. It also gives luma without the detour over RGB.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::raster::{Raster, luma};
use super::undecodable;
use crate::domain::Rejection;

/// Scans of a progressive JPEG. Encoders write about ten; each one costs a pass over the image.
const MAX_SCANS: usize = 40;

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// Put before the end-of-image marker. Even in strict mode the decoder reads zeros after that marker
/// for as long as pixels are missing, so a photograph that was cut and closed again, or a header that
/// promises too much, would pass as grey. These one bits (with their byte stuffing) are no Huffman code
/// of any table that follows the standard: whoever still wants pixels meets them and fails. A complete
/// image ends before them.
const GUARD: [[u8; 2]; 32] = [[0xFF, 0x00]; 32];

pub(super) fn decode(
    bytes: &[u8],
    check: impl Fn(u32, u32) -> Result<(), Rejection>,
) -> Result<Raster, Rejection> {
    let Some(end) = end_of_image(bytes) else {
        return Err(undecodable("the JPEG is cut short: it has no end-of-image marker"));
    };
    let guarded =
        [bytes.get(..end).unwrap_or_default(), GUARD.as_flattened(), &[0xFF, END_OF_IMAGE]].concat();
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(MAX_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&guarded), options);
    decoder.decode_headers().map_err(undecodable)?;
    let Some((width, height)) = decoder.info().map(|info| (u32::from(info.width), u32::from(info.height)))
    else {
        return Err(undecodable("the JPEG has no frame header"));
    };
    check(width, height)?;
    let colour = match decoder.input_colorspace() {
        Some(ColorSpace::Luma | ColorSpace::YCbCr) => ColorSpace::Luma,
        Some(ColorSpace::RGB) => ColorSpace::RGB,
        other => return Err(undecodable(format!("its colours are {other:?}, not grey, YCbCr or RGB"))),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colour));
    let pixels = decoder.decode().map_err(undecodable)?;
    let luma = if colour == ColorSpace::RGB { luma::<3>(&pixels) } else { pixels };
    Ok(Raster { width, height, luma })
}

/// Where the end-of-image marker lies, following the segments and the entropy-coded data. Looking for
/// the last two bytes alone would take the end of an embedded thumbnail for the end of the photograph,
/// and would refuse the padding that some instruments append.
fn end_of_image(bytes: &[u8]) -> Option<usize> {
    let [0xFF, 0xD8, rest @ ..] = bytes else { return None };
    let (mut rest, mut in_scan) = (rest, false);
    loop {
        match rest {
            [0xFF, END_OF_IMAGE, ..] => return Some(bytes.len() - rest.len()),
            // A fill byte before a marker.
            [0xFF, 0xFF, ..] => rest = rest.get(1..)?,
            // Stuffing and restart markers belong to the scan.
            [0xFF, 0x00 | 0xD0..=0xD7, tail @ ..] if in_scan => rest = tail,
            [0xFF, marker, tail @ ..] => {
                rest = skip_segment(tail)?;
                in_scan = *marker == START_OF_SCAN;
            }
            [_, tail @ ..] if in_scan => {
                let marker = tail.iter().position(|byte| *byte == 0xFF)?;
                rest = tail.get(marker..)?;
            }
            _ => return None,
        }
    }
}

fn skip_segment(after_marker: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes(*after_marker.first_chunk::<2>()?));
    (length >= 2).then(|| after_marker.get(length..)).flatten()
}

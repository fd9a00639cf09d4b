//! Sets the inline image of a frame event aside, so that its JSON can be read without it.
//!
//! More than nine tenths of a frame event are one JSON string of base64, and most frames are not wanted. A JSON
//! parser looks for escapes, for the end and for UTF-8 in that string byte by byte; here two vectorised looks find
//! its end and check its alphabet, which leaves nothing for a parser to object to. Measured in
//! `benches/figures/door.rs`. What is in any way unusual is left to the parser as it is.

use base64_simd::STANDARD;
use memchr::{memchr, memchr2, memmem};

/// Stands in the JSON for what was set aside. Not base64, so no image.
pub(super) const ASIDE: &str = "~";
/// A shorter image is parsed as quickly as it is set aside.
const MIN_IMAGE_BYTES: usize = 1_024;
/// A multiple of 4 characters, so that pieces of base64 are base64.
const PIECE_BYTES: usize = 8_192;
/// Where the image has to begin: behind the metadata, if not before them.
const MAX_METADATA_BYTES: usize = 16_384;

/// The base64 text of the first long string under a key `data`, and the JSON with [`ASIDE`] in its place, built in
/// `scratch`. Nothing when there is no such string, when it is not all base64, or when the mark is there already.
///
/// Whether that key is `image.data` is for the reader of the JSON to say: it finds the mark there, or not.
pub(super) fn set_aside<'a>(json: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<(&'a [u8], &'a [u8])> {
    let begin = first_data_text(json.get(..json.len().min(MAX_METADATA_BYTES))?)?;
    let (before, rest) = json.split_at_checked(begin)?;
    let (image, after) = rest.split_at_checked(plain_text(rest)?)?;
    let marked = |part| memchr(ASIDE.as_bytes()[0], part).is_some();
    if image.len() < MIN_IMAGE_BYTES || marked(before) || marked(after) {
        return None;
    }
    scratch.clear();
    for part in [before, ASIDE.as_bytes(), after] {
        scratch.extend_from_slice(part);
    }
    Some((image, scratch))
}

/// Length of the string that `text` begins with, if it is all base64 and ends with a quotation mark. In pieces that stay
/// in the nearest cache for the second look, each of which may be padded: that is for whoever decodes it to refuse.
fn plain_text(text: &[u8]) -> Option<usize> {
    let mut length = 0;
    for piece in text.chunks(PIECE_BYTES) {
        let end = memchr2(b'"', b'\\', piece);
        let plain = piece.get(..end.unwrap_or(piece.len()))?;
        STANDARD.check(plain).ok()?;
        length += plain.len();
        if end.is_some() {
            return (text.get(length) == Some(&b'"')).then_some(length);
        }
    }
    None
}

/// Where the text of the first key `data` that has one begins.
fn first_data_text(json: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"\"data\":";
    memmem::find_iter(json, KEY).find_map(|key| {
        let value = key + KEY.len();
        let spaces = json.get(value..)?.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        (json.get(value + spaces) == Some(&b'"')).then_some(value + spaces + 1)
    })
}

//! Files that hold more than one picture. A frame event describes one; the decoders would take the first and
//! say nothing, be it another focal plane than the event says or another moment.

/// Most directories of a TIFF that are followed: thumbnails of one page.
const MAX_DIRECTORIES: usize = 16;
const ENTRY_BYTES: usize = 12;
/// Tag whose lowest bit says that a picture is a smaller copy of another one.
const NEW_SUBFILE_TYPE: u16 = 254;

/// Whether a PNG announces that it is animated. The chunk that does comes before the pixels.
pub(super) fn png_is_animated(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match after.first_chunk::<4>() {
            Some(b"acTL") => return true,
            Some(b"IDAT") | None => return false,
            Some(_) => {}
        }
        // Name, content and checksum.
        let chunk = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|it| it.checked_add(8));
        let Some(next) = chunk.and_then(|chunk| after.get(chunk..)) else { return false };
        rest = next;
    }
    false
}

/// Whether a TIFF has a second page. A smaller copy of the first is none, and instruments do add one. What cannot
/// be followed is left to the decoder.
pub(super) fn tiff_has_pages(bytes: &[u8]) -> bool {
    let little = bytes.starts_with(b"II");
    let short = |at: usize| {
        let two = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
    };
    let long = |at: usize| {
        let four = *bytes.get(at..)?.first_chunk::<4>()?;
        usize::try_from(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }).ok()
    };
    // Where the next directory lies, and whether this one's picture is a smaller copy.
    let read = |at: usize| {
        let count = usize::from(short(at)?);
        let entries = at.checked_add(2)?;
        let mut tags = (0..count).map(|entry| entries + entry * ENTRY_BYTES);
        let copy = tags.find(|tag| short(*tag) == Some(NEW_SUBFILE_TYPE)).and_then(|tag| long(tag + 8));
        Some((long(entries + count * ENTRY_BYTES)?, copy.is_some_and(|bits| bits & 1 == 1)))
    };
    let Some((mut next, _)) = long(4).and_then(read) else { return false };
    for _ in 0..MAX_DIRECTORIES {
        if next == 0 {
            return false;
        }
        let Some((after, copy)) = read(next) else { return false };
        if !copy {
            return true;
        }
        next = after;
    }
    true
}

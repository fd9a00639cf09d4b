//! Files that somebody made to do harm, or that a laboratory's software makes and that are not one photograph.

use super::*;

/// A PNG chunk with its checksum.
fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [name, content].concat();
    let checksum = crc32fast::hash(&named);
    [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], &named, &checksum.to_be_bytes()].concat()
}

fn header(width: u32, height: u32) -> Vec<u8> {
    // 8 bit, grey, not interlaced.
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat())
}

fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat(), chunk(b"IEND", &[])].concat()
}

/// A zlib stream of `side` x `side` pixels of one grey, which is hundreds of times smaller than they are.
fn blown_up(side: u32) -> Vec<u8> {
    let flat = encoded(&GrayImage::new(side, side).into(), MediaType::Png);
    let (mut rest, mut stream) = (&flat[8..], Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if after.starts_with(b"IDAT") {
            stream.extend_from_slice(&after[4..4 + length]);
        }
        rest = &after[length + 8..];
    }
    assert!(stream.len() * 100 < (side * side) as usize, "{} bytes", stream.len());
    stream
}

fn decoded(bytes: &[u8], media_type: MediaType, width: u32, height: u32) -> Result<Decoded, Rejection> {
    picture(bytes, &describing(bytes, media_type, width, height), &LIMITS, 16)
}

#[test]
fn a_header_of_the_largest_sides_is_refused_by_the_header() {
    let side = u32::from(u16::MAX);
    let empty = png(&[header(side, side), chunk(b"IDAT", &[])]);
    let largest = png(&[header(i32::MAX as u32, i32::MAX as u32), chunk(b"IDAT", &[])]);
    let mut jpeg = encoded(&photograph(16, 16).into(), MediaType::Jpeg);
    let frame = jpeg.windows(2).position(|two| two == [0xFF, 0xC0]).unwrap();
    jpeg.splice(frame + 5..frame + 9, [0xFF; 4]);
    for (media_type, bytes, side) in [
        (MediaType::Png, empty, side),
        (MediaType::Png, largest, i32::MAX as u32),
        (MediaType::Jpeg, jpeg, side),
    ] {
        let rejection = decoded(&bytes, media_type, side, side).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ImageTooManyPixels, "{media_type}: {rejection}");
    }
}

#[test]
fn a_png_whose_pixels_or_colour_profile_inflate_without_end_costs_no_more_than_its_picture() {
    let bomb = blown_up(8_192);
    let pixels = png(&[header(16, 16), chunk(b"IDAT", &bomb)]);
    let flat = blown_up(1_024);
    let profile = [b"profile\0\0".to_vec(), bomb].concat();
    let profile = png(&[header(16, 16), chunk(b"iCCP", &profile), chunk(b"IDAT", &flat)]);
    for bytes in [pixels, profile] {
        // Read no further than the picture needs, or refused: either way it ends here.
        match decoded(&bytes, MediaType::Png, 16, 16) {
            Ok(decoded) => assert_eq!(decoded.statistics.contrast, 0.0),
            Err(rejection) => assert_eq!(rejection.code, RejectionCode::ImageUndecodable, "{rejection}"),
        }
    }
}

#[test]
fn a_file_of_several_pictures_is_refused_and_not_graded_by_its_first() {
    let still = encoded(&photograph(16, 16).into(), MediaType::Png);
    // Signature and header take 33 bytes. Two frames, played for ever.
    let announced = chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]);
    let animated = [&still[..33], &announced, &still[33..]].concat();
    assert!(decoded(&still, MediaType::Png, 16, 16).is_ok());
    let rejection = decoded(&animated, MediaType::Png, 16, 16).unwrap_err();
    assert!(rejection.message.contains("animated"), "{rejection}");
    for big_endian in [false, true] {
        let rejection = decoded(&tiff(2, 0, big_endian), MediaType::Tiff, 2, 2).unwrap_err();
        assert!(rejection.message.contains("several pages"), "{rejection}");
        for (pages, subfile) in [(1, 0), (2, 1)] {
            let read = decoded(&tiff(pages, subfile, big_endian), MediaType::Tiff, 2, 2);
            assert!(read.is_ok(), "one page, or with a thumbnail: {read:?}");
        }
    }
    let gif = b"GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    assert_eq!(code(decoded(gif, MediaType::Png, 1, 1)), RejectionCode::ImageUndecodable);
}

/// 2 x 2 pixels of grey a page; the pages after the first are of this `NewSubfileType`.
fn tiff(pages: u32, subfile: u32, big_endian: bool) -> Vec<u8> {
    const DIRECTORY_BYTES: u32 = 2 + 9 * 12 + 4;
    let short = |it: u16| if big_endian { it.to_be_bytes() } else { it.to_le_bytes() };
    let long = |it: u32| if big_endian { it.to_be_bytes() } else { it.to_le_bytes() };
    let mut bytes = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    // The pixels of all pages lie before the first directory.
    bytes.extend(long(12));
    bytes.extend([10, 20, 30, 40]);
    for page in 0..pages {
        let kind = if page == 0 { 0 } else { subfile };
        // Subfile, width, height, bits, compression, black is zero, offset, rows, length of the strip.
        let entries =
            [(254, kind), (256, 2), (257, 2), (258, 8), (259, 1), (262, 1), (273, 8), (278, 2), (279, 4)];
        bytes.extend(short(9));
        for (tag, value) in entries {
            bytes.extend([short(tag), short(4)].concat());
            bytes.extend([long(1), long(value)].concat());
        }
        bytes.extend(long(if page + 1 == pages { 0 } else { 12 + (page + 1) * DIRECTORY_BYTES }));
    }
    bytes
}

#[test]
fn a_tiff_whose_directories_run_in_a_circle_is_refused() {
    let mut bytes = tiff(2, 1, false);
    let last = bytes.len() - 4;
    bytes.splice(last.., 12_u32.to_le_bytes());
    assert_eq!(code(decoded(&bytes, MediaType::Tiff, 2, 2)), RejectionCode::ImageUndecodable);
}

#[test]
fn a_jpeg_for_the_printing_press_is_refused_by_its_colours() {
    let mut jpeg = encoded(&photograph(16, 16).into(), MediaType::Jpeg);
    // Four components instead of one: in the frame's header and in the scan's.
    let frame = jpeg.windows(2).position(|two| two == [0xFF, 0xC0]).unwrap();
    let components = (1..=4).flat_map(|id| [id, 0x11, 0]);
    jpeg.splice(frame + 9..frame + 13, [4].into_iter().chain(components));
    jpeg.splice(frame + 2..frame + 4, [0, 20]);
    let scan = jpeg.windows(2).position(|two| two == [0xFF, 0xDA]).unwrap();
    let components = (1..=4).flat_map(|id| [id, 0]);
    jpeg.splice(scan + 4..scan + 7, [4].into_iter().chain(components));
    jpeg.splice(scan + 2..scan + 4, [0, 14]);
    let rejection = decoded(&jpeg, MediaType::Jpeg, 16, 16).unwrap_err();
    assert!(rejection.message.contains("CMYK"), "{rejection}");
}

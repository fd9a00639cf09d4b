use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder};
use proptest::prelude::*;

use super::*;
use crate::domain::{ImageLocation, MediaType};

const LIMITS: DecodeSettings = DecodeSettings { max_image_bytes: 1 << 20, max_pixels: 1_000_000, threads: 1 };
const FORMATS: [MediaType; 4] = [MediaType::Jpeg, MediaType::Png, MediaType::Bmp, MediaType::Tiff];

/// Something with edges, gradients and texture.
fn photograph(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        let ring = (x.abs_diff(width / 2).pow(2) + y.abs_diff(height / 2).pow(2)) / 64 % 3 * 40;
        image::Luma([u8::try_from((ring + x / 4 + x * 7 % 13 + y * 5 % 11).min(255)).unwrap()])
    })
}

fn encoded(picture: &DynamicImage, media_type: MediaType) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let format = image::ImageFormat::from_mime_type(media_type.as_str()).unwrap();
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An event that describes exactly these bytes.
fn describing(bytes: &[u8], media_type: MediaType, width: u32, height: u32) -> Image {
    Image {
        location: ImageLocation::Inline,
        sha256: hex::encode(Sha256::digest(bytes)),
        media_type,
        bytes: bytes.len() as u64,
        width,
        height,
    }
}

fn code(result: Result<Decoded, Rejection>) -> RejectionCode {
    result.unwrap_err().code
}

#[test]
fn every_format_gives_the_same_picture_in_grey_colour_and_16_bit() {
    let grey = DynamicImage::from(photograph(96, 64));
    let reference = encoded(&grey, MediaType::Png);
    let reference =
        picture(&reference, &describing(&reference, MediaType::Png, 96, 64), &LIMITS, 32).unwrap().picture;
    let variants = [
        grey.clone(),
        DynamicImage::from(grey.to_rgb8()),
        DynamicImage::from(grey.to_rgba8()),
        DynamicImage::from(grey.to_luma16()),
        DynamicImage::from(grey.to_rgb16()),
        DynamicImage::from(grey.to_luma_alpha8()),
    ];
    let mut compared = 0;
    for media_type in FORMATS {
        for variant in &variants {
            let mut bytes = std::io::Cursor::new(Vec::new());
            let format = image::ImageFormat::from_mime_type(media_type.as_str()).unwrap();
            if variant.write_to(&mut bytes, format).is_err() {
                continue; // Not every format holds every kind of pixel.
            }
            let bytes = bytes.into_inner();
            let got = picture(&bytes, &describing(&bytes, media_type, 96, 64), &LIMITS, 32).unwrap().picture;
            let tolerance = if media_type == MediaType::Jpeg { 12 } else { 0 };
            for (one, other) in got.grey().iter().zip(reference.grey()) {
                assert!(one.abs_diff(*other) <= tolerance, "{media_type} {:?}", variant.color());
            }
            compared += 1;
        }
    }
    assert!(compared >= 14, "{compared}");
}

#[test]
fn the_centre_square_of_either_orientation_is_scaled_with_antialiasing() {
    for (width, height) in [(200, 100), (100, 200)] {
        // Black but for a checkerboard of single pixels in the middle square, which averages to grey.
        let image = GrayImage::from_fn(width, height, |x, y| {
            let inside = (width / 2).abs_diff(x) <= 50 && (height / 2).abs_diff(y) <= 50;
            image::Luma([if inside && (x + y) % 2 == 0 { 255 } else { 0 }])
        });
        let bytes = encoded(&image.into(), MediaType::Png);
        let decoded =
            picture(&bytes, &describing(&bytes, MediaType::Png, width, height), &LIMITS, 10).unwrap();
        assert_eq!(decoded.picture.side_px(), 10);
        assert!(
            decoded.picture.grey().iter().all(|grey| (100..=155).contains(grey)),
            "{:?}",
            decoded.picture
        );
        assert!((decoded.statistics.mean_grey - 127.5).abs() < 5.0 && decoded.statistics.contrast < 10.0);
    }
}

#[test]
fn a_photograph_cut_anywhere_is_undecodable() {
    let picture_of = DynamicImage::from(photograph(64, 48));
    for media_type in FORMATS {
        let whole = encoded(&picture_of, media_type);
        assert!(picture(&whole, &describing(&whole, media_type, 64, 48), &LIMITS, 16).is_ok());
        for length in 0..whole.len() {
            let cut = whole.get(..length).unwrap();
            let result = picture(cut, &describing(cut, media_type, 64, 48), &LIMITS, 16);
            assert_eq!(code(result), RejectionCode::ImageUndecodable, "{media_type} cut at {length}");
        }
    }
}

#[test]
fn a_jpeg_whose_missing_half_is_papered_over_with_an_end_marker_is_undecodable() {
    let whole = encoded(&photograph(64, 48).into(), MediaType::Jpeg);
    for length in (whole.len() / 2)..(whole.len() - 4) {
        let patched = [whole.get(..length).unwrap(), &[0xFF, 0xD9]].concat();
        let result = picture(&patched, &describing(&patched, MediaType::Jpeg, 64, 48), &LIMITS, 16);
        assert_eq!(code(result), RejectionCode::ImageUndecodable, "cut at {length} of {}", whole.len());
    }
}

#[test]
fn padding_after_the_end_of_a_jpeg_is_accepted() {
    let mut bytes = encoded(&photograph(64, 48).into(), MediaType::Jpeg);
    bytes.extend_from_slice(&[0; 100]);
    assert!(picture(&bytes, &describing(&bytes, MediaType::Jpeg, 64, 48), &LIMITS, 16).is_ok());
}

#[test]
fn what_differs_from_the_event_is_refused_with_its_own_code() {
    let bytes = encoded(&photograph(64, 48).into(), MediaType::Png);
    let image = describing(&bytes, MediaType::Png, 64, 48);
    let with = |change: fn(&mut Image)| {
        let mut image = image.clone();
        change(&mut image);
        code(picture(&bytes, &image, &LIMITS, 16))
    };
    assert_eq!(with(|image| image.bytes += 1), RejectionCode::ImageDigestMismatch);
    assert_eq!(with(|image| image.sha256 = "0".repeat(64)), RejectionCode::ImageDigestMismatch);
    assert_eq!(with(|image| image.media_type = MediaType::Bmp), RejectionCode::ImageUndecodable);
    assert_eq!(with(|image| image.width = 63), RejectionCode::ImageSizeMismatch);
    assert_eq!(with(|image| (image.width, image.height) = (48, 64)), RejectionCode::ImageSizeMismatch);
    let small = DecodeSettings { max_image_bytes: 10, ..LIMITS };
    assert_eq!(code(picture(&bytes, &image, &small, 16)), RejectionCode::ImageTooLarge);
    let text = b"this is not an image";
    let as_text = describing(text, MediaType::Jpeg, 64, 48);
    assert_eq!(code(picture(text, &as_text, &LIMITS, 16)), RejectionCode::ImageUndecodable);
}

/// Four headers that promise 100 megapixels and hold next to nothing.
fn bombs() -> Vec<(MediaType, Vec<u8>)> {
    let png = {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend([0, 0, 0x27, 0x10, 0, 0, 0x27, 0x10, 8, 0, 0, 0, 0]);
        bytes.extend([0x9f, 0x25, 0x3d, 0xfb]); // CRC of the header.
        bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
        bytes
    };
    let mut jpeg = encoded(&photograph(16, 16).into(), MediaType::Jpeg);
    let frame = jpeg.windows(2).position(|two| two == [0xFF, 0xC0]).unwrap();
    jpeg.splice(frame + 5..frame + 9, [0x27, 0x10, 0x27, 0x10]);
    let mut bmp = encoded(&photograph(16, 16).into(), MediaType::Bmp);
    bmp.splice(18..26, [0x10, 0x27, 0, 0, 0x10, 0x27, 0, 0]);
    let mut tiff = encoded(&photograph(16, 16).into(), MediaType::Tiff);
    let directory = u32::from_le_bytes(*tiff.get(4..).unwrap().first_chunk().unwrap()) as usize;
    for entry in (directory + 2..tiff.len() - 12).step_by(12) {
        // Tags 256 and 257: width and height, whichever integer type they have.
        if matches!(tiff.get(entry..entry + 2), Some([0 | 1, 1])) {
            tiff.splice(entry + 8..entry + 10, [0x10, 0x27]);
        }
    }
    vec![(MediaType::Png, png), (MediaType::Jpeg, jpeg), (MediaType::Bmp, bmp), (MediaType::Tiff, tiff)]
}

#[test]
fn a_header_that_promises_too_many_pixels_is_refused_before_they_are_allocated() {
    for (media_type, bytes) in bombs() {
        let result = picture(&bytes, &describing(&bytes, media_type, 10_000, 10_000), &LIMITS, 16);
        let rejection = result.unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ImageTooManyPixels, "{media_type}: {rejection}");
    }
}

#[test]
fn a_header_within_the_cap_that_lies_about_its_content_is_undecodable() {
    let generous = DecodeSettings { max_pixels: 100_000_000, ..LIMITS };
    for (media_type, bytes) in bombs() {
        let result = picture(&bytes, &describing(&bytes, media_type, 10_000, 10_000), &generous, 16);
        assert_eq!(code(result), RejectionCode::ImageUndecodable, "{media_type}");
    }
}

#[test]
fn sharpness_falls_with_blur_and_contrast_with_flatness() {
    let measure = |image: GrayImage| {
        let bytes = encoded(&image.into(), MediaType::Png);
        picture(&bytes, &describing(&bytes, MediaType::Png, 128, 128), &LIMITS, 64).unwrap().statistics
    };
    let sharp = measure(photograph(128, 128));
    let blurred = measure(image::imageops::blur(&photograph(128, 128), 6.0));
    let flat = measure(GrayImage::from_pixel(128, 128, image::Luma([90])));
    assert!(sharp.sharpness > 20.0 * blurred.sharpness, "{} {}", sharp.sharpness, blurred.sharpness);
    assert!(sharp.contrast > blurred.contrast);
    assert_eq!((flat.mean_grey, flat.contrast, flat.sharpness), (90.0, 0.0, 0.0));
}

#[test]
fn the_variance_of_the_laplacian_is_that_of_a_hand_computed_example() {
    let mut grey = vec![0; 16];
    grey.splice(5..6, [10]); // Responses at the four inner pixels: 40, -10, -10, 0.
    let picture = Picture::new(4, grey).unwrap();
    assert!((laplacian_variance(&picture) - 425.0).abs() < 1e-3);
    assert_eq!(laplacian_variance(&Picture::new(1, vec![7]).unwrap()), 0.0);
}

#[test]
fn inline_images_are_read_strictly_and_measured_before_decoding() {
    assert_eq!(from_base64("aGVsbG8=", 5).unwrap(), b"hello");
    assert_eq!(from_base64("aGVsbG8=", 4).unwrap_err().code, RejectionCode::ImageTooLarge);
    assert_eq!(from_base64("!".repeat(400), 4).unwrap_err().code, RejectionCode::ImageTooLarge);
    for bad in ["aGVsbG8", "aGVs bG8=", "aGVsbG8=\n", "aGVsbG-_", "====", "a"] {
        assert_eq!(from_base64(bad, 100).unwrap_err().code, RejectionCode::ImageBadBase64, "{bad:?}");
    }
}

/// A small, valid file of each format to start damage from.
fn seeds() -> Vec<(MediaType, Vec<u8>)> {
    let grey = DynamicImage::from(photograph(24, 16));
    let rgb = DynamicImage::from(grey.to_rgb8());
    let mut seeds: Vec<_> = FORMATS.iter().map(|format| (*format, encoded(&grey, *format))).collect();
    seeds.extend(FORMATS.iter().map(|format| (*format, encoded(&rgb, *format))));
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 30)
        .write_image(grey.as_bytes(), 24, 16, ExtendedColorType::L8)
        .unwrap();
    seeds.push((MediaType::Jpeg, jpeg));
    seeds
}

mod hostile;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_behind_a_magic_number_never_panic(
        magic in prop::sample::select(vec![&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*"]),
        tail in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        let bytes = [magic, &tail].concat();
        for media_type in FORMATS {
            let image = describing(&bytes, media_type, 24, 16);
            prop_assert!(raster::decode(&bytes, &image, LIMITS.max_pixels).is_err());
        }
    }

    #[test]
    fn a_damaged_file_never_panics(
        seed in 0..9_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (media_type, mut bytes) = seeds().swap_remove(seed);
        for (place, value) in damage {
            *place.get_mut(&mut bytes) = value;
        }
        // Not through `picture`: it would contain the panic that is looked for.
        let image = describing(&bytes, media_type, 24, 16);
        if let Ok(raster) = raster::decode(&bytes, &image, LIMITS.max_pixels) {
            prop_assert_eq!(raster.luma.len(), 24 * 16);
        }
    }
}

#[test]
fn unasked_half_of_the_cores_decode_and_never_too_few_or_too_many() {
    let unasked = DecodeSettings { threads: 0, ..LIMITS };
    assert_eq!([1, 2, 8, 16, 128].map(|cores| unasked.threads_on(cores)), [2, 2, 4, 8, 16]);
    assert_eq!(LIMITS.threads_on(64), 1);
}

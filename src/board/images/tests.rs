use super::*;
use crate::domain::MediaType;
use crate::pipeline::fetch::FetchSettings;

pub(in crate::board) fn images(max_bytes: usize, prefixes: Vec<String>) -> Images {
    let decode = DecodeSettings { max_image_bytes: 1 << 20, max_pixels: 1 << 20, threads: 1 };
    let fetch = FetchSettings {
        allowed_uri_prefixes: prefixes,
        max_concurrent: 1,
        attempts: 1,
        backoff_ms: 1,
        timeout_ms: 1_000,
    };
    let fetcher = Fetcher::new(&fetch, 1 << 20).unwrap();
    Images::new(decode, fetcher, max_bytes)
}

/// A PNG of this grey, as an event describes it, and its text.
pub(in crate::board) fn photograph(grey: u8, location: ImageLocation) -> (Image, Vec<u8>) {
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_pixel(300, 300, image::Luma([grey]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let png = png.into_inner();
    let image = Image {
        location,
        sha256: hex::encode(Sha256::digest(&png)),
        media_type: MediaType::Png,
        bytes: png.len() as u64,
        width: 300,
        height: 300,
    };
    (image, png)
}

pub(in crate::board) fn text(bytes: &[u8]) -> Vec<u8> {
    base64_simd::STANDARD.encode_to_string(bytes).into_bytes()
}

#[tokio::test]
async fn an_image_is_shown_as_a_grey_square_jpeg_and_never_as_it_came() {
    let images = images(1 << 20, vec![]);
    let (image, png) = photograph(90, ImageLocation::Inline);
    images.keep(image.clone(), Some(&text(&png)));
    let jpeg = images.shown(&image.sha256).await.unwrap();
    let shown = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).unwrap().to_luma8();
    assert_eq!(shown.dimensions(), (448, 448));
    assert!(shown.pixels().all(|pixel| pixel.0[0].abs_diff(90) <= 2));
}

#[tokio::test]
async fn an_image_that_is_not_what_its_digest_says_is_never_held() {
    let images = images(1 << 20, vec![]);
    let (image, _) = photograph(90, ImageLocation::Inline);
    let (_, other) = photograph(91, ImageLocation::Inline);
    images.keep(image.clone(), Some(&text(&other)));
    images.keep(image.clone(), Some(b"no base64"));
    images.keep(image.clone(), None);
    assert!(!images.holds(&image.sha256));
    assert_eq!(images.shown(&image.sha256).await, Err(NoImage::NotHeld));
}

#[tokio::test]
async fn an_image_elsewhere_is_fetched_from_allowed_places_only_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let uri = |name: &str| format!("file://{}/{name}", folder.path().display());

    std::fs::create_dir(folder.path().join("held")).unwrap();
    let images = images(1 << 20, vec![uri("held")]);
    let (image, png) = photograph(90, ImageLocation::Uri(uri("held/a.png")));
    std::fs::write(folder.path().join("held/a.png"), &png).unwrap();
    images.keep(image.clone(), None);
    assert!(images.shown(&image.sha256).await.is_ok());
    let (_, other) = photograph(91, ImageLocation::Inline);
    std::fs::write(folder.path().join("held/a.png"), other).unwrap();
    assert_eq!(images.shown(&image.sha256).await, Err(NoImage::Unusable));
    let (outside, png) = photograph(92, ImageLocation::Uri(uri("b.png")));
    std::fs::write(folder.path().join("b.png"), png).unwrap();
    images.keep(outside.clone(), None);
    assert_eq!(images.shown(&outside.sha256).await, Err(NoImage::Unusable));
}

#[test]
fn what_is_held_is_bounded_and_what_was_looked_at_stays_longer() {
    let (first, png) = photograph(1, ImageLocation::Inline);
    let room = 3 * (png.len() + OVERHEAD_BYTES) + 64;
    let images = images(room, vec![]);
    let mut all = vec![first.clone()];
    images.keep(first.clone(), Some(&text(&png)));
    for grey in 2..10 {
        let (image, png) = photograph(grey, ImageLocation::Inline);
        images.keep(image.clone(), Some(&text(&png)));
        all.push(image);
        images.lock().images.get(&first.sha256);
    }
    let held: Vec<bool> = all.iter().map(|image| images.holds(&image.sha256)).collect();
    assert_eq!(held.iter().filter(|held| **held).count(), 3);
    assert!(held[0] && held[8] && !held[1]);
    assert!(images.lock().bytes <= room);
}

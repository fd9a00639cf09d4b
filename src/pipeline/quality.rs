//! The quality gate: photographs that no one could grade are not given to the model.

use serde::{Deserialize, Serialize};

use crate::domain::{AbstainReason, PictureStatistics};

/// Thresholds of the quality gate. Grey values and deviations are in units of an 8-bit picture at the
/// model's size.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualitySettings {
    /// Shorter side of the photograph, pixels.
    pub min_side_px: u32,
    /// Mean grey value below which it is underexposed.
    pub min_mean_grey: f32,
    /// Mean grey value above which it is overexposed.
    pub max_mean_grey: f32,
    /// Standard deviation of the grey values below which there is nothing to see.
    pub min_contrast: f32,
    /// Variance of the Laplacian below which nothing is in focus.
    pub min_sharpness: f32,
}

/// Every reason for which this photograph is not graded; empty when it is good enough. `width` and
/// `height` are those of the photograph, pixels.
#[must_use]
pub fn gate(
    statistics: &PictureStatistics,
    width: u32,
    height: u32,
    settings: &QualitySettings,
) -> Vec<AbstainReason> {
    let checks = [
        (width.min(height) < settings.min_side_px, AbstainReason::TooSmall),
        (statistics.mean_grey < settings.min_mean_grey, AbstainReason::Underexposed),
        (statistics.mean_grey > settings.max_mean_grey, AbstainReason::Overexposed),
        (statistics.contrast < settings.min_contrast, AbstainReason::LowContrast),
        (statistics.sharpness < settings.min_sharpness, AbstainReason::Blurred),
    ];
    checks.into_iter().filter_map(|(fails, reason)| fails.then_some(reason)).collect()
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::domain::{Image, ImageLocation, MediaType};
    use crate::pipeline::decode::{DecodeSettings, picture};

    const SETTINGS: QualitySettings = QualitySettings {
        min_side_px: 224,
        min_mean_grey: 20.0,
        max_mean_grey: 235.0,
        min_contrast: 4.0,
        min_sharpness: 10.0,
    };

    fn reasons(photograph: &GrayImage) -> Vec<AbstainReason> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        photograph.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        let bytes = bytes.into_inner();
        let (width, height) = photograph.dimensions();
        let image = Image {
            location: ImageLocation::Inline,
            sha256: hex::encode(Sha256::digest(&bytes)),
            media_type: MediaType::Png,
            bytes: bytes.len() as u64,
            width,
            height,
        };
        let limits = DecodeSettings { max_image_bytes: 1 << 20, max_pixels: 1 << 20, threads: 1 };
        gate(&picture(&bytes, &image, &limits, 224).unwrap().statistics, width, height, &SETTINGS)
    }

    /// A bright ring with a little texture, somewhat like an expanded blastocyst.
    fn blastocyst(side_px: u32) -> GrayImage {
        let centre = f64::from(side_px) / 2.0;
        GrayImage::from_fn(side_px, side_px, |x, y| {
            let radius = (f64::from(x) - centre).hypot(f64::from(y) - centre) / centre;
            let ring: u8 = if (0.6..0.7).contains(&radius) { 60 } else { 0 };
            let texture = u8::try_from((x * 31 + y * 17 + x * y % 7) % 23).unwrap();
            Luma([120 + ring + texture])
        })
    }

    fn flat(grey: u8) -> GrayImage {
        GrayImage::from_pixel(400, 400, Luma([grey]))
    }

    #[test]
    fn a_normal_photograph_passes() {
        assert_eq!(reasons(&blastocyst(400)), []);
    }

    #[test]
    fn black_white_and_flat_grey_frames_are_refused_for_what_they_are() {
        use AbstainReason::{Blurred, LowContrast, Overexposed, Underexposed};
        assert_eq!(reasons(&flat(0)), [Underexposed, LowContrast, Blurred]);
        assert_eq!(reasons(&flat(255)), [Overexposed, LowContrast, Blurred]);
        assert_eq!(reasons(&flat(128)), [LowContrast, Blurred]);
    }

    #[test]
    fn a_heavily_blurred_photograph_is_refused() {
        assert_eq!(reasons(&image::imageops::blur(&blastocyst(400), 8.0)), [AbstainReason::Blurred]);
    }

    #[test]
    fn the_shorter_side_decides_whether_a_photograph_is_too_small() {
        assert_eq!(reasons(&blastocyst(223)), [AbstainReason::TooSmall]);
        let strip = image::imageops::crop_imm(&blastocyst(400), 0, 100, 400, 200).to_image();
        assert_eq!(reasons(&strip), [AbstainReason::TooSmall]);
    }
}

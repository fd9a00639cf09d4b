//! The quality gate: photographs that no one could grade are not given to the model.

use serde::{Deserialize, Serialize};

use super::decode::Decoded;
use crate::domain::AbstainReason;

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
pub fn gate(decoded: &Decoded, width: u32, height: u32, settings: &QualitySettings) -> Vec<AbstainReason> {
    let checks = [
        (width.min(height) < settings.min_side_px, AbstainReason::TooSmall),
        (decoded.mean_grey < settings.min_mean_grey, AbstainReason::Underexposed),
        (decoded.mean_grey > settings.max_mean_grey, AbstainReason::Overexposed),
        (decoded.contrast < settings.min_contrast, AbstainReason::LowContrast),
        (decoded.sharpness < settings.min_sharpness, AbstainReason::Blurred),
    ];
    checks.into_iter().filter_map(|(fails, reason)| fails.then_some(reason)).collect()
}

//! What a microscope may do to a picture without changing its grade: turn it, mirror it, miss the
//! focus a little, light it differently.

use std::f32::consts::TAU;

use crate::domain::Picture;
use crate::random::Random;

/// Largest shift and relative change of size, share of the picture.
const MAX_SHIFT: f32 = 0.03;
const MAX_ZOOM: f32 = 0.04;
/// Largest relative change of contrast, and of brightness in grey values from 0 to 1.
const MAX_CONTRAST: f32 = 0.2;
const MAX_BRIGHTNESS: f32 = 0.08;
/// Largest difference of illumination from one edge to the other.
const MAX_SLOPE: f32 = 0.08;
/// Share of pictures that are blurred, and the largest radius of the blur in pixels of 224.
const BLURRED: f32 = 0.3;
const MAX_BLUR_PX: f32 = 1.2;

/// A picture as grey values 0 to 1, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Width and height.
    pub side_px: usize,
    /// `side_px` x `side_px` values.
    pub grey: Vec<f32>,
}

/// The picture as it is, `side_px` x `side_px`.
#[must_use]
pub fn plain(picture: &Picture, side_px: usize) -> View {
    sample(picture, side_px, [1.0, 0.0, 0.0, 1.0], [0.0, 0.0])
}

/// The picture under another orientation, light and focus, `side_px` x `side_px`.
#[must_use]
pub fn augmented(picture: &Picture, side_px: usize, random: &mut Random) -> View {
    let (sin, cos) = random.within(0.0, TAU).sin_cos();
    let zoom = random.within(1.0 - MAX_ZOOM, 1.0 + MAX_ZOOM);
    let mirror = if random.chance(0.5) { -1.0 } else { 1.0 };
    let shift = [random.within(-MAX_SHIFT, MAX_SHIFT), random.within(-MAX_SHIFT, MAX_SHIFT)];
    let turn = [zoom * cos * mirror, -zoom * sin, zoom * sin * mirror, zoom * cos];
    let mut view = sample(picture, side_px, turn, shift);
    if random.chance(BLURRED) {
        #[allow(clippy::cast_precision_loss, reason = "a few hundred pixels")]
        let scale = side_px as f32 / 224.0;
        blur(&mut view, random.within(0.0, MAX_BLUR_PX) * scale);
    }
    let contrast = random.within(1.0 - MAX_CONTRAST, 1.0 + MAX_CONTRAST);
    let brightness = random.within(-MAX_BRIGHTNESS, MAX_BRIGHTNESS);
    let slope = [random.within(-MAX_SLOPE, MAX_SLOPE), random.within(-MAX_SLOPE, MAX_SLOPE)];
    light(&mut view, contrast, brightness, slope);
    view
}

/// Bilinear samples at `turn * p + shift`, `p` from -0.5 to 0.5; beyond the edge the picture is mirrored.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates within a picture, mirrored into it"
)]
fn sample(picture: &Picture, side_px: usize, turn: [f32; 4], shift: [f32; 2]) -> View {
    let source = picture.side_px();
    let [a, b, c, d] = turn;
    let mirrored = |value: f32| {
        let last = (source - 1) as f32;
        let folded = value.abs() % (2.0 * last);
        if folded > last { 2.0 * last - folded } else { folded }
    };
    let grey = picture.grey();
    // A pixel of a smaller view is the mean of what it covers, or fine structure would alias.
    let taps = source.div_ceil(side_px).clamp(1, 4);
    let step = 1.0 / (side_px * taps) as f32;
    let at = |x: f32, y: f32| {
        let (u, v) = (a * x + b * y + shift[0] + 0.5, c * x + d * y + shift[1] + 0.5);
        let (u, v) = (mirrored(u * source as f32 - 0.5), mirrored(v * source as f32 - 0.5));
        let (left, top) = (u as usize, v as usize);
        let (right, bottom) = ((left + 1).min(source - 1), (top + 1).min(source - 1));
        let (fx, fy) = (u - left as f32, v - top as f32);
        let pixel = |x: usize, y: usize| f32::from(grey.get(y * source + x).copied().unwrap_or(0));
        let upper = pixel(left, top) * (1.0 - fx) + pixel(right, top) * fx;
        let lower = pixel(left, bottom) * (1.0 - fx) + pixel(right, bottom) * fx;
        upper * (1.0 - fy) + lower * fy
    };
    let scale = 1.0 / (255 * taps * taps) as f32;
    let mut values = Vec::with_capacity(side_px * side_px);
    for row in 0..side_px {
        for column in 0..side_px {
            let mut sum = 0.0;
            for tap in 0..taps * taps {
                let x = ((column * taps + tap % taps) as f32 + 0.5) * step - 0.5;
                let y = ((row * taps + tap / taps) as f32 + 0.5) * step - 0.5;
                sum += at(x, y);
            }
            values.push(sum * scale);
        }
    }
    View { side_px, grey: values }
}

/// Two passes of a three-tap kernel with the given standard deviation, which must stay below 1.2.
fn blur(view: &mut View, sigma_px: f32) {
    let side = view.side_px;
    // Two three-tap passes [w, 1 - 2w, w] have a variance of 4w.
    let weight = (sigma_px * sigma_px / 4.0).min(1.0 / 3.0);
    for _ in 0..2 {
        for step in [1, side] {
            let from = view.grey.clone();
            for (index, value) in view.grey.iter_mut().enumerate() {
                let position = if step == 1 { index % side } else { index / side };
                if position == 0 || position + 1 == side {
                    continue;
                }
                let neighbour = |index: usize| from.get(index).copied().unwrap_or(0.0);
                let sides = neighbour(index - step) + neighbour(index + step);
                *value += weight * (sides - 2.0 * *value);
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a few hundred pixels")]
fn light(view: &mut View, contrast: f32, brightness: f32, slope: [f32; 2]) {
    let side = view.side_px;
    let mean = view.grey.iter().sum::<f32>() / view.grey.len().max(1) as f32;
    for (index, value) in view.grey.iter_mut().enumerate() {
        let (x, y) = ((index % side) as f32 / side as f32 - 0.5, (index / side) as f32 / side as f32 - 0.5);
        let lit = (*value - mean) * contrast + mean + brightness + slope[0] * x + slope[1] * y;
        *value = lit.clamp(0.0, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bright spot right of the centre on a grey ground.
    fn spot() -> Picture {
        let grey = (0..64 * 64).map(|index| {
            let (x, y) = (index % 64, index / 64);
            if (x - 44_i32).pow(2) + (y - 32_i32).pow(2) < 30 { 220 } else { 100 }
        });
        Picture::new(64, grey.collect()).unwrap()
    }

    fn brightest(view: &View) -> (f32, f32) {
        let sums = view.grey.iter().enumerate().filter(|(_, value)| **value > 0.7).fold(
            (0.0, 0.0, 0.0),
            |(x, y, n), (index, _)| {
                (x + (index % view.side_px) as f32, y + (index / view.side_px) as f32, n + 1.0)
            },
        );
        let half = view.side_px as f32 / 2.0 - 0.5;
        ((sums.0 / sums.2 - half) / view.side_px as f32, (sums.1 / sums.2 - half) / view.side_px as f32)
    }

    #[test]
    fn a_plain_view_is_the_picture() {
        let grey: Vec<u8> =
            plain(&spot(), 64).grey.iter().map(|value| (value * 255.0).round() as u8).collect();
        assert_eq!(grey, spot().grey());
    }

    #[test]
    fn a_half_size_view_is_the_mean_of_what_each_pixel_covers() {
        let picture = Picture::new(2, vec![0, 100, 50, 250]).unwrap();
        let view = plain(&picture, 1);
        assert!((view.grey[0] * 255.0 - 100.0).abs() < 0.01, "{:?}", view.grey);
    }

    #[test]
    fn a_turned_picture_keeps_its_distances() {
        let mut random = Random::new(5);
        for _ in 0..20 {
            let (x, y) = brightest(&augmented(&spot(), 64, &mut random));
            let distance = x.hypot(y);
            assert!((distance - 12.0 / 64.0).abs() < 0.06, "{distance}");
        }
    }

    #[test]
    fn every_view_differs_and_the_same_seed_gives_the_same() {
        let views = |seed| {
            let mut random = Random::new(seed);
            (0..3).map(|_| augmented(&spot(), 32, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(views(1), views(1));
        assert_ne!(views(1)[0], views(1)[1]);
    }

    #[test]
    fn blur_keeps_the_mean_and_lowers_the_peak() {
        let mut view = plain(&spot(), 64);
        let (before, peak) = (view.grey.iter().sum::<f32>(), view.grey.iter().copied().fold(0.0, f32::max));
        view.grey[20 * 64 + 20] = 1.0;
        blur(&mut view, 1.0);
        assert!((view.grey.iter().sum::<f32>() - before).abs() < 1.0);
        assert!(view.grey[20 * 64 + 20] < peak);
    }
}

//! Pictures of what is no embryo, for tests and demos of how a model meets what it was not trained on.
//! The same arguments give the same pixels.

use std::f32::consts::TAU;

use image::{GrayImage, Luma};

use super::canvas::{Body, Canvas, Joint, SENSOR_NOISE, Tube};
use super::random::{Random, mix};
use crate::glyph::{LETTERS, glyph};

/// Length and half-width of the worm: *C. elegans* between its first and second larval stage.
const WORM_LENGTH_UM: f32 = 290.0;
const WORM_RADIUS_UM: f32 = 10.5;
/// Points of its centre line.
const WORM_JOINTS: u16 = 60;
/// Grey values of printed text.
const PAPER: u8 = 205;
const INK: u8 = 45;

/// The well with nothing in it, in the light of that day. `side_px` x `side_px` pixels.
#[must_use]
pub fn empty_well(side_px: u32, seed: u64) -> GrayImage {
    let mut canvas = Canvas::new(side_px as usize);
    canvas.clear(0.0);
    photograph(&canvas, side_px, mix(&[seed, 30]))
}

/// A nematode larva, seen in the same light and at the same scale as an embryo. `side_px` x `side_px`
/// pixels.
#[must_use]
pub fn nematode(side_px: u32, seed: u64) -> GrayImage {
    let mut random = Random::new(mix(&[seed, 31]));
    let spine = spine(&mut random);
    let mut canvas = Canvas::new(side_px as usize);
    canvas.clear(0.0);
    let mut tube = |joints: &[Joint], edge: f32, tone: f32, grain: f32, relief: f32| {
        let pattern = random.next_u64();
        canvas.draw_tube(&Tube { joints, z: 0.0, edge, tone, grain, relief, pattern });
    };
    let part = |from: f32, to: f32, width: f32| -> Vec<Joint> {
        let place = |share: f32| (share * f32::from(WORM_JOINTS - 1)) as usize;
        let joints = spine.iter().take(place(to) + 1).skip(place(from));
        joints.map(|joint| Joint { radius: width * joint.radius, ..*joint }).collect()
    };
    // Cuticle, then the dark and granular gut with its lumen, then the clear pharynx with its two bulbs.
    tube(&part(0.0, 1.0, 1.0), 0.24, 0.012, 0.012, 0.06);
    tube(&part(0.30, 0.88, 0.68), 0.05, -0.045, 0.05, 0.02);
    tube(&part(0.31, 0.87, 0.10), 0.06, 0.02, 0.0, 0.0);
    tube(&part(0.02, 0.29, 0.22), 0.11, -0.01, 0.01, 0.02);
    for (share, radius) in [(0.15, 4.6), (0.27, 6.2)] {
        if let Some(Joint { x, y, .. }) = part(share, share, 1.0).first() {
            canvas.draw(&Body { edge: 0.16, tone: -0.02, relief: 0.04, ..Body::round(*x, *y, 0.0, radius) });
            canvas.draw(&Body { edge: 0.10, tone: -0.02, ..Body::round(*x, *y, 0.0, 1.6) });
        }
    }
    photograph(&canvas, side_px, mix(&[seed, 32]))
}

/// The centre line from head to tail: a sine wave in the direction, as it crawls.
fn spine(random: &mut Random) -> Vec<Joint> {
    let (heading, phase) = (random.within(0.0, TAU), random.within(0.0, TAU));
    let (swing, waves) = (random.within(0.75, 1.1), random.within(1.2, 1.7));
    let step = WORM_LENGTH_UM / f32::from(WORM_JOINTS - 1);
    let (mut x, mut y) = (0.0, 0.0);
    let mut spine = Vec::with_capacity(usize::from(WORM_JOINTS));
    for index in 0..WORM_JOINTS {
        let share = f32::from(index) / f32::from(WORM_JOINTS - 1);
        // A blunt head, a tail that ends in a point.
        let head = 0.45 + 0.55 * (share / 0.25).min(1.0).powf(0.6);
        let tail = 1.0 - 0.96 * ((share - 0.68) / 0.32).max(0.0).powf(1.4);
        spine.push(Joint { x, y, radius: WORM_RADIUS_UM * head.min(tail) });
        let (sin, cos) = (heading + swing * (waves * TAU * share + phase).sin()).sin_cos();
        (x, y) = (x + step * cos, y + step * sin);
    }
    let count = f32::from(WORM_JOINTS);
    let (mx, my) =
        spine.iter().fold((0.0, 0.0), |(mx, my), joint| (mx + joint.x / count, my + joint.y / count));
    spine.iter_mut().for_each(|joint| (joint.x, joint.y) = (joint.x - mx, joint.y - my));
    spine
}

/// A page of printed letters. `side_px` x `side_px` pixels.
#[must_use]
pub fn text(side_px: u32, seed: u64) -> GrayImage {
    let mut random = Random::new(mix(&[seed, 33]));
    let letters: Vec<char> = LETTERS.chars().collect();
    let dot = (side_px / 112).max(1);
    let margin = 4 * dot;
    let mut page = GrayImage::from_pixel(side_px, side_px, Luma([PAPER]));
    for top in (margin..side_px.saturating_sub(margin + 5 * dot)).step_by(8 * dot as usize) {
        let mut left = margin;
        let mut word = 0;
        while left + 3 * dot + margin <= side_px {
            let letter = random.next_u64() as usize % letters.len();
            // A word has 2 letters and then ends with any letter, once in four.
            let ends = word > 1 && random.chance(0.25);
            word = if ends { 0 } else { word + 1 };
            let letter = letters.get(letter).copied().filter(|_| !ends).unwrap_or(' ');
            for (row, bits) in (0..).zip(glyph(letter)) {
                for column in (0..3).filter(|column| bits >> (2 - column) & 1 == 1) {
                    let square = (0..dot).flat_map(|y| (0..dot).map(move |x| (x, y)));
                    for (x, y) in square {
                        let place = (left + column * dot + x, top + row * dot + y);
                        if let Some(pixel) = page.get_pixel_mut_checked(place.0, place.1) {
                            *pixel = Luma([INK]);
                        }
                    }
                }
            }
            left += 4 * dot;
        }
    }
    page
}

fn photograph(canvas: &Canvas, side_px: u32, seed: u64) -> GrayImage {
    let gain = Random::new(seed).about(1.0, 0.05);
    GrayImage::from_raw(side_px, side_px, canvas.expose(gain, SENSOR_NOISE, seed)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::canvas::FIELD_UM;
    use super::*;

    /// Share of the pixels that differ from their neighbour by more than noise does.
    fn edges(picture: &GrayImage) -> f64 {
        let rows = picture.as_raw().chunks_exact(picture.width() as usize);
        let pairs = rows.flat_map(|row| row.windows(2)).filter(|pair| pair[0].abs_diff(pair[1]) > 12);
        pairs.count() as f64 / picture.len() as f64
    }

    #[test]
    fn the_same_seed_gives_the_same_pixels_and_another_seed_other_ones() {
        for draw in [empty_well, nematode, text] {
            let picture = draw(96, 3);
            assert_eq!(picture.dimensions(), (96, 96));
            assert_eq!(picture, draw(96, 3));
            assert_ne!(picture, draw(96, 4));
        }
    }

    #[test]
    fn a_worm_is_a_body_that_fits_into_the_field_of_view() {
        for seed in 0..40 {
            let spine = spine(&mut Random::new(mix(&[seed, 31])));
            let half = FIELD_UM / 2.0;
            assert!(spine.iter().all(|joint| joint.x.abs().max(joint.y.abs()) < half), "seed {seed}");
            assert!(spine.iter().all(|joint| (0.3..=WORM_RADIUS_UM).contains(&joint.radius)), "seed {seed}");
        }
    }

    #[test]
    fn an_empty_well_shows_nothing_a_worm_a_little_and_a_page_a_lot() {
        for seed in 0..4 {
            let [well, worm, page] = [empty_well, nematode, text].map(|draw| edges(&draw(224, seed)));
            assert!(well < 0.002, "{well}");
            assert!((0.01..0.06).contains(&worm), "{worm}");
            assert!(page > 0.1, "{page}");
        }
    }
}

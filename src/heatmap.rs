//! Where a head of the model looked, laid over the photograph.

mod looker;

pub use looker::{Looker, NotSeen, Seen};

use image::{Rgb, RgbImage};

use crate::domain::Picture;
use crate::model::Map;

/// Side of a panel, pixels.
pub const PANEL_PX: u32 = 448;
/// How much of the picture the largest value of a map hides.
const OPACITY: f64 = 0.65;

/// The picture under a map: to the map's own maximum, from nothing over violet and red to yellow.
#[must_use]
pub fn overlay(picture: &Picture, map: &Map) -> RgbImage {
    RgbImage::from_fn(PANEL_PX, PANEL_PX, |x, y| pixel(picture, Some(map), x, y))
}

/// One pixel of a panel, with a map or without.
pub(crate) fn pixel(picture: &Picture, map: Option<&Map>, x: u32, y: u32) -> Rgb<u8> {
    let grey = f64::from(grey_at(picture, x, y));
    let value = map.filter(|map| map.max() > 0.0).map_or(0.0, |map| {
        let place = |pixel: u32| (f64::from(pixel) + 0.5) / f64::from(PANEL_PX);
        map.at(place(x), place(y)) / f64::from(map.max())
    });
    let cover = OPACITY * value;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    Rgb(ramp(value).map(|part| ((1.0 - cover) * grey + cover * 255.0 * part) as u8))
}

fn grey_at(picture: &Picture, x: u32, y: u32) -> u8 {
    let side = picture.side_px();
    let pixel = |at: u32| at as usize * side / PANEL_PX as usize;
    picture.grey().get(pixel(y) * side + pixel(x)).copied().unwrap_or(0)
}

/// From black over violet and red to yellow, gnuplot's default: lighter all the way, so that it can be
/// read without telling red from green, and in grey.
fn ramp(value: f64) -> [f64; 3] {
    [value.sqrt(), value.powi(3), (std::f64::consts::TAU * value).sin().max(0.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_grow_lighter_all_the_way() {
        let lightness = |step: u32| {
            let [red, green, blue] = ramp(f64::from(step) / 100.0);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        assert!((0..100).all(|step| lightness(step) < lightness(step + 1)));
        assert!((0..=100).flat_map(|step| ramp(f64::from(step) / 100.0)).all(|x| (0.0..=1.0).contains(&x)));
    }

    #[test]
    fn a_panel_is_coloured_where_its_map_is_hot_and_grey_elsewhere() {
        let picture = Picture::new(224, vec![100; 224 * 224]).unwrap();
        let map = Map::new((0..49).map(|cell| if cell == 24 { 0.3 } else { 0.0 }).collect()).unwrap();
        let panel = overlay(&picture, &map);
        assert_eq!(panel.get_pixel(32, 32), &Rgb([100; 3]));
        let hot = panel.get_pixel(224, 224);
        assert!(hot[0] > 190 && hot[2] < 50, "not yellow: {hot:?}");
    }
}

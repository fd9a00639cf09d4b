//! `memebg grade --explain DIR`: where the model looked, as pictures.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use image::{Rgb, RgbImage};

use crate::domain::{GradeClass, HeadGrade, Heads, Picture};
use crate::glyph::glyph;
use crate::heatmap::{PANEL_PX, pixel};
use crate::model::Map;

/// Pixels per dot of a letter.
const DOT_PX: u32 = 4;

/// Writes the explanation of one image into `dir` and says where.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(
    dir: &Path,
    image: &Path,
    image_sha256: &str,
    picture: &Picture,
    heads: &Heads,
    maps: &[Map; 3],
) -> anyhow::Result<PathBuf> {
    let stem = image.file_stem().unwrap_or_default().to_string_lossy();
    let digest: String = image_sha256.chars().take(8).collect();
    let path = dir.join(format!("{stem}-{digest}.png"));
    panels(picture, heads, maps).save(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The picture, and beside it once more with the map of each head that has a grade.
fn panels(picture: &Picture, heads: &Heads, [exp, icm, te]: &[Map; 3]) -> RgbImage {
    let mut maps = vec![(exp, caption("EXP", &heads.exp))];
    maps.extend(heads.icm.as_ref().map(|head| (icm, caption("ICM", head))));
    maps.extend(heads.te.as_ref().map(|head| (te, caption("TE", head))));
    let count = 1 + u32::try_from(maps.len()).unwrap_or(0);
    let mut panels = RgbImage::from_fn(count * PANEL_PX, PANEL_PX, |x, y| {
        let (panel, x) = (x / PANEL_PX, x % PANEL_PX);
        let map = (panel as usize).checked_sub(1).and_then(|index| maps.get(index)).map(|(map, _)| *map);
        pixel(picture, map, x, y)
    });
    for (panel, (_, caption)) in (1..).zip(&maps) {
        print(&mut panels, panel * PANEL_PX + 2 * DOT_PX, 2 * DOT_PX, caption);
    }
    panels
}

/// Such as `EXP 4 0.87`: the class that the map is about, and how sure the head is.
fn caption<G: GradeClass>(name: &str, head: &HeadGrade<G>) -> String {
    format!("{name} {} {:.2}", head.grade.label(), head.confidence)
}

/// Prints white letters on black.
fn print(picture: &mut RgbImage, left: u32, top: u32, text: &str) {
    let columns = 4 * u32::try_from(text.chars().count()).unwrap_or(0) + 1;
    let mut dot = |column: u32, row: u32, colour: Rgb<u8>| {
        for (dx, dy) in (0..DOT_PX).flat_map(|dy| (0..DOT_PX).map(move |dx| (dx, dy))) {
            let (x, y) = (left + column * DOT_PX + dx, top + row * DOT_PX + dy);
            if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
                *pixel = colour;
            }
        }
    };
    (0..7).for_each(|row| (0..columns).for_each(|column| dot(column, row, Rgb([0; 3]))));
    for (index, letter) in (0..).zip(text.chars()) {
        for (row, bits) in (1..).zip(glyph(letter)) {
            for column in (0..3).filter(|column| bits >> (2 - column) & 1 == 1) {
                dot(4 * index + 1 + column, row, Rgb([255; 3]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(hot: usize) -> Map {
        Map::new((0..49).map(|cell| if cell == hot { 0.3 } else { 0.0 }).collect()).unwrap()
    }

    fn heads(expansion: usize) -> Heads {
        let mut exp = [0.0; 6];
        exp[expansion - 1] = 4.0;
        let letter = |logits: &[f32; 3]| HeadGrade::from_logits(logits, 1.0).unwrap();
        let exp = HeadGrade::from_logits(&exp, 1.0).unwrap();
        Heads::new(exp, letter(&[1.0, 0.0, 0.0]), letter(&[0.0, 0.0, 1.0]))
    }

    /// Explains a grey picture whose maps are hot in cells 16, 24 and 32.
    fn explained(expansion: usize) -> RgbImage {
        let picture = Picture::new(224, vec![100; 224 * 224]).unwrap();
        panels(&picture, &heads(expansion), &[map(16), map(24), map(32)])
    }

    fn is_grey(pixel: &Rgb<u8>) -> bool {
        pixel.0.iter().all(|part| part.abs_diff(100) <= 1)
    }

    #[test]
    fn each_head_is_coloured_where_its_map_is_hot_and_the_first_panel_nowhere() {
        let picture = explained(4);
        assert_eq!(picture.dimensions(), (4 * PANEL_PX, PANEL_PX));
        for panel in 0..4 {
            for cell in [16, 24, 32] {
                let (x, y) = (64 * (cell % 7) + 32, 64 * (cell / 7) + 32);
                let pixel = picture.get_pixel(panel * PANEL_PX + x, y);
                let hot = [0, 16, 24, 32][panel as usize] == cell;
                assert_eq!(is_grey(pixel), !hot, "panel {panel}, cell {cell}: {pixel:?}");
                assert!(!hot || pixel[0] > 190 && pixel[2] < 50, "not yellow: {pixel:?}");
            }
        }
    }

    #[test]
    fn heads_without_a_grade_have_no_panel() {
        assert_eq!(explained(2).dimensions(), (2 * PANEL_PX, PANEL_PX));
    }

    #[test]
    fn a_map_of_zeros_colours_nothing() {
        let picture = Picture::new(224, vec![100; 224 * 224]).unwrap();
        let zeros = || Map::new(vec![0.0; 49]).unwrap();
        let panels = panels(&picture, &heads(2), &[zeros(), zeros(), zeros()]);
        assert!(panels.enumerate_pixels().filter(|(_, y, _)| *y > 40).all(|(_, _, pixel)| is_grey(pixel)));
    }

    #[test]
    fn every_caption_can_be_printed() {
        let heads = heads(3);
        let letters = heads.icm.as_ref().unwrap();
        let all = caption("EXP", &heads.exp) + &caption("ICM", letters) + &caption("TE", letters);
        assert!(all.starts_with("EXP 3 0.9"), "{all}");
        assert!((all + "0123456789ABC").chars().all(|letter| letter == ' ' || glyph(letter) != [0; 5]));
    }
}

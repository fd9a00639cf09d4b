//! Where the parts of a blastocyst are. What is drawn and what [`Regions`] says of it come from the
//! same bodies, so that they cannot drift apart.

use std::f32::consts::{PI, TAU};

use super::Embryo;
use super::canvas::{Body, FIELD_UM};
use super::embryo::Development;
use super::random::{Random, mix};
use crate::domain::Letter;

/// How far the bright fringe of an outline reaches beyond what it outlines.
const FRINGE_UM: f32 = 5.0;
/// Thickness of a trophectoderm cell as a share of the mean.
const THINNEST: f32 = 0.65;
const THICKEST: f32 = 1.35;
/// Between a wall and its cells.
const GAP_UM: f32 = 0.4;

/// Where an embryo lies in the field of view, and how bright its photographs are.
pub(super) struct Placement {
    pub(super) gain: f32,
    pub(super) centre: (f32, f32),
}

impl Placement {
    pub(super) fn of(embryo: &Embryo, hours: f32) -> Self {
        let mut random = Random::new(mix(&[embryo.seed, 2]));
        let gain = random.about(1.0, 0.05);
        // It lies where it fell, and drifts a little.
        let drift = hours * 0.05 + random.within(0.0, TAU);
        let x = random.within(-9.0, 9.0) + 2.0 * drift.cos();
        let y = random.within(-9.0, 9.0) + 2.0 * drift.sin();
        Self { gain, centre: (x, y) }
    }
}

/// A blastocyst's measures at one moment.
pub(super) struct Blastocyst {
    pub(super) expansion: f32,
    pub(super) centre: (f32, f32),
    pub(super) radius: f32,
    /// Where the inner cell mass sits.
    pub(super) axis: f32,
}

impl Blastocyst {
    pub(super) fn of(embryo: &Embryo, centre: (f32, f32), expansion: f32) -> Self {
        let mut random = Random::new(mix(&[embryo.seed, 8]));
        let radius = between(expansion, &[60.0, 61.0, 64.0, 80.0, 90.0, 96.0, 98.0]);
        Self { expansion, centre, radius, axis: random.within(0.0, TAU) }
    }

    pub(super) fn is_expanded(&self) -> bool {
        self.expansion >= 3.0
    }
}

/// An expanded blastocyst, expansion 3 to 6: a hollow sphere of trophectoderm with an inner cell mass.
pub(super) struct Anatomy {
    pub(super) wall: Wall,
    /// What has left through the breach while it hatches.
    pub(super) bud: Option<Bud>,
    pub(super) inner_cell_mass: Vec<Body>,
}

/// The part of a hatching blastocyst that is outside.
pub(super) struct Bud {
    pub(super) wall: Wall,
    /// Direction and half-width, as a cosine, of the breach.
    pub(super) breach: ((f32, f32), f32),
}

/// The wall of a blastocyst and its trophectoderm.
pub(super) struct Wall {
    pub(super) centre: (f32, f32),
    pub(super) radius: f32,
    pub(super) disc: Body,
    pub(super) cells: Vec<Body>,
    /// How far the thickest cell reaches inwards.
    depth: f32,
}

impl Anatomy {
    pub(super) fn of(embryo: &Embryo, blastocyst: &Blastocyst) -> Self {
        let mut random = Random::new(mix(&[embryo.seed, 10]));
        let hatch = blastocyst.axis + random.within(1.5, 4.5);
        let (hatch_sin, hatch_cos) = hatch.sin_cos();
        let hatching = (blastocyst.expansion - 5.0).clamp(0.0, 1.0);
        let ((mut x, mut y), mut radius) = (blastocyst.centre, blastocyst.radius);
        let mut bud = None;
        if (5.0..6.0).contains(&blastocyst.expansion) {
            // What leaves through the breach is missing inside.
            let size = 28.0 + 28.0 * hatching;
            (x, y) = (x - 0.55 * size * hatch_cos, y - 0.55 * size * hatch_sin);
            radius = 86.0 - 6.0 * hatching;
            let out = radius + 0.55 * size;
            bud = Some(Bud {
                wall: Wall::of(embryo, (x + out * hatch_cos, y + out * hatch_sin), size, 11),
                breach: ((hatch_cos, hatch_sin), 1.0 - 0.5 * (0.8 * size / radius).powi(2)),
            });
        }
        Self {
            wall: Wall::of(embryo, (x, y), radius, 12),
            bud,
            inner_cell_mass: inner_cell_mass(embryo, (x, y), radius, blastocyst.axis),
        }
    }
}

impl Wall {
    /// A many cells that close ranks, B several, C few and flat, with bare wall between them.
    fn of(embryo: &Embryo, (x, y): (f32, f32), radius: f32, stream: u64) -> Self {
        let mut random = Random::new(mix(&[embryo.seed, stream]));
        let (cells, cover, thick) = match embryo.te {
            Letter::A => (26, 1.15, 10.0),
            Letter::B => (14, 0.95, 8.5),
            Letter::C => (6, 0.62, 6.0),
        };
        let pattern = random.next_u64();
        let disc = Body {
            edge: 0.24,
            tone: 0.008,
            grain: 0.006,
            relief: 0.02,
            pattern,
            ..Body::round(x, y, 0.0, radius)
        };
        let count = (cells as f32 * (radius / 85.0).powf(0.7)).round().max(3.0);
        let turn = random.within(0.0, TAU);
        let mut cells = Vec::new();
        let mut index = 0.0;
        while index < count {
            let angle = turn + TAU * (index + random.within(-0.22, 0.22)) / count;
            index += 1.0;
            let across = (0.5 * thick * random.within(THINNEST, THICKEST)).max(2.0);
            let along = PI * radius / count * cover * random.within(0.8, 1.2);
            let (sin, cos) = angle.sin_cos();
            let r = radius - across - GAP_UM;
            let body = Body {
                along,
                across,
                // The first axis runs along the wall, the second points outwards.
                direction: (sin, -cos),
                bend: 0.5 / radius,
                pattern: random.next_u64(),
                ..Body::round(x + r * cos, y + r * sin, random.within(-5.0, 5.0), along)
            };
            cells.push(Body { edge: 0.19, tone: -0.012, grain: 0.03, relief: 0.06, ..body });
        }
        Self { centre: (x, y), radius, disc, cells, depth: THICKEST * thick + GAP_UM }
    }

    /// Whether a place lies in the ring that the cells may fill, or in the fringe of their outlines.
    fn contains(&self, (x, y): (f32, f32)) -> bool {
        let r = (x - self.centre.0).hypot(y - self.centre.1);
        (self.radius - self.depth - FRINGE_UM..=self.radius + FRINGE_UM).contains(&r)
    }
}

/// A: many cells in one tight, outlined clump. B: a loose group of separate cells. C: a few.
fn inner_cell_mass(embryo: &Embryo, (x, y): (f32, f32), radius: f32, axis: f32) -> Vec<Body> {
    let mut random = Random::new(mix(&[embryo.seed, 13]));
    let scale = (radius / 85.0).powf(0.6);
    let (cells, along, across, size) = match embryo.icm {
        Letter::A => (26, 33.0, 24.0, 7.5),
        Letter::B => (13, 29.0, 20.0, 9.5),
        Letter::C => (3, 14.0, 9.0, 7.0),
    };
    let (along, across, size) = (along * scale, across * scale, size * scale);
    let inward = random.within(0.82, 1.0);
    let r = (radius - across - 3.0) * inward;
    let (sin, cos) = axis.sin_cos();
    let (cx, cy, z) = (x + r * cos, y + r * sin, random.within(-10.0, 10.0));
    let tangent = (-sin, cos);
    let mut bodies = Vec::with_capacity(cells + 1);
    if embryo.icm == Letter::A {
        let clump = Body {
            along,
            across,
            direction: tangent,
            wobble: 0.05,
            pattern: random.next_u64(),
            ..Body::round(cx, cy, z, along)
        };
        bodies.push(Body { edge: 0.24, tone: -0.025, grain: 0.028, relief: 0.07, ..clump });
    }
    let (edge, spread) = if embryo.icm == Letter::A { (0.085, 0.74) } else { (0.15, 0.9) };
    for index in 0..cells {
        let angle = index as f32 * 2.399_963 + random.within(-0.4, 0.4);
        let out = spread * ((index as f32 + 0.5) / cells as f32).sqrt();
        let (u, v) = (along * out * angle.cos(), across * out * angle.sin());
        let body = Body {
            wobble: 0.06,
            pattern: random.next_u64(),
            ..Body::round(
                cx + u * tangent.0 + v * cos,
                cy + u * tangent.1 + v * sin,
                z + random.within(-6.0, 6.0),
                size * random.within(0.8, 1.25),
            )
        };
        bodies.push(Body { edge, tone: -0.008, grain: 0.016, relief: 0.05, ..body });
    }
    bodies
}

/// Where the graded parts of a synthetic blastocyst are, to hold a class-activation map against.
pub struct Regions(Anatomy);

impl Embryo {
    /// Where the inner cell mass and the trophectoderm are in a photograph taken at `hpi`; `None`
    /// below expansion 3, where they are not graded.
    #[must_use]
    pub fn regions_at(&self, hpi: f64) -> Option<Regions> {
        let hours = hpi as f32;
        let Development::Blastocyst { expansion } = self.development_at(hours) else { return None };
        let blastocyst = Blastocyst::of(self, Placement::of(self, hours).centre, expansion);
        blastocyst.is_expanded().then(|| Regions(Anatomy::of(self, &blastocyst)))
    }
}

impl Regions {
    /// Whether a place, 0 to 1 from the top left corner of the picture, shows the inner cell mass: one
    /// of its cells, or the 5 um around it that its outline's bright fringe takes up.
    #[must_use]
    pub fn icm_contains(&self, x: f64, y: f64) -> bool {
        let (x, y) = (micrometres(x), micrometres(y));
        self.0.inner_cell_mass.iter().any(|body| {
            let (cos, sin) = body.direction;
            let (dx, dy) = (x - body.x, y - body.y);
            let margin = FRINGE_UM + body.wobble * body.along.max(body.across);
            let along = (dx * cos + dy * sin) / (body.along + margin);
            let across = (dy * cos - dx * sin) / (body.across + margin);
            along.hypot(across) <= 1.0
        })
    }

    /// Whether a place, 0 to 1 from the top left corner of the picture, lies in the ring along the
    /// wall that the cells of the trophectoderm may fill: as deep as the thickest of them (14 um for A,
    /// 12 for B, 8.5 for C), and 5 um on either side for the fringe of their outlines. The wall of what
    /// hatches belongs to it; the trophectoderm above and below the focal plane does not.
    #[must_use]
    pub fn te_contains(&self, x: f64, y: f64) -> bool {
        let place = (micrometres(x), micrometres(y));
        self.0.wall.contains(place) || self.0.bud.as_ref().is_some_and(|bud| bud.wall.contains(place))
    }
}

/// From the centre of the picture.
fn micrometres(coordinate: f64) -> f32 {
    (coordinate as f32 - 0.5) * FIELD_UM
}

/// Linear between the values at 1, 2, 3 ...
pub(super) fn between(position: f32, values: &[f32]) -> f32 {
    let position = (position - 1.0).max(0.0);
    let index = position as usize;
    let last = values.last().copied().unwrap_or(0.0);
    let from = values.get(index).copied().unwrap_or(last);
    let to = values.get(index + 1).copied().unwrap_or(last);
    from + (to - from) * position.fract()
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, Mutex, PoisonError};

    use image::GrayImage;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Expansion;
    use crate::incubator::Renderer;

    const SIDE_PX: u32 = 140;
    /// Its textures take longer to make than a picture to draw.
    static RENDERER: LazyLock<Mutex<Renderer>> = LazyLock::new(|| Mutex::new(Renderer::new(SIDE_PX)));
    /// Grey values; the noise is the same in two pictures of one moment.
    const VISIBLE: u8 = 10;

    /// Picture and regions of an embryo, a share of the way through its expanded hours.
    fn seen(seed: u64, progress: f64, icm: Letter, te: Letter) -> (GrayImage, Regions) {
        let embryo = Embryo::with_quality(seed, icm, te);
        let from = f64::from(embryo.reaches_hpi(Expansion::E3).unwrap());
        let to = f64::from(embryo.reaches_hpi(Expansion::E6).unwrap()) + 5.0;
        let hpi = from + 0.01 + progress * (to - from);
        let picture = RENDERER.lock().unwrap_or_else(PoisonError::into_inner).render(&embryo, hpi, 0.0);
        (picture, embryo.regions_at(hpi).unwrap())
    }

    /// How many pixels differ visibly, and how many of them lie outside. A few may: the fringe of a
    /// cell far out of focus is wide.
    fn differences(a: &GrayImage, b: &GrayImage, inside: impl Fn(f64, f64) -> bool) -> (usize, usize) {
        let coordinate = |pixel: u32| (f64::from(pixel) + 0.5) / f64::from(SIDE_PX);
        let changed: Vec<bool> = a
            .enumerate_pixels()
            .filter(|(x, y, grey)| grey[0].abs_diff(b.get_pixel(*x, *y)[0]) > VISIBLE)
            .map(|(x, y, _)| inside(coordinate(x), coordinate(y)))
            .collect();
        (changed.len(), changed.iter().filter(|inside| !**inside).count())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn what_another_inner_cell_mass_changes_lies_in_its_region(seed: u64, progress in 0.0..1.0) {
            let (a, regions_a) = seen(seed, progress, Letter::A, Letter::B);
            for letter in [Letter::B, Letter::C] {
                let (other, regions) = seen(seed, progress, letter, Letter::B);
                let inside = |x, y| regions_a.icm_contains(x, y) || regions.icm_contains(x, y);
                let (changed, outside) = differences(&a, &other, inside);
                prop_assert!(changed > 50 && 20 * outside <= changed, "{letter}: {outside} of {changed} pixels outside");
            }
        }

        #[test]
        fn what_another_trophectoderm_changes_lies_in_its_region(seed: u64, progress in 0.0..1.0) {
            let (a, regions_a) = seen(seed, progress, Letter::B, Letter::A);
            for letter in [Letter::B, Letter::C] {
                let (other, regions) = seen(seed, progress, Letter::B, letter);
                let inside = |x, y| regions_a.te_contains(x, y) || regions.te_contains(x, y);
                let (changed, outside) = differences(&a, &other, inside);
                prop_assert!(changed > 100 && 20 * outside <= changed, "{letter}: {outside} of {changed} pixels outside");
            }
        }

        #[test]
        fn regions_are_no_larger_than_what_they_name(seed: u64, progress in 0.0..1.0) {
            let (_, regions) = seen(seed, progress, Letter::A, Letter::A);
            let places = || (0..100).flat_map(|y| (0..100).map(move |x| (f64::from(x) / 100.0, f64::from(y) / 100.0)));
            let icm = places().filter(|(x, y)| regions.icm_contains(*x, *y)).count();
            let te = places().filter(|(x, y)| regions.te_contains(*x, *y)).count();
            prop_assert!((200..800).contains(&icm) && (500..2_200).contains(&te), "{icm} and {te} of 10000");
        }
    }

    #[test]
    fn regions_exist_where_letters_are_given_and_only_there() {
        for seed in 0..60 {
            let embryo = Embryo::new(seed);
            for hpi in (60..140).step_by(4).map(f64::from) {
                assert_eq!(embryo.regions_at(hpi).is_some(), embryo.truth_at(hpi).icm.is_some(), "{hpi}");
            }
        }
    }
}

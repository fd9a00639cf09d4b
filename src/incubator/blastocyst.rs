//! Draws a blastocyst: cavity, trophectoderm, inner cell mass, hatching.

use std::f32::consts::{PI, TAU};

use super::canvas::{Body, Ring};
use super::random::{Random, mix};
use super::render::ZONA_UM;
use super::{Embryo, Renderer};
use crate::domain::Letter;

/// A blastocyst's measures at one moment.
struct Blastocyst {
    expansion: f32,
    radius: f32,
    /// Where the inner cell mass sits.
    axis: f32,
}

impl Renderer {
    pub(super) fn blastocyst(&mut self, embryo: &Embryo, (x, y): (f32, f32), expansion: f32) {
        let mut random = Random::new(mix(&[embryo.seed, 8]));
        let blastocyst = Blastocyst {
            expansion,
            radius: between(expansion, &[60.0, 61.0, 64.0, 80.0, 90.0, 96.0, 98.0]),
            axis: random.within(0.0, TAU),
        };
        if expansion < 3.0 {
            self.early(embryo, (x, y), &blastocyst);
        } else {
            self.expanded(embryo, (x, y), &blastocyst);
        }
    }

    /// Expansion 1 and 2: a mass of cells with a cavity that opens on one side.
    fn early(&mut self, embryo: &Embryo, (x, y): (f32, f32), blastocyst: &Blastocyst) {
        let mut random = Random::new(mix(&[embryo.seed, 9]));
        let radius = blastocyst.radius;
        self.zona(embryo, (x, y), radius + 1.0, ZONA_UM - 1.0);
        let (sin, cos) = blastocyst.axis.sin_cos();
        let cavity = radius * between(blastocyst.expansion, &[0.40, 0.66, 0.84]);
        let offset = radius - cavity - 5.0;
        let (cx, cy) = (x - offset * cos, y - offset * sin);
        self.canvas.draw(&Body {
            edge: 0.16,
            tone: -0.012,
            relief: 0.03,
            wobble: 0.01,
            ..Body::round(x, y, 0.0, radius)
        });
        let mut placed = 0;
        for _ in 0..160 {
            let (angle, r) = (random.within(0.0, TAU), radius * random.within(0.1, 1.0).sqrt());
            let size = random.within(9.0, 14.0);
            let (r, z) = (r.min(radius - size + 1.0), random.within(-18.0, 18.0));
            let (bx, by) = (x + r * angle.cos(), y + r * angle.sin());
            let pattern = random.next_u64();
            if (bx - cx).hypot(by - cy) < cavity + 0.35 * size || placed > 34 {
                continue;
            }
            placed += 1;
            let body = Body { wobble: 0.05, pattern, ..Body::round(bx, by, z, size) };
            self.canvas.draw(&Body { edge: 0.13, tone: -0.012, grain: 0.022, relief: 0.04, ..body });
        }
        self.canvas.draw(&Body {
            edge: 0.2,
            tone: 0.03,
            relief: -0.05,
            wobble: 0.03,
            direction: (cos, sin),
            ..Body::round(cx, cy, 0.0, cavity)
        });
    }

    /// Expansion 3 to 6: a hollow sphere of trophectoderm with an inner cell mass.
    fn expanded(&mut self, embryo: &Embryo, (x, y): (f32, f32), blastocyst: &Blastocyst) {
        let mut random = Random::new(mix(&[embryo.seed, 10]));
        let hatch = blastocyst.axis + random.within(1.5, 4.5);
        let (hatch_sin, hatch_cos) = hatch.sin_cos();
        let hatching = (blastocyst.expansion - 5.0).clamp(0.0, 1.0);
        let (mut x, mut y, mut radius) = (x, y, blastocyst.radius);
        if (5.0..6.0).contains(&blastocyst.expansion) {
            // What leaves through the breach is missing inside.
            let bud = 28.0 + 28.0 * hatching;
            (x, y) = (x - 0.55 * bud * hatch_cos, y - 0.55 * bud * hatch_sin);
            radius = 86.0 - 6.0 * hatching;
            let breach = Some(((hatch_cos, hatch_sin), 1.0 - 0.5 * (0.8 * bud / radius).powi(2)));
            let pattern = mix(&[embryo.seed, 3]);
            self.canvas.draw_ring(&Ring {
                x,
                y,
                inner: radius,
                outer: radius + 5.0,
                edge: 0.2,
                breach,
                pattern,
            });
            let out = radius + 0.55 * bud;
            let (bx, by) = (x + out * hatch_cos, y + out * hatch_sin);
            self.wall(embryo, (bx, by), bud, 11, embryo.te);
        } else if blastocyst.expansion < 5.0 {
            let thickness = between(blastocyst.expansion - 2.0, &[12.0, 5.5, 3.5]);
            self.zona(embryo, (x, y), radius + 0.5, thickness);
        }
        self.shadows(embryo, (x, y), radius);
        self.wall(embryo, (x, y), radius, 12, embryo.te);
        self.inner_cell_mass(embryo, (x, y), radius, blastocyst.axis);
    }

    /// Trophectoderm above and below the focal plane: faint, soft, seen through the cavity.
    fn shadows(&mut self, embryo: &Embryo, (x, y): (f32, f32), radius: f32) {
        let mut random = Random::new(mix(&[embryo.seed, 11]));
        for _ in 0..6 {
            let (angle, r) = (random.within(0.0, TAU), 0.75 * radius * random.within(0.0, 1.0).sqrt());
            let depth = (random.within(0.5, 0.7) * radius).min(45.0);
            let z = if random.chance(0.5) { depth } else { -depth };
            let turn = random.within(0.0, PI);
            let body = Body {
                along: random.within(0.2, 0.36) * radius,
                across: random.within(0.12, 0.2) * radius,
                direction: (turn.cos(), turn.sin()),
                wobble: 0.04,
                ..Body::round(x + r * angle.cos(), y + r * angle.sin(), z, 1.0)
            };
            self.canvas.draw(&Body {
                edge: 0.07,
                tone: random.within(-0.03, 0.01),
                grain: 0.01,
                relief: 0.03,
                ..body
            });
        }
    }

    /// The wall of a blastocyst and its trophectoderm: A many cells that close ranks, B several, C few
    /// and flat, with bare wall between them.
    fn wall(&mut self, embryo: &Embryo, (x, y): (f32, f32), radius: f32, stream: u64, te: Letter) {
        let mut random = Random::new(mix(&[embryo.seed, stream]));
        let (cells, cover, thick) = match te {
            Letter::A => (26, 1.15, 10.0),
            Letter::B => (14, 0.95, 8.5),
            Letter::C => (6, 0.62, 6.0),
        };
        let pattern = random.next_u64();
        self.canvas.draw(&Body {
            edge: 0.24,
            tone: 0.008,
            grain: 0.006,
            relief: 0.02,
            pattern,
            ..Body::round(x, y, 0.0, radius)
        });
        let cells = (cells as f32 * (radius / 85.0).powf(0.7)).round().max(3.0);
        let turn = random.within(0.0, TAU);
        let mut index = 0.0;
        while index < cells {
            let angle = turn + TAU * (index + random.within(-0.22, 0.22)) / cells;
            index += 1.0;
            let across = (0.5 * thick * random.within(0.65, 1.35)).max(2.0);
            let along = PI * radius / cells * cover * random.within(0.8, 1.2);
            let (sin, cos) = angle.sin_cos();
            let r = radius - across - 0.4;
            let body = Body {
                along,
                across,
                // The first axis runs along the wall, the second points outwards.
                direction: (sin, -cos),
                bend: 0.5 / radius,
                pattern: random.next_u64(),
                ..Body::round(x + r * cos, y + r * sin, random.within(-5.0, 5.0), along)
            };
            self.canvas.draw(&Body { edge: 0.19, tone: -0.012, grain: 0.03, relief: 0.06, ..body });
        }
    }

    /// A: many cells in one tight, outlined clump. B: a loose group of separate cells. C: a few.
    fn inner_cell_mass(&mut self, embryo: &Embryo, (x, y): (f32, f32), radius: f32, axis: f32) {
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
        if embryo.icm == Letter::A {
            let clump = Body {
                along,
                across,
                direction: tangent,
                wobble: 0.05,
                pattern: random.next_u64(),
                ..Body::round(cx, cy, z, along)
            };
            self.canvas.draw(&Body { edge: 0.24, tone: -0.025, grain: 0.028, relief: 0.07, ..clump });
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
            self.canvas.draw(&Body { edge, tone: -0.008, grain: 0.016, relief: 0.05, ..body });
        }
    }
}

/// Linear between the values at 1, 2, 3 ...
fn between(position: f32, values: &[f32]) -> f32 {
    let position = (position - 1.0).max(0.0);
    let index = position as usize;
    let last = values.last().copied().unwrap_or(0.0);
    let from = values.get(index).copied().unwrap_or(last);
    let to = values.get(index + 1).copied().unwrap_or(last);
    from + (to - from) * position.fract()
}

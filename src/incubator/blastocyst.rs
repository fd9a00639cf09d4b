//! Draws a blastocyst: cavity, trophectoderm, inner cell mass, hatching.

use std::f32::consts::{PI, TAU};

use super::anatomy::{Anatomy, Blastocyst, Wall, between};
use super::canvas::{Body, Ring};
use super::random::{Random, mix};
use super::render::ZONA_UM;
use super::{Embryo, Renderer};

impl Renderer {
    pub(super) fn blastocyst(&mut self, embryo: &Embryo, centre: (f32, f32), expansion: f32) {
        let blastocyst = Blastocyst::of(embryo, centre, expansion);
        if blastocyst.is_expanded() {
            self.expanded(embryo, &blastocyst);
        } else {
            self.early(embryo, &blastocyst);
        }
    }

    /// Expansion 1 and 2: a mass of cells with a cavity that opens on one side.
    fn early(&mut self, embryo: &Embryo, blastocyst: &Blastocyst) {
        let mut random = Random::new(mix(&[embryo.seed, 9]));
        let ((x, y), radius) = (blastocyst.centre, blastocyst.radius);
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
    fn expanded(&mut self, embryo: &Embryo, blastocyst: &Blastocyst) {
        let Anatomy { wall, bud, inner_cell_mass } = Anatomy::of(embryo, blastocyst);
        let (x, y) = wall.centre;
        if let Some(bud) = bud {
            let pattern = mix(&[embryo.seed, 3]);
            self.canvas.draw_ring(&Ring {
                x,
                y,
                inner: wall.radius,
                outer: wall.radius + 5.0,
                edge: 0.2,
                breach: Some(bud.breach),
                pattern,
            });
            self.wall(&bud.wall);
        } else if blastocyst.expansion < 5.0 {
            let thickness = between(blastocyst.expansion - 2.0, &[12.0, 5.5, 3.5]);
            self.zona(embryo, (x, y), wall.radius + 0.5, thickness);
        }
        self.shadows(embryo, (x, y), wall.radius);
        self.wall(&wall);
        inner_cell_mass.iter().for_each(|body| self.canvas.draw(body));
    }

    fn wall(&mut self, wall: &Wall) {
        self.canvas.draw(&wall.disc);
        wall.cells.iter().for_each(|cell| self.canvas.draw(cell));
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
}

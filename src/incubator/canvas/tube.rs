//! Bodies along a curved line.

use super::{BLUR_PER_UM, Canvas, FIELD_UM, LIGHT, Outline, bell};

/// A point of the line and how thick the body is there.
#[derive(Debug, Clone, Copy)]
pub(in crate::incubator) struct Joint {
    pub x: f32,
    pub y: f32,
    pub radius: f32,
}

/// A transparent body along a line through its joints. What is not explained is as for a [`Body`].
///
/// [`Body`]: super::Body
#[derive(Debug, Clone, Copy)]
pub(in crate::incubator) struct Tube<'a> {
    pub joints: &'a [Joint],
    pub z: f32,
    pub edge: f32,
    pub tone: f32,
    pub grain: f32,
    pub relief: f32,
    pub pattern: u64,
}

impl Tube<'_> {
    /// Distance of a point from the surface, negative inside, and the unit vector that leads away from
    /// the line.
    fn surface(&self, x: f32, y: f32) -> (f32, (f32, f32)) {
        let mut nearest = (f32::MAX, (0.0, 0.0));
        for pair in self.joints.windows(2) {
            let [from, to] = pair else { continue };
            let (along_x, along_y) = (to.x - from.x, to.y - from.y);
            let square = (along_x * along_x + along_y * along_y).max(1e-6);
            let t = (((x - from.x) * along_x + (y - from.y) * along_y) / square).clamp(0.0, 1.0);
            let (dx, dy) = (x - from.x - t * along_x, y - from.y - t * along_y);
            let r = (dx * dx + dy * dy + 1e-6).sqrt();
            let d = r - (from.radius + t * (to.radius - from.radius));
            if d < nearest.0 {
                nearest = (d, (dx / r, dy / r));
            }
        }
        nearest
    }
}

impl Canvas {
    pub(in crate::incubator) fn draw_tube(&mut self, tube: &Tube<'_>) {
        let defocus = self.focal_um - tube.z;
        let outline = Outline::new(defocus, 1.0);
        let blur = (BLUR_PER_UM * defocus).powi(2);
        let (fine_weight, coarse_weight) =
            (tube.grain / (1.0 + 0.8 * blur), tube.grain / (1.0 + 0.04 * blur));
        let flank = tube.relief / (1.0 + 0.02 * blur);
        let thickest = tube.joints.iter().map(|joint| joint.radius).fold(1.0, f32::max);
        let scale = self.um_per_px;
        for row in self.rows((0.0, 0.0), (FIELD_UM, FIELD_UM), tube.pattern) {
            let texture = row.fine.iter().zip(row.coarse);
            for ((index, pixel), (fine, coarse)) in row.pixels.iter_mut().enumerate().zip(texture) {
                let (d, normal) = tube.surface(row.dx + index as f32 * scale, row.dy);
                if d > outline.reach() {
                    continue;
                }
                let lit = normal.0 * LIGHT.0 + normal.1 * LIGHT.1;
                let inside = tube.tone
                    + flank * lit * bell(d * 2.2 / thickest)
                    + fine_weight * fine
                    + coarse_weight * coarse;
                *pixel += inside * outline.mask(d) + tube.edge * (1.0 + 0.35 * lit) * outline.at(d);
            }
        }
    }
}

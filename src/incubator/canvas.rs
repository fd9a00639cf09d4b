//! A grey canvas on which transparent bodies are drawn as modulation-contrast optics show them.
//!
//! Defocus is computed per structure, not by blurring the picture: an edge at another depth than the
//! focal plane is drawn wider and fainter. That is what a microscope shows and costs a tenth.
//! Coordinates are micrometres from the centre of the picture, x to the right, y down.

mod tube;

use super::random::{Random, mix};

pub(super) use tube::{Joint, Tube};

/// Width of the field of view.
pub(super) const FIELD_UM: f32 = 280.0;
/// Standard deviation of the noise of the sensor, grey values.
pub(super) const SENSOR_NOISE: f32 = 1.6;
/// Standard deviation of a sharp edge.
const SHARP_UM: f32 = 0.9;
/// Extra standard deviation of an edge per micrometre out of focus (a numerical aperture of 0.4).
const BLUR_PER_UM: f32 = 0.16;
/// Side of the grain texture; a power of two so that it tiles with a mask.
const GRAIN_SIDE: usize = 256;
/// Unit vector from which the modulation contrast seems to be lit.
const LIGHT: (f32, f32) = (-0.8, -0.6);

/// A transparent body with an elliptic outline, drawn on top of what is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub x: f32,
    pub y: f32,
    /// Depth; in focus when it equals the focal offset.
    pub z: f32,
    /// Semi-axis along `direction`.
    pub along: f32,
    /// Semi-axis across `direction`.
    pub across: f32,
    /// Unit vector of the first axis.
    pub direction: (f32, f32),
    /// Curvature, 1/um: bends the body around the wall it sits on.
    pub bend: f32,
    /// Relative departure from an ellipse.
    pub wobble: f32,
    /// Contrast of the outline.
    pub edge: f32,
    /// Grey added inside.
    pub tone: f32,
    /// Contrast of the granular cytoplasm.
    pub grain: f32,
    /// Contrast between the lit and the shaded flank.
    pub relief: f32,
    /// Which part of the grain texture it shows.
    pub pattern: u64,
}

impl Body {
    /// A round body without any contrast yet.
    pub(super) fn round(x: f32, y: f32, z: f32, radius: f32) -> Self {
        Self {
            x,
            y,
            z,
            along: radius,
            across: radius,
            direction: (1.0, 0.0),
            bend: 0.0,
            wobble: 0.0,
            edge: 0.0,
            tone: 0.0,
            grain: 0.0,
            relief: 0.0,
            pattern: 0,
        }
    }
}

/// The zona pellucida: a ring with a sharp inner and a soft outer edge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    pub x: f32,
    pub y: f32,
    pub inner: f32,
    pub outer: f32,
    pub edge: f32,
    /// Direction and half-width, as a cosine, of the breach it hatches through.
    pub breach: Option<((f32, f32), f32)>,
    pub pattern: u64,
}

#[derive(Debug)]
pub(super) struct Canvas {
    side: usize,
    um_per_px: f32,
    focal_um: f32,
    grey: Vec<f32>,
    background: Vec<f32>,
    fine: Texture,
    coarse: Texture,
}

/// Close to `exp(-x^2 / 2)` and zero beyond 2.83: no call, no branch.
fn bell(x: f32) -> f32 {
    let base = (1.0 - x * x * 0.125).max(0.0);
    let square = base * base;
    square * square
}

/// What an outline looks like at a distance `d` (um, negative inside) from it.
struct Outline {
    inverse_sigma: f32,
    fade: f32,
    outside_halo: f32,
    inside_halo: f32,
}

impl Outline {
    fn new(defocus_um: f32, softness: f32) -> Self {
        let sharp = SHARP_UM * softness;
        let sigma = sharp.hypot(BLUR_PER_UM * defocus_um);
        // The Becke line: the bright fringe moves from one side to the other through focus.
        let lean = (defocus_um / 12.0).clamp(-1.0, 1.0);
        Self {
            inverse_sigma: 1.0 / sigma,
            fade: (sharp / sigma).powf(0.8),
            outside_halo: 0.45 + 0.3 * lean,
            inside_halo: 0.35 - 0.3 * lean,
        }
    }

    /// Distance beyond which the outline leaves no trace.
    fn reach(&self) -> f32 {
        4.9 / self.inverse_sigma
    }

    fn at(&self, d: f32) -> f32 {
        let x = d * self.inverse_sigma;
        (self.outside_halo * bell(x - 2.0) + self.inside_halo * bell(x + 2.0) - bell(x)) * self.fade
    }

    /// 1 inside, 0 outside, a soft step between.
    fn mask(&self, d: f32) -> f32 {
        (0.5 - 0.3 * d * self.inverse_sigma).clamp(0.0, 1.0)
    }
}

impl Canvas {
    pub(super) fn new(side: usize) -> Self {
        let mut canvas = Self {
            side,
            um_per_px: FIELD_UM / side as f32,
            focal_um: 0.0,
            grey: vec![0.0; side * side],
            background: Vec::new(),
            fine: Texture::new(1, 1, side),
            coarse: Texture::new(2, 3, side),
        };
        canvas.background = canvas.empty_well();
        canvas
    }

    /// Illumination falls off towards a corner, the well's wall shades the corners, and the bottom of
    /// the dish shows faint scratches.
    fn empty_well(&self) -> Vec<f32> {
        let half = FIELD_UM / 2.0;
        let pixel = |index: usize| {
            let x = (index % self.side) as f32 * self.um_per_px - half;
            let y = (index / self.side) as f32 * self.um_per_px - half;
            let r = x.hypot(y);
            let wall = r - 172.0;
            let shade = -0.10 * (wall / 6.0).clamp(0.0, 1.0) + 0.07 * bell(wall / 3.0)
                - 0.05 * bell((wall - 7.0) / 3.0);
            // Stretched along the diagonal: scratches, not spots.
            let scratch = self.coarse.sample((x + y) * 0.05, (x - y) * 0.35);
            0.60 + 0.045 * (0.8 * x - 0.6 * y) / half - 0.05 * (r / half).powi(2) + shade + 0.008 * scratch
        };
        (0..self.side * self.side).map(pixel).collect()
    }

    /// An empty well, focused at `focal_um`.
    pub(super) fn clear(&mut self, focal_um: f32) {
        self.focal_um = focal_um;
        self.grey.copy_from_slice(&self.background);
    }

    /// The pixels within `reach` um of (x, y), row by row.
    fn rows(&mut self, (x, y): (f32, f32), reach: (f32, f32), pattern: u64) -> impl Iterator<Item = Row<'_>> {
        let (side, scale, half) = (self.side, self.um_per_px, FIELD_UM / 2.0);
        let pixel = |um: f32| (((um + half) / scale).max(0.0) as usize).min(side);
        let (left, right) = (pixel(x - reach.0), (pixel(x + reach.0) + 1).min(side));
        let (top, bottom) = (pixel(y - reach.1), (pixel(y + reach.1) + 1).min(side));
        let (column, first_row) = ((pattern & 0xff) as usize, ((pattern >> 8) & 0xff) as usize);
        let (fine, coarse) = (&self.fine, &self.coarse);
        let rows = self.grey.chunks_exact_mut(side).enumerate().take(bottom).skip(top);
        rows.filter_map(move |(row, pixels)| {
            let pixels = pixels.get_mut(left..right)?;
            Some(Row {
                fine: fine.row(first_row + row, column + left, pixels.len())?,
                coarse: coarse.row(first_row + row, column + left, pixels.len())?,
                dx: left as f32 * scale - half - x,
                dy: row as f32 * scale - half - y,
                pixels,
            })
        })
    }

    pub(super) fn draw(&mut self, body: &Body) {
        let defocus = self.focal_um - body.z;
        let outline = Outline::new(defocus, 1.0);
        let blur = (BLUR_PER_UM * defocus).powi(2);
        let (fine_weight, coarse_weight) =
            (body.grain / (1.0 + 0.8 * blur), body.grain / (1.0 + 0.04 * blur));
        let flank = body.relief / (1.0 + 0.02 * blur);
        let flank_width = 2.2 / body.along.min(body.across);
        let (cos, sin) = body.direction;
        let (a, b) = (1.0 / body.along, 1.0 / body.across);
        let (light_u, light_v) = (LIGHT.0 * cos + LIGHT.1 * sin, LIGHT.1 * cos - LIGHT.0 * sin);
        let sagitta = body.bend * body.along * body.along;
        let margin = outline.reach() + sagitta + body.wobble * body.along.max(body.across);
        let reach = (
            (body.along * cos).hypot(body.across * sin) + margin,
            (body.along * sin).hypot(body.across * cos) + margin,
        );
        let scale = self.um_per_px;
        // No branch and no table look-up in the inner loop: it must run in vector registers.
        for row in self.rows((body.x, body.y), reach, body.pattern) {
            let texture = row.fine.iter().zip(row.coarse);
            for ((index, pixel), (fine, coarse)) in row.pixels.iter_mut().enumerate().zip(texture) {
                let dx = row.dx + index as i32 as f32 * scale;
                let u = dx * cos + row.dy * sin;
                let v = row.dy * cos - dx * sin + body.bend * u * u;
                let (ua, vb) = (u * a, v * b);
                let q = (ua * ua + vb * vb + 1e-6).sqrt();
                let (gu, gv) = (ua * a, vb * b);
                let inverse_slope = 1.0 / (gu * gu + gv * gv + 1e-9).sqrt();
                let c = ua / q;
                let d = (q - 1.0 - body.wobble * (4.0 * c * c - 3.0) * c) * q * inverse_slope;
                let lit = (gu * light_u + gv * light_v) * inverse_slope;
                let inside = body.tone
                    + flank * lit * bell(d * flank_width)
                    + fine_weight * fine
                    + coarse_weight * coarse;
                *pixel += inside * outline.mask(d) + body.edge * (1.0 + 0.35 * lit) * outline.at(d);
            }
        }
    }

    pub(super) fn draw_ring(&mut self, ring: &Ring) {
        let inner = Outline::new(self.focal_um, 1.0);
        let outer = Outline::new(self.focal_um, 1.6);
        let reach = ring.outer + outer.reach();
        let scale = self.um_per_px;
        let (breach, cosine) = ring.breach.unwrap_or(((0.0, 0.0), 1.0));
        for row in self.rows((ring.x, ring.y), (reach, reach), ring.pattern) {
            for ((index, pixel), coarse) in row.pixels.iter_mut().enumerate().zip(row.coarse) {
                let dx = row.dx + index as i32 as f32 * scale;
                let r = (dx * dx + row.dy * row.dy + 1e-6).sqrt();
                let open = dx * breach.0 + row.dy * breach.1 > cosine * r;
                let lit = (dx * LIGHT.0 + row.dy * LIGHT.1) / r;
                let wall = outer.mask(r - ring.outer) * (1.0 - inner.mask(r - ring.inner));
                let value = wall * (0.02 + 0.012 * coarse)
                    + ring.edge * (1.0 + 0.35 * lit) * inner.at(r - ring.inner)
                    + 0.6 * ring.edge * outer.at(r - ring.outer);
                *pixel += if open { 0.0 } else { value };
            }
        }
    }

    /// The sensor: gain, noise, eight bits.
    pub(super) fn expose(&self, gain: f32, noise: f32, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        let mut grey = Vec::with_capacity(self.grey.len());
        for pixels in self.grey.chunks(4) {
            // Each of four lanes is a sum of two uniforms: triangular noise is close enough to a sensor's.
            let mut word = random.next_u64();
            for pixel in pixels {
                let sum = (word & 0xff) as f32 + ((word >> 8) & 0xff) as f32;
                word >>= 16;
                grey.push((255.0 * pixel * gain + noise * (sum - 255.0) * 0.0096).clamp(0.0, 255.0) as u8);
            }
        }
        grey
    }
}

/// A part of one row of the canvas with the grain that belongs to it.
struct Row<'a> {
    pixels: &'a mut [f32],
    fine: &'a [f32],
    coarse: &'a [f32],
    /// Of the first pixel, relative to the centre asked for.
    dx: f32,
    dy: f32,
}

/// Tiling noise. Each row is stored long enough to be read in one piece from any column.
#[derive(Debug)]
struct Texture {
    stride: usize,
    values: Vec<f32>,
}

impl Texture {
    /// Noise of a standard deviation of one, with spots of about `2 * reach + 1` pixels, for a canvas
    /// of `side` pixels.
    fn new(seed: u64, reach: usize, side: usize) -> Self {
        let mut random = Random::new(mix(&[seed, 0x67_7261_696e]));
        let noise: Vec<f32> = (0..GRAIN_SIDE * GRAIN_SIDE).map(|_| random.within(-1.0, 1.0)).collect();
        let noise = smooth(&smooth(&noise, reach), reach.saturating_sub(1));
        let power = noise.iter().map(|value| value * value).sum::<f32>() / noise.len() as f32;
        let scale = 1.0 / power.sqrt();
        let stride = GRAIN_SIDE + side;
        let rows = noise.chunks_exact(GRAIN_SIDE);
        let values =
            rows.flat_map(|row| row.iter().cycle().take(stride)).map(|value| value * scale).collect();
        Self { stride, values }
    }

    fn row(&self, row: usize, column: usize, length: usize) -> Option<&[f32]> {
        let start = (row % GRAIN_SIDE) * self.stride + column % GRAIN_SIDE;
        self.values.get(start..start + length)
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let wrap = |value: f32| value.rem_euclid(GRAIN_SIDE as f32) as usize;
        self.row(wrap(y), wrap(x), 1).and_then(|row| row.first()).copied().unwrap_or(0.0)
    }

    /// Between the four texels around a point.
    fn sample(&self, x: f32, y: f32) -> f32 {
        let (fx, fy) = (x - x.floor(), y - y.floor());
        let along = |y: f32| self.at(x, y) * (1.0 - fx) + self.at(x + 1.0, y) * fx;
        along(y) * (1.0 - fy) + along(y + 1.0) * fy
    }
}

/// Box average over `2 * reach + 1` texels each way, tiling.
fn smooth(noise: &[f32], reach: usize) -> Vec<f32> {
    let pass = |noise: &[f32], down: bool| -> Vec<f32> {
        let average = |index: usize| {
            let (row, column) = (index / GRAIN_SIDE, index % GRAIN_SIDE);
            let sum: f32 = (GRAIN_SIDE - reach..=GRAIN_SIDE + reach)
                .map(|step| if down { (row + step, column) } else { (row, column + step) })
                .filter_map(|(row, column)| noise.get((row % GRAIN_SIDE) * GRAIN_SIDE + column % GRAIN_SIDE))
                .sum();
            sum / (2 * reach + 1) as f32
        };
        (0..noise.len()).map(average).collect()
    };
    pass(&pass(noise, false), true)
}

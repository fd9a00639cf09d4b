//! Draws an embryo as a time-lapse microscope would photograph it.

use std::f32::consts::{PI, TAU};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, GrayImage, ImageError};

use super::anatomy::Placement;
use super::canvas::{Body, Canvas, FIELD_UM, Ring, SENSOR_NOISE};
use super::embryo::{Development, Embryo};
use super::random::{Random, mix};

/// Quality of the JPEG, as incubators store it: visible structure survives, 320 x 320 px take about 15 kB.
const JPEG_QUALITY: u8 = 80;

/// Radius of the oocyte.
const OOCYTE_UM: f32 = 57.0;
/// Inner radius of the zona before expansion, and its thickness.
const ZONA_INNER_UM: f32 = 62.0;
pub(super) const ZONA_UM: f32 = 14.0;

/// Draws pictures of one size. Keeps its canvas and textures between pictures.
#[derive(Debug)]
pub struct Renderer {
    side_px: u32,
    pub(super) canvas: Canvas,
}

impl Renderer {
    /// Pictures of `side_px` x `side_px` pixels.
    #[must_use]
    pub fn new(side_px: u32) -> Self {
        Self { side_px, canvas: Canvas::new(side_px as usize) }
    }

    /// Scale of the pictures, micrometres per pixel.
    #[must_use]
    pub fn um_per_px(&self) -> f64 {
        f64::from(FIELD_UM) / f64::from(self.side_px)
    }

    /// The embryo at `hpi`, focused `focal_offset_um` above the central plane. The same arguments
    /// give the same pixels.
    pub fn render(&mut self, embryo: &Embryo, hpi: f64, focal_offset_um: f64) -> GrayImage {
        let (hours, focal) = (hpi as f32, focal_offset_um as f32);
        self.canvas.clear(focal);
        let Placement { gain, centre: (x, y) } = Placement::of(embryo, hours);
        let decay = (embryo.arrested_hours(hours) / 30.0).min(1.0);
        match embryo.development_at(hours) {
            Development::Zygote { pronuclei } => self.zygote(embryo, (x, y), pronuclei, decay),
            Development::Cleavage { cells } => self.cleavage(embryo, (x, y), cells, decay),
            Development::Morula { compaction } => self.morula(embryo, (x, y), compaction, decay),
            Development::Blastocyst { expansion } => self.blastocyst(embryo, (x, y), expansion),
        }
        let noise_seed = mix(&[embryo.seed, hpi.to_bits(), focal_offset_um.to_bits()]);
        let grey = self.canvas.expose(gain, SENSOR_NOISE, noise_seed);
        GrayImage::from_raw(self.side_px, self.side_px, grey).unwrap_or_default()
    }

    pub(super) fn zona(&mut self, embryo: &Embryo, (x, y): (f32, f32), inner: f32, thickness: f32) {
        let ring = Ring {
            x,
            y,
            inner,
            outer: inner + thickness,
            edge: 0.13,
            breach: None,
            pattern: mix(&[embryo.seed, 3]),
        };
        self.canvas.draw_ring(&ring);
    }

    fn cell(&mut self, body: Body, contrast: f32) {
        self.canvas.draw(&Body {
            edge: 0.26 * contrast,
            tone: -0.015 * contrast,
            grain: 0.022,
            relief: 0.07 * contrast,
            ..body
        });
    }

    fn fragments(&mut self, embryo: &Embryo, (x, y): (f32, f32), share: f32) {
        let mut random = Random::new(mix(&[embryo.seed, 4]));
        let count = (share * 60.0) as usize;
        for _ in 0..count {
            let (angle, r) = (random.within(0.0, TAU), random.within(10.0, 56.0));
            let size = random.within(2.5, 7.0);
            let body =
                Body::round(x + r * angle.cos(), y + r * angle.sin(), random.within(-30.0, 30.0), size);
            self.canvas.draw(&Body { edge: 0.2, tone: -0.02, relief: 0.06, ..body });
        }
    }

    fn zygote(&mut self, embryo: &Embryo, (x, y): (f32, f32), pronuclei: bool, decay: f32) {
        self.zona(embryo, (x, y), ZONA_INNER_UM, ZONA_UM);
        let mut random = Random::new(mix(&[embryo.seed, 5]));
        let (px, py) = (random.within(-1.5, 1.5), random.within(-1.5, 1.5));
        let body = Body { pattern: random.next_u64(), ..Body::round(x + px, y + py, 0.0, OOCYTE_UM) };
        self.cell(body, 1.0);
        let angle = random.within(0.0, TAU);
        for step in [0.0, 0.35] {
            let (sin, cos) = (angle + step).sin_cos();
            let polar = Body::round(x + 59.0 * cos, y + 59.0 * sin, random.within(-8.0, 8.0), 5.5);
            self.cell(polar, 0.8);
        }
        if pronuclei {
            let angle = random.within(0.0, TAU);
            for side in [-1.0, 1.0] {
                let (sin, cos) = angle.sin_cos();
                let (nx, ny) = (x + px + side * 11.5 * cos, y + py + side * 11.5 * sin);
                let z = random.within(-6.0, 6.0);
                self.canvas.draw(&Body {
                    edge: 0.16,
                    tone: 0.025,
                    relief: 0.035,
                    ..Body::round(nx, ny, z, 12.0)
                });
                for _ in 0..5 {
                    let (ox, oy) = (random.within(-6.0, 6.0), random.within(-6.0, 6.0));
                    self.canvas.draw(&Body {
                        edge: 0.12,
                        tone: -0.05,
                        ..Body::round(nx + ox, ny + oy, z, 1.8)
                    });
                }
            }
        }
        self.fragments(embryo, (x, y), decay * 0.4);
    }

    fn cleavage(&mut self, embryo: &Embryo, (x, y): (f32, f32), cells: u8, decay: f32) {
        self.zona(embryo, (x, y), ZONA_INNER_UM, ZONA_UM);
        let mut random = Random::new(mix(&[embryo.seed, 6]));
        let count = f32::from(cells);
        let radius = OOCYTE_UM * count.powf(-1.0 / 3.0) * 0.93 * (1.0 - 0.5 * embryo.fragmentation);
        // Two cells flatten against each other; eight hardly touch.
        let squash = 1.0 - 0.5 / count;
        let reach = (ZONA_INNER_UM - 1.0 - radius * squash).max(4.0);
        let turn = random.within(0.0, TAU);
        // Two cells lie side by side; more of them fill the depth as well. The golden angle spreads
        // any number evenly over the sphere.
        let (depth, step) = (1.0 - 1.6 / count, if cells == 2 { PI } else { 2.399_963 });
        for index in 0..cells {
            let uz = depth * (1.0 - 2.0 * (f32::from(index) + 0.5) / count);
            let (sin, cos) = (turn + step * f32::from(index)).sin_cos();
            let ring = (1.0 - uz * uz).sqrt();
            let (ux, uy) = (ring * cos, ring * sin);
            let in_plane = ux.hypot(uy).max(1e-3);
            let size = random.about(1.0, 0.05);
            let body = Body {
                along: radius * size * (1.0 - (1.0 - squash) * in_plane),
                across: radius * size,
                direction: (ux / in_plane, uy / in_plane),
                wobble: 0.02,
                pattern: random.next_u64(),
                ..Body::round(x + reach * ux, y + reach * uy, reach * uz, radius)
            };
            self.cell(body, 0.9);
        }
        self.fragments(embryo, (x, y), embryo.fragmentation + 0.3 * decay);
    }

    fn morula(&mut self, embryo: &Embryo, (x, y): (f32, f32), compaction: f32, decay: f32) {
        self.zona(embryo, (x, y), ZONA_INNER_UM, ZONA_UM);
        let mut random = Random::new(mix(&[embryo.seed, 7]));
        let radius = 56.0 - 5.0 * compaction;
        let mass = Body {
            along: radius * random.within(0.95, 1.05),
            wobble: 0.03,
            pattern: random.next_u64(),
            ..Body::round(x, y, 0.0, radius)
        };
        self.canvas.draw(&Body { edge: 0.2, tone: -0.04, grain: 0.03, relief: 0.05, ..mass });
        for index in 0..16 {
            let angle = index as f32 * 2.399_963 + random.within(-0.3, 0.3);
            let r = (radius - 17.0) * ((index as f32 + 0.5) / 16.0).sqrt();
            let z = random.within(-22.0, 22.0);
            let body =
                Body { wobble: 0.05, ..Body::round(x + r * angle.cos(), y + r * angle.sin(), z, 17.5) };
            let contrast = 0.20 - 0.13 * compaction;
            self.canvas.draw(&Body { edge: contrast, relief: 0.3 * contrast + 0.012, ..body });
        }
        self.fragments(embryo, (x, y), 0.6 * embryo.fragmentation + 0.4 * decay);
    }

    /// A picture as the JPEG an incubator would store.
    ///
    /// # Errors
    /// When the encoder refuses it.
    pub fn jpeg(picture: &GrayImage) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::with_capacity(32 * 1_024);
        let (width, height) = picture.dimensions();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode(
            picture.as_raw(),
            width,
            height,
            ExtendedColorType::L8,
        )?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Expansion, Letter};

    fn with(icm: Letter, te: Letter) -> Embryo {
        Embryo::with_quality(21, icm, te)
    }

    /// Variance of the Laplacian: the usual measure of sharpness.
    fn sharpness(picture: &GrayImage) -> f64 {
        let grey = |x: u32, y: u32| f64::from(picture.get_pixel(x, y)[0]);
        let inner = 1..picture.width() - 1;
        let laplacian: Vec<f64> = inner
            .clone()
            .flat_map(|y| inner.clone().map(move |x| (x, y)))
            .map(|(x, y)| {
                grey(x - 1, y) + grey(x + 1, y) + grey(x, y - 1) + grey(x, y + 1) - 4.0 * grey(x, y)
            })
            .collect();
        let count = laplacian.len() as f64;
        let mean = laplacian.iter().sum::<f64>() / count;
        laplacian.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count
    }

    #[test]
    fn the_central_plane_is_sharper_than_a_defocused_one_at_every_stage() {
        let mut renderer = Renderer::new(160);
        let embryo = with(Letter::A, Letter::A);
        for hpi in [18.0, 30.0, 92.0, 106.0, 118.0, 140.0] {
            let sharp = sharpness(&renderer.render(&embryo, hpi, 0.0));
            let defocused = sharpness(&renderer.render(&embryo, hpi, 45.0));
            assert!(sharp > 1.25 * defocused, "hpi {hpi}: {sharp} against {defocused}");
        }
    }

    #[test]
    fn each_letter_changes_what_is_seen() {
        let mut renderer = Renderer::new(160);
        let mut of = |icm, te| {
            let embryo = with(icm, te);
            let hpi = embryo.reaches_hpi(Expansion::E4).unwrap() + 1.0;
            renderer.render(&embryo, f64::from(hpi), 0.0)
        };
        let best = of(Letter::A, Letter::A);
        // The noise is the same, so whatever differs is structure.
        let share = |other: GrayImage| {
            let changed = best.iter().zip(other.iter()).filter(|(a, b)| a.abs_diff(**b) > 8).count();
            changed as f64 / best.len() as f64
        };
        for letter in [Letter::B, Letter::C] {
            let (icm, te) = (share(of(letter, Letter::A)), share(of(Letter::A, letter)));
            assert!(icm > 0.015 && te > 0.015, "{letter}: {icm} and {te} of the picture");
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_pixels_whatever_was_drawn_before() {
        let embryo = with(Letter::B, Letter::B);
        let mut renderer = Renderer::new(64);
        let first = renderer.render(&embryo, 116.0, 15.0);
        let other = renderer.render(&embryo, 117.0, 15.0);
        assert_ne!(first, other);
        assert_eq!(first, renderer.render(&embryo, 116.0, 15.0));
        assert_eq!(first, Renderer::new(64).render(&embryo, 116.0, 15.0));
    }

    #[test]
    fn a_picture_is_neither_dark_nor_burnt_out_at_any_hour() {
        let mut renderer = Renderer::new(64);
        for seed in 0..8 {
            for hour in (0..144).step_by(12) {
                let picture = renderer.render(&Embryo::new(seed), f64::from(hour), 0.0);
                let clipped = picture.iter().filter(|grey| **grey == 0 || **grey == 255).count();
                assert!(clipped < 41, "seed {seed}, hpi {hour}: {clipped} of 4096 pixels");
            }
        }
    }
}

//! From the bytes of a 500 x 500 px JPEG to the tensor that the models take: ours beside Pillow, OpenCV and the `image`
//! crate. Ours does more: it verifies length and SHA-256, refuses damaged data and measures quality.

use std::hint::black_box;
use std::time::Instant;

use image::imageops::{FilterType, crop_imm, resize};
use image::{GrayImage, ImageFormat};

use crate::Bench;
use crate::feed::{SIDE_PX, drawn, jpeg};
use crate::peer::{Peer, ask};
use crate::table::Table;
use settings::MODEL_SIDE_PX;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What the pipeline makes of a photograph.
pub mod settings {
    use memebg::domain::{Image, ImageLocation, MediaType, Picture};
    use memebg::pipeline::decode::{self, DecodeSettings};
    use sha2::{Digest, Sha256};

    pub const MODEL_SIDE_PX: u32 = 224;

    /// What the event says of a square JPEG.
    pub fn described(jpeg: &[u8], side_px: u32) -> Image {
        Image {
            location: ImageLocation::Inline,
            sha256: hex::encode(Sha256::digest(jpeg)),
            media_type: MediaType::Jpeg,
            bytes: jpeg.len() as u64,
            width: side_px,
            height: side_px,
        }
    }

    /// Verified, decoded, scaled and measured.
    pub fn decoded(jpeg: &[u8], image: &Image) -> Picture {
        let limits = DecodeSettings { max_image_bytes: 1 << 20, max_pixels: 1 << 20, threads: 1 };
        decode::picture(jpeg, image, &limits, MODEL_SIDE_PX as usize).expect("a picture").picture
    }

    pub fn picture(jpeg: &[u8], side_px: u32) -> Picture {
        decoded(jpeg, &described(jpeg, side_px))
    }
}

pub fn measure(bench: &Bench, table: &mut Table) {
    let photograph = jpeg(&drawn(3));
    let described = settings::described(&photograph, SIDE_PX);
    let mut tensor = Tensor::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, dump) = (folder.path().join("image.jpg"), folder.path().join("tensor"));
    std::fs::write(&file, &photograph).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    let mut python = Peer::start("decode.py", &[file, &MODEL_SIDE_PX.to_string()]);
    let (mut stdin, mut answers) = python.pipes();
    let images = bench.pick(40, 2);
    let mut peer = |library: &str| -> f64 {
        let answer = ask(&mut stdin, &mut answers, &format!("{library} {images}"));
        answer.parse::<f64>().expect("seconds") * 1e3 / f64::from(images)
    };
    let [mut ours, mut pillow, mut opencv, mut crate_alone] = [const { Vec::new() }; 4];
    for _ in 0..bench.pick(60, 1) {
        ours.push(milliseconds(images, || tensor.fill(settings::decoded(&photograph, &described).grey())));
        pillow.push(peer("pillow"));
        opencv.push(peer("opencv"));
        crate_alone.push(milliseconds(images, || tensor.fill(image_crate(&photograph).as_raw())));
    }
    let what = format!("JPEG of {} kB to tensor", photograph.len() / 1_000);
    table.beside(&what, "ms", &ours, "Pillow", &pillow);
    table.beside(&what, "ms", &ours, "OpenCV", &opencv);
    table.beside(&what, "ms", &ours, "image crate", &crate_alone);
    tensor.fill(settings::decoded(&photograph, &described).grey());
    for library in ["pillow", "opencv"] {
        let path = dump.to_str().expect("a path in UTF-8");
        ask(&mut stdin, &mut answers, &format!("tensor {library} {path}"));
        let difference = tensor.difference_in_grey_values(&std::fs::read(&dump).expect("a tensor"));
        table.figure(format!("mean difference to {library}"), "of 255 grey values", &[difference]);
    }
}

/// As our users would write it with the `image` crate alone.
fn image_crate(jpeg: &[u8]) -> GrayImage {
    let grey = image::load_from_memory_with_format(jpeg, ImageFormat::Jpeg).expect("a JPEG").into_luma8();
    let side = grey.width().min(grey.height());
    let (left, top) = ((grey.width() - side) / 2, (grey.height() - side) / 2);
    resize(&*crop_imm(&grey, left, top, side, side), MODEL_SIDE_PX, MODEL_SIDE_PX, FilterType::Triangle)
}

/// Milliseconds per image.
fn milliseconds(images: u32, mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    (0..images).for_each(|_| work());
    began.elapsed().as_secs_f64() * 1e3 / f64::from(images)
}

/// Three times the picture, normalised, as the model room does it.
struct Tensor {
    tables: [[f32; 256]; 3],
    values: Vec<f32>,
}

impl Tensor {
    fn new() -> Self {
        let table =
            |channel: usize| std::array::from_fn(|grey| (grey as f32 / 255.0 - MEAN[channel]) / STD[channel]);
        let values = vec![0.0; 3 * (MODEL_SIDE_PX * MODEL_SIDE_PX) as usize];
        Self { tables: std::array::from_fn(table), values }
    }

    fn fill(&mut self, grey: &[u8]) {
        for (plane, table) in self.values.chunks_exact_mut(grey.len()).zip(&self.tables) {
            plane.iter_mut().zip(grey).for_each(|(target, grey)| *target = table[usize::from(*grey)]);
        }
        black_box(&self.values);
    }

    fn difference_in_grey_values(&self, other: &[u8]) -> f64 {
        let (other, _) = other.as_chunks::<4>();
        let own = self.values.iter().zip(other).take((MODEL_SIDE_PX * MODEL_SIDE_PX) as usize);
        let differences = own.map(|(own, other)| f64::from((own - f32::from_le_bytes(*other)).abs()));
        let pixels = f64::from(MODEL_SIDE_PX * MODEL_SIDE_PX);
        differences.sum::<f64>() / pixels * f64::from(STD[0]) * 255.0
    }
}

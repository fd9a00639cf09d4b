//! Features of frozen encoders, computed once and kept: hours of a CPU would be a pity to repeat.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::augment::augmented;
use super::frozen::{FEATURES, Features};
use super::weights::Weights;
use super::{Sample, TrainingError};
use crate::domain::Picture;
use crate::model::multitask::{RESNET_WIDTH, resnet18_onnx};
use crate::model::{Bundle, Encoder, ModelSettings, bundle::Network};
use crate::random::{Random, mix};

/// Raised when the augmentation or the layout of the file changes: old files are not read then.
const VERSION: &str = "1";
/// Pictures that are encoded at once.
const CHUNK: usize = 16;
/// Views of all samples together that are worth computing.
const VIEWS_IN_ALL: usize = 4_000;
/// Most views of one sample.
const MAX_VIEWS: usize = 8;

/// Both encoders of a network.
pub struct Encoders {
    resnet: Encoder,
    dino: Encoder,
    side_px: usize,
    /// Names both, weights included.
    digest: String,
}

impl Encoders {
    /// The embedding network of `bundle`, and a ResNet-18 of the given weights.
    ///
    /// # Errors
    /// When one of them cannot be loaded.
    pub fn load(settings: &ModelSettings, bundle: &Bundle, resnet: &Weights) -> Result<Self, TrainingError> {
        let data = resnet18_onnx(&mut resnet.clone(), &[]);
        let mut digest = Sha256::new();
        digest.update(Sha256::digest(bundle.embedding().data()));
        digest.update(Sha256::digest(&data));
        let input = &bundle.manifest().input;
        let network = Network::from_bytes(Path::new("resnet18"), data)?;
        Ok(Self {
            resnet: Encoder::load(settings, &network, ("features", RESNET_WIDTH), CHUNK, input)?,
            dino: Encoder::of_bundle(settings, bundle)?,
            side_px: input.side_px,
            digest: hex::encode(digest.finalize()),
        })
    }

    fn encode(&mut self, pictures: &[&Picture]) -> Result<Vec<f32>, TrainingError> {
        let failed = |error: crate::pipeline::grade::GraderError| TrainingError::Encode(error.to_string());
        let seen = self.resnet.encode(pictures).map_err(failed)?;
        let known = self.dino.encode(pictures).map_err(failed)?;
        let widths = (self.resnet.width(), self.dino.width());
        let rows = seen.chunks(widths.0).zip(known.chunks(widths.1));
        Ok(rows.flat_map(|(seen, known)| seen.iter().chain(known)).copied().collect())
    }
}

/// Views of each sample of a set of this size: the picture itself, and others where there are few.
#[must_use]
pub fn views(samples: usize) -> usize {
    (VIEWS_IN_ALL / samples.max(1)).clamp(1, MAX_VIEWS)
}

/// Features of `views` views of every sample, from the cache as far as they are there. Interrupted, it
/// goes on where it stopped. `done` is told the number of samples that are finished.
///
/// # Errors
/// When an encoder fails or the cache folder cannot be used.
pub fn features(
    samples: &[&Sample],
    views: usize,
    seed: u64,
    encoders: &mut Encoders,
    cache: &Path,
    done: &dyn Fn(usize),
) -> Result<Features, TrainingError> {
    let folder = cache.join("features");
    let path = folder.join(format!("{}.f32", key(samples, views, seed, encoders)));
    let wrong = |path: &Path, error: std::io::Error| TrainingError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    fs::create_dir_all(&folder).map_err(|error| wrong(&folder, error))?;
    let (mut file, mut values) = begun(&path).map_err(|error| wrong(&path, error))?;
    let per_sample = views * FEATURES;
    values.truncate(values.len() / per_sample * per_sample);
    values.truncate(samples.len() * per_sample);
    file.set_len((values.len() * size_of::<f32>()) as u64).map_err(|error| wrong(&path, error))?;
    for chunk in samples.get(values.len() / per_sample..).unwrap_or_default().chunks(CHUNK) {
        done(values.len() / per_sample);
        let pictures: Vec<Picture> = chunk
            .iter()
            .flat_map(|sample| (0..views).map(|view| view_of(sample, view, seed, encoders.side_px)))
            .collect();
        let encoded = encoders.encode(&pictures.iter().collect::<Vec<_>>())?;
        let bytes: Vec<u8> = encoded.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&bytes).map_err(|error| wrong(&path, error))?;
        values.extend(encoded);
    }
    done(samples.len());
    Features::new(views, values).ok_or_else(|| TrainingError::Encode("no sample to encode".to_owned()))
}

/// Names the features: the samples, their views and the encoders.
fn key(samples: &[&Sample], views: usize, seed: u64, encoders: &Encoders) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{VERSION} {views} {seed} {}\n", encoders.digest));
    samples.iter().for_each(|sample| digest.update(&sample.sha256));
    hex::encode(digest.finalize())
}

/// The file, to be written on, and what is in it.
fn begun(path: &PathBuf) -> std::io::Result<(File, Vec<f32>)> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let values: Vec<f32> = values.collect();
    Ok((file, values))
}

/// View 0 is the picture itself.
fn view_of(sample: &Sample, view: usize, seed: u64, side_px: usize) -> Picture {
    if view == 0 {
        return sample.picture.clone();
    }
    let name = sample.sha256.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let mut random = Random::new(mix(&[seed, name, view as u64]));
    augmented(&sample.picture, side_px, &mut random).to_picture().unwrap_or_else(|| sample.picture.clone())
}

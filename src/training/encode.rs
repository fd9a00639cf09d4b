//! Features of frozen encoders, computed once and kept: hours of a CPU would be a pity to repeat.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::frozen::{FEATURES, Features};
use super::weights::Weights;
use super::{Sample, TrainingError};
use crate::domain::Picture;
use crate::model::multitask::{RESNET_WIDTH, resnet18_onnx};
use crate::model::{Bundle, Encoder, ModelSettings, bundle::Network};

/// Raised when the layout of the file changes: old files are not read then.
const VERSION: &str = "2";
/// Pictures that are encoded at once.
const CHUNK: usize = 16;

/// Both encoders of a network.
pub struct Encoders {
    resnet: Encoder,
    dino: Encoder,
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

/// Features of every sample as the service sees it, from the cache as far as they are there. Interrupted,
/// it goes on where it stopped. `done` is told the number of samples that are finished.
///
/// # Errors
/// When an encoder fails or the cache folder cannot be used.
pub fn features(
    samples: &[&Sample],
    encoders: &mut Encoders,
    cache: &Path,
    done: &dyn Fn(usize),
) -> Result<Features, TrainingError> {
    let folder = cache.join("features");
    let path = folder.join(format!("{}.f32", key(samples, encoders)));
    let wrong = |path: &Path, error: std::io::Error| TrainingError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    fs::create_dir_all(&folder).map_err(|error| wrong(&folder, error))?;
    let (mut file, mut values) = begun(&path).map_err(|error| wrong(&path, error))?;
    values.truncate(values.len() / FEATURES * FEATURES);
    values.truncate(samples.len() * FEATURES);
    file.set_len((values.len() * size_of::<f32>()) as u64).map_err(|error| wrong(&path, error))?;
    for chunk in samples.get(values.len() / FEATURES..).unwrap_or_default().chunks(CHUNK) {
        done(values.len() / FEATURES);
        let pictures: Vec<&Picture> = chunk.iter().map(|sample| &sample.picture).collect();
        let encoded = encoders.encode(&pictures)?;
        let bytes: Vec<u8> = encoded.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&bytes).map_err(|error| wrong(&path, error))?;
        values.extend(encoded);
    }
    done(samples.len());
    Features::new(values).ok_or_else(|| TrainingError::Encode("no sample to encode".to_owned()))
}

/// Names the features: the samples and the encoders.
fn key(samples: &[&Sample], encoders: &Encoders) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{VERSION} {}\n", encoders.digest));
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

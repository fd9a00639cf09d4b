//! A model bundle on disk: its manifest and two networks, each verified before it is used.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::ModelError;
use super::inspect::inspect;
use super::manifest::{DataFile, Manifest, ModelFile};
use super::multitask::EMBEDDING_WIDTH;
use crate::domain::{ModelIdentity, Population};

/// Longest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A verified bundle. Holds both networks in memory: drop it once they are loaded.
#[derive(Debug)]
pub struct Bundle {
    manifest: Manifest,
    digest: String,
    embedding: Network,
    multitask: Network,
    population: Option<Arc<Population>>,
}

/// A verified network: the bytes that were verified are the bytes that are run, whatever happens to
/// the file in the meantime.
pub struct Network {
    path: PathBuf,
    data: Vec<u8>,
}

impl Network {
    /// A network that is in no bundle yet. `path` is what messages call it.
    ///
    /// # Errors
    /// [`ModelError::Bundle`] when it is no ONNX file or wants to have something from another file.
    pub fn from_bytes(path: &Path, data: Vec<u8>) -> Result<Self, ModelError> {
        inspect(&data).map_err(|reason| ModelError::bundle(path, reason))?;
        Ok(Self { path: path.to_owned(), data })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ONNX file.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Network").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Bundle {
    /// Reads the manifest in `dir` and verifies every file it names.
    ///
    /// # Errors
    /// [`ModelError::Bundle`] naming the file and what is wrong with it.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("manifest.json");
        let json = read_capped(&path)?;
        let manifest = Manifest::from_json(&json).map_err(|reason| ModelError::bundle(&path, reason))?;
        let embedding = stored(dir, &manifest.files.embedding)?;
        let multitask = stored(dir, &manifest.files.multitask)?;
        for network in [&embedding, &multitask] {
            let wrong = |reason: String| ModelError::bundle(&network.path, reason);
            let description = inspect(&network.data).map_err(wrong)?;
            if description.untrained && !manifest.untrained {
                let reason = "its metadata say that it is untrained, the manifest says untrained = false";
                return Err(wrong(reason.to_owned()));
            }
        }
        if manifest.untrained {
            tracing::warn!(
                bundle = %manifest.name,
                version = %manifest.version,
                "UNTRAINED MODEL: the multitask network has random weights, its grades mean nothing"
            );
        }
        let population = manifest.files.population.as_ref().map(|file| population(dir, file)).transpose()?;
        let digest = hex::encode(Sha256::digest(&json));
        Ok(Self { manifest, digest, embedding, multitask, population })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The embedding model.
    #[must_use]
    pub fn embedding(&self) -> &Network {
        &self.embedding
    }

    /// The multitask model.
    #[must_use]
    pub fn multitask(&self) -> &Network {
        &self.multitask
    }

    /// What drift is measured against, where the bundle has it.
    #[must_use]
    pub fn population(&self) -> Option<&Arc<Population>> {
        self.population.as_ref()
    }

    /// What every grade event says about the model. The digest is the SHA-256 of the manifest.
    #[must_use]
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.manifest.name.clone(),
            version: self.manifest.version.clone(),
            digest: self.digest.clone(),
            untrained: self.manifest.untrained,
        }
    }
}

/// Digest of the bundle in `dir`: the SHA-256 of its manifest. None of its files is looked at.
///
/// # Errors
/// [`ModelError::Bundle`] when the manifest cannot be read.
pub fn digest_of(dir: &Path) -> Result<String, ModelError> {
    Ok(hex::encode(Sha256::digest(read_capped(&dir.join("manifest.json"))?)))
}

fn read_capped(path: &Path) -> Result<Vec<u8>, ModelError> {
    let mut json = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut json))
        .map_err(|error| ModelError::bundle(path, format!("cannot be read: {error}")))?;
    if json.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(ModelError::bundle(path, format!("is longer than {MAX_MANIFEST_BYTES} bytes")));
    }
    Ok(json)
}

fn stored(dir: &Path, file: &ModelFile) -> Result<Network, ModelError> {
    let path = dir.join(&file.path);
    let data = read_verified(&path, &file.sha256, file.bytes);
    let data = data.map_err(|reason| ModelError::bundle(&path, reason))?;
    Ok(Network { path, data })
}

fn population(dir: &Path, file: &DataFile) -> Result<Arc<Population>, ModelError> {
    let path = dir.join(&file.path);
    let read = || {
        let population = Population::from_json(&read_verified(&path, &file.sha256, file.bytes)?)?;
        match population.embedding.mean.len() {
            EMBEDDING_WIDTH => Ok(Arc::new(population)),
            other => Err(format!("is about embeddings of {other} values, expected {EMBEDDING_WIDTH}")),
        }
    };
    read().map_err(|reason| ModelError::bundle(&path, reason))
}

/// The bytes of a file that has the length and the digest of the manifest.
fn read_verified(path: &Path, expected_sha256: &str, bytes: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let wrong_length = |length: u64| format!("has {length} bytes, the manifest says {bytes}");
    // Looked at first, so that no memory is taken for a length that is only claimed.
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length != bytes {
        return Err(wrong_length(length));
    }
    let mut data = Vec::with_capacity(usize::try_from(length).map_err(|_| wrong_length(length))?);
    File::open(path).and_then(|open| open.take(length).read_to_end(&mut data)).map_err(unreadable)?;
    let sha256 = hex::encode(Sha256::digest(&data));
    if sha256 != expected_sha256 {
        return Err(format!("has sha256 {sha256}, the manifest says {expected_sha256}"));
    }
    Ok(data)
}

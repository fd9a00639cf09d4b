//! A model bundle on disk: its manifest and two networks, each verified before it is used.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ModelError;
use super::cache::{cache_dir, sha256_of, write_whole};
use super::manifest::{Generated, Manifest, ModelFile};
use super::untrained::untrained_multitask;
use crate::domain::ModelIdentity;

/// Longest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A verified bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    manifest: Manifest,
    digest: String,
    embedding: PathBuf,
    multitask: PathBuf,
}

impl Bundle {
    /// Reads the manifest in `dir` and verifies every file it names. A network that the manifest
    /// says is generated is made in the cache folder when it is not there yet; see [`cache_dir`]
    /// for what an empty `cache` means.
    ///
    /// # Errors
    /// [`ModelError::Bundle`] naming the file and what is wrong with it, or [`ModelError::Cache`].
    pub fn open(dir: &Path, cache: &Path) -> Result<Self, ModelError> {
        let path = dir.join("manifest.json");
        let json = read_capped(&path)?;
        let manifest = Manifest::from_json(&json).map_err(|reason| ModelError::bundle(&path, reason))?;
        let embedding = stored(dir, &manifest.files.embedding)?;
        let multitask = match &manifest.files.multitask.generated {
            None => stored(dir, &manifest.files.multitask)?,
            Some(from) => generated(&path, cache, &manifest.files.multitask, from)?,
        };
        if manifest.untrained {
            tracing::warn!(
                bundle = %manifest.name,
                version = %manifest.version,
                "UNTRAINED MODEL: the multitask network has random weights, its grades mean nothing"
            );
        }
        Ok(Self { manifest, digest: hex::encode(Sha256::digest(&json)), embedding, multitask })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The verified file of the embedding model.
    #[must_use]
    pub fn embedding(&self) -> &Path {
        &self.embedding
    }

    /// The verified file of the multitask model.
    #[must_use]
    pub fn multitask(&self) -> &Path {
        &self.multitask
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

fn stored(dir: &Path, file: &ModelFile) -> Result<PathBuf, ModelError> {
    let path = dir.join(&file.path);
    verify(&path, file).map_err(|reason| ModelError::bundle(&path, reason))?;
    Ok(path)
}

fn verify(path: &Path, file: &ModelFile) -> Result<(), String> {
    let length = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if length != file.bytes {
        return Err(format!("has {length} bytes, the manifest says {}", file.bytes));
    }
    let sha256 = sha256_of(path).map_err(|error| format!("cannot be read: {error}"))?;
    if sha256 != file.sha256 {
        return Err(format!("has sha256 {sha256}, the manifest says {}", file.sha256));
    }
    Ok(())
}

/// The name in the cache is the digest, so bundles share what is equal and never meet what is not.
fn generated(
    manifest: &Path,
    cache: &Path,
    file: &ModelFile,
    from: &Generated,
) -> Result<PathBuf, ModelError> {
    let folder = cache_dir(cache)?.join("models");
    let path = folder.join(format!("{}.onnx", file.sha256));
    if verify(&path, file).is_ok() {
        return Ok(path);
    }
    tracing::info!(seed = from.seed, path = %path.display(), "generating the untrained multitask network");
    let data = untrained_multitask(from.seed);
    let sha256 = hex::encode(Sha256::digest(&data));
    if sha256 != file.sha256 {
        let reason = format!(
            "seed {} makes a {} with sha256 {sha256}, the manifest says {}; it was written for another version",
            from.seed, file.path, file.sha256
        );
        return Err(ModelError::bundle(manifest, reason));
    }
    fs::create_dir_all(&folder).map_err(|error| ModelError::cache(&folder, error))?;
    write_whole(&path, &data).map_err(|error| ModelError::cache(&folder, error))?;
    verify(&path, file).map_err(|reason| ModelError::bundle(&path, reason))?;
    Ok(path)
}

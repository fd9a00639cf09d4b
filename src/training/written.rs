//! Writing the files of a bundle.

use std::fs;
use std::path::{Path, PathBuf};

use super::TrainingError;
use crate::model::Manifest;

/// Writes the manifest of a bundle.
///
/// # Errors
/// When it cannot be written, or would be refused.
pub fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), TrainingError> {
    let path = dir.join("manifest.json");
    let refused = |reason: String| TrainingError::Write { path: path.clone(), reason };
    let mut json = serde_json::to_string_pretty(manifest).map_err(|error| refused(error.to_string()))?;
    json.push('\n');
    Manifest::from_json(json.as_bytes()).map_err(refused)?;
    write(&path, json.as_bytes())
}

/// Writes a file of a bundle.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, data: &[u8]) -> Result<(), TrainingError> {
    fs::write(path, data).map_err(|error| wrong(path, error))
}

/// The error of a file that cannot be written.
pub(super) fn wrong(path: &Path, error: std::io::Error) -> TrainingError {
    TrainingError::Write { path: PathBuf::from(path), reason: error.to_string() }
}

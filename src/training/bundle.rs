//! Writing what was trained: the multitask network, its manifest and its card.

use std::fs;
use std::path::Path;

use chrono::NaiveDate;
use sha2::{Digest, Sha256};

use super::TrainingError;
use super::weights::Weights;
use super::written::{write, write_manifest, wrong};
use crate::domain::Head;
use crate::model::Manifest;
use crate::model::bundle::Bundle;
use crate::model::manifest::{ModelFile, OutOfDistribution, Precision};
use crate::model::multitask::{Reference, multitask_onnx};
use crate::model::onnx::{OPSET, Storage};

/// Name of the multitask network in a bundle.
const MULTITASK: &str = "multitask.onnx";
/// Most frames in one run of it.
const MAX_BATCH_FRAMES: usize = 64;

/// What is decided about one head from held-out answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Logits are divided by it.
    pub temperature: f64,
    /// No grade below this confidence.
    pub abstain_below: f64,
}

/// A trained network with everything that a bundle says about it.
pub struct Trained<'a> {
    /// All tensors.
    pub weights: Weights,
    /// What the training set looks like to DINOv2.
    pub references: Vec<Reference>,
    /// The distance from it above which no grade is given.
    pub out_of_distribution: OutOfDistribution,
    /// By head: EXP, ICM, TE.
    pub calibration: [Calibration; 3],
    /// The bundle whose embedding network it goes with.
    pub base: &'a Bundle,
    /// Names of the new bundle.
    pub name: String,
    /// Version of the new bundle.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// What it was trained on, for whoever has to judge the grades.
    pub training_data: String,
    /// Date of its making.
    pub created: NaiveDate,
}

impl Trained<'_> {
    /// Writes the bundle into `dir`, which is made: both networks and the manifest, which is returned, as
    /// yet without figures.
    ///
    /// # Errors
    /// When a file cannot be written, or the manifest would be refused.
    pub fn write(&self, dir: &Path) -> Result<Manifest, TrainingError> {
        fs::create_dir_all(dir).map_err(|error| wrong(dir, error))?;
        let from = [("training_data", self.training_data.as_str())];
        let network = multitask_onnx(&mut self.weights.clone(), &self.references, Storage::Half, &from);
        let base = self.base.manifest();
        let mut manifest = base.clone();
        manifest.name.clone_from(&self.name);
        manifest.version.clone_from(&self.version);
        manifest.license.clone_from(&self.license);
        manifest.training_data.clone_from(&self.training_data);
        manifest.created = self.created;
        manifest.untrained = false;
        manifest.out_of_distribution = Some(self.out_of_distribution);
        manifest.metrics.clear();
        // That of the base is what another network said.
        manifest.files.population = None;
        for (head, calibration) in Head::ALL.iter().zip(self.calibration) {
            let head = manifest.heads.of_mut(*head);
            head.temperature = calibration.temperature;
            head.abstain_below = Some(calibration.abstain_below);
        }
        manifest.files.multitask = ModelFile {
            path: MULTITASK.to_owned(),
            sha256: hex::encode(Sha256::digest(&network)),
            bytes: network.len() as u64,
            opset: OPSET,
            precision: Precision::Fp32,
            max_batch_frames: MAX_BATCH_FRAMES,
        };
        write(&dir.join(&manifest.files.embedding.path), self.base.embedding().data())?;
        write(&dir.join(MULTITASK), &network)?;
        write_manifest(dir, &manifest)?;
        Ok(manifest)
    }
}

//! What a finished bundle says of a labelled set, kept in the bundle as what drift is measured against.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::evaluation::DataSummary;
use super::written::{write, write_manifest};
use super::{LabelledImages, TrainingError};
use crate::domain::{HeadGrade, Heads, Population, round4};
use crate::model::manifest::DataFile;
use crate::model::{Answer, Manifest};

/// Name of the population in a bundle.
const FILE: &str = "population.json";

/// The population of the pictures whose label gives an expansion; `answers` are in the order of the samples.
/// Without at least two of them, and one with letters, there is none.
#[must_use]
pub fn population(images: &LabelledImages, answers: &[Answer], manifest: &Manifest) -> Option<Population> {
    let heads = |answer: &Answer| {
        let heads = &manifest.heads;
        Some(Heads::new(
            HeadGrade::from_logits(&answer.exp, heads.exp.temperature)?,
            HeadGrade::from_logits(&answer.icm, heads.icm.temperature)?,
            HeadGrade::from_logits(&answer.te, heads.te.temperature)?,
        ))
    };
    let graded = images.samples.iter().zip(answers).filter(|(sample, _)| sample.truth.exp.is_some());
    let pictures: Vec<_> =
        graded.filter_map(|(_, answer)| Some((heads(answer)?, answer.embedding.clone()))).collect();
    let about = format!(
        "{} graded pictures of the labelled set {}, sha256 {}",
        pictures.len(),
        DataSummary::of(images).name,
        images.sha256
    );
    let mut population = Population::of(&about, &pictures)?;
    let grades = &mut population.grades;
    for share in grades.exp.iter_mut().chain(&mut grades.icm).chain(&mut grades.te) {
        *share = round4(*share);
    }
    let moments = &mut population.embedding;
    moments.mean.iter_mut().for_each(|mean| *mean = round4(*mean));
    // Rounded up, so that none becomes 0.
    moments.std.iter_mut().for_each(|std| *std = (*std * 1e4).ceil() / 1e4);
    Some(population)
}

/// Puts a population into the bundle in `dir`, whose digest changes by that. The manifest comes last: until then
/// it names the population that was there before, or none.
///
/// # Errors
/// When a file cannot be written.
pub fn set_population(
    dir: &Path,
    manifest: &mut Manifest,
    population: &Population,
) -> Result<(), TrainingError> {
    let path = dir.join(FILE);
    let refused =
        |error: serde_json::Error| TrainingError::Write { path: path.clone(), reason: error.to_string() };
    let mut json = serde_json::to_vec(population).map_err(refused)?;
    json.push(b'\n');
    manifest.files.population = Some(DataFile {
        path: FILE.to_owned(),
        sha256: hex::encode(Sha256::digest(&json)),
        bytes: json.len() as u64,
    });
    write(&path, &json)?;
    write_manifest(dir, manifest)
}

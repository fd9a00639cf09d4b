//! The course of an end-to-end training: its stages, and going on after an interruption.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module as _;

use super::finetune::{EndToEnd, Network, Normalisation};
use super::fit::{
    Checkpoint, Objective as _, Parts, Progress, Rule, Schedule, Start, device, fit, optimizer,
};
use super::loss::Targets;
use super::network::{Answer, ResNet18, Trunk, answers_of, load, shapes_of, weights_of};
use super::weights::Weights;
use super::{Sample, TrainingError};
use crate::model::multitask::SIDE_PX;
use crate::random::mix;

/// Side of the pictures of the first stage from scratch: a quarter of the time, and coarse structure
/// is learnt first anyway (progressive resizing).
const SMALL_SIDE_PX: usize = SIDE_PX / 2;
/// Samples that are answered at once.
const ANSWERED: usize = 32;

/// A part of the training with pictures of one size.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Stage {
    /// Width and height of the pictures.
    pub side_px: usize,
    /// How it trains.
    pub schedule: Schedule,
}

/// The stages that start from random weights, or from weights that know pictures already.
#[must_use]
pub fn stages(from_scratch: bool, seed: u64) -> Vec<Stage> {
    let stage = |side_px, (epochs, batch, learning_rate, patience)| {
        let seed = mix(&[seed, side_px as u64]);
        Stage {
            side_px,
            schedule: Schedule {
                rule: Rule::AdamW,
                epochs,
                batch,
                learning_rate,
                weight_decay: 0.01,
                patience,
                seed,
            },
        }
    };
    if from_scratch {
        vec![stage(SMALL_SIDE_PX, (10, 16, 1e-3, 5)), stage(SIDE_PX, (2, 16, 3e-4, 2))]
    } else {
        vec![stage(SIDE_PX, (15, 8, 1e-4, 5))]
    }
}

/// What is trained on.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// The samples.
    pub samples: &'a [&'a Sample],
    /// A DINOv2 embedding of each.
    pub embeddings: &'a [Vec<f32>],
    /// What their labels ask.
    pub targets: &'a Targets,
    /// How pictures become tensors.
    pub normalisation: Normalisation,
}

impl<'a> Material<'a> {
    fn objective(
        self,
        side_px: usize,
        each_epoch: &'a mut dyn FnMut(&Checkpoint<Network>) -> Result<(), TrainingError>,
    ) -> EndToEnd<'a> {
        let Self { samples, embeddings, targets, normalisation } = self;
        EndToEnd { samples, embeddings, targets, normalisation, side_px, each_epoch }
    }

    /// Logits of EXP, ICM and TE for each of `indices`.
    #[must_use]
    pub fn answers(self, weights: &Weights, indices: &[usize]) -> Vec<Answer> {
        let mut silent = |_: &Checkpoint<Network>| Ok(());
        let objective = self.objective(SIDE_PX, &mut silent);
        let network = load(network(), weights).valid();
        let mut answers = Vec::with_capacity(indices.len());
        for batch in indices.chunks(ANSWERED) {
            answers.extend(answers_of(objective.logits(&network, batch, None)));
        }
        answers
    }
}

fn network() -> Network {
    let device = device();
    Network { resnet: ResNet18::new(&device), trunk: Trunk::new(&device) }
}

/// Names and shapes of all tensors.
#[must_use]
pub fn shapes() -> Vec<(String, Vec<usize>)> {
    shapes_of(&network())
}

/// Trains all stages from `start`. `folder` keeps what an interrupted training goes on from; `told` hears
/// of every epoch: the stage, its schedule and where it stands.
///
/// # Errors
/// When training diverges or a checkpoint cannot be written.
pub fn train(
    material: Material<'_>,
    parts: Parts<'_>,
    start: &Weights,
    stages: &[Stage],
    folder: &Path,
    told: &mut dyn FnMut(usize, &Stage, &Progress),
) -> Result<Weights, TrainingError> {
    fs::create_dir_all(folder).map_err(|error| wrong(folder, &error))?;
    let mut weights = start.clone();
    for (number, stage) in stages.iter().enumerate() {
        let done = folder.join(format!("stage-{number}.safetensors"));
        if done.exists() {
            weights = Weights::read(&done)?;
            continue;
        }
        let saved = Saved::new(folder, number);
        let begun = match saved.read(&stage.schedule)? {
            Some(checkpoint) => Start::From(checkpoint),
            None => Start::Anew(load(network(), &weights)),
        };
        let mut each_epoch = |checkpoint: &Checkpoint<Network>| {
            saved.write(checkpoint)?;
            told(number, stage, &checkpoint.progress);
            Ok(())
        };
        let mut objective = material.objective(stage.side_px, &mut each_epoch);
        let (network, _) = fit(begun, &stage.schedule, parts, &mut objective)?;
        weights = weights_of(&network);
        weights.write(&done)?;
        saved.remove();
    }
    Ok(weights)
}

/// The files of a checkpoint.
struct Saved {
    module: PathBuf,
    best: PathBuf,
    optimizer: PathBuf,
    /// Written last: without it the others are unfinished.
    progress: PathBuf,
}

impl Saved {
    fn new(folder: &Path, stage: usize) -> Self {
        let file = |name: &str| folder.join(format!("stage-{stage}-{name}"));
        Self {
            module: file("module.bpk"),
            best: file("best.bpk"),
            optimizer: file("optimizer.bpk"),
            progress: file("progress.json"),
        }
    }

    fn write(&self, checkpoint: &Checkpoint<Network>) -> Result<(), TrainingError> {
        // An old progress beside new weights would repeat an epoch.
        self.forget()?;
        let failed = |path: &Path, error: &dyn std::fmt::Display| TrainingError::Write {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let record = checkpoint.module.clone().into_record();
        record.save(&self.module).map_err(|error| failed(&self.module, &error))?;
        let record = checkpoint.best.clone().into_record();
        record.save(&self.best).map_err(|error| failed(&self.best, &error))?;
        checkpoint.optimizer.save(&self.optimizer).map_err(|error| failed(&self.optimizer, &error))?;
        let json =
            serde_json::to_vec(&checkpoint.progress).map_err(|error| failed(&self.progress, &error))?;
        fs::write(&self.progress, json).map_err(|error| wrong(&self.progress, &error))
    }

    fn read(&self, schedule: &Schedule) -> Result<Option<Checkpoint<Network>>, TrainingError> {
        let Ok(json) = fs::read(&self.progress) else { return Ok(None) };
        let failed = |path: &Path, error: &dyn std::fmt::Display| TrainingError::Init {
            path: path.to_owned(),
            reason: format!("{error}; remove the folder to start anew"),
        };
        let progress: Progress =
            serde_json::from_slice(&json).map_err(|error| failed(&self.progress, &error))?;
        let module = network().try_load_file(&self.module).map_err(|error| failed(&self.module, &error))?;
        let best = network().try_load_file(&self.best).map_err(|error| failed(&self.best, &error))?;
        let optimizer =
            optimizer(schedule).load(&self.optimizer).map_err(|error| failed(&self.optimizer, &error))?;
        Ok(Some(Checkpoint { progress, module, best, optimizer }))
    }

    fn forget(&self) -> Result<(), TrainingError> {
        match fs::remove_file(&self.progress) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(wrong(&self.progress, &error)),
            _ => Ok(()),
        }
    }

    /// What is left of a finished stage does no harm.
    fn remove(&self) {
        for path in [&self.progress, &self.module, &self.best, &self.optimizer] {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "a checkpoint could not be removed");
            }
        }
    }
}

fn wrong(path: &Path, error: &std::io::Error) -> TrainingError {
    TrainingError::Write { path: path.to_owned(), reason: error.to_string() }
}

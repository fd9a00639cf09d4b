//! From samples to a trained network and everything that is known of it.

use std::path::Path;

use super::bundle::Calibration;
use super::cross_validate::{self, Answers, Set, VALIDATION_SHARE, of_fold};
use super::end_to_end::{Material, Stage, train};
use super::evaluation::{Abstention, HeadAbstention};
use super::finetune::Normalisation;
use super::fit::{Parts, Progress};
use super::frozen::fit_trunk;
use super::loss::{Targets, Task};
use super::reference::{distance, quantile};
use super::split::Protocol;
use super::weights::Weights;
use super::{FoldAnswers, HeadEvaluation, Scored, TrainingError, calibrate};
use crate::domain::{Head, round4};
use crate::model::manifest::OutOfDistribution;
use crate::model::multitask::Reference;
use crate::random::mix;

/// Share of held-out blastocysts that are near enough to the training set to be graded.
const ACCEPTED: f64 = 0.98;
/// Where no confidence reaches the risk that is asked for, a head says nothing at all.
pub const ALWAYS: f64 = 1.0;

/// A trained network and what held-out samples say of it.
#[derive(Debug)]
pub struct Outcome {
    /// All tensors that were trained: without those of the ResNet when it was frozen.
    pub weights: Weights,
    /// What the samples look like to DINOv2.
    pub references: Vec<Reference>,
    /// The distance above which no grade is given.
    pub out_of_distribution: OutOfDistribution,
    /// By head: EXP, ICM, TE.
    pub calibration: [Calibration; 3],
    /// Figures of held-out samples.
    pub heads: Vec<HeadEvaluation>,
    /// What the thresholds do to them.
    pub abstention: Abstention,
    /// How the held-out samples were chosen.
    pub protocol: Protocol,
}

/// Trains what follows the encoders: networks of a cross-validation for the figures, then the one
/// that is kept on all samples.
///
/// # Errors
/// When the set is too small or training diverges.
pub fn frozen(
    set: Set<'_>,
    seed: u64,
    risk_target: f64,
    done: &dyn Fn(usize, usize),
) -> Result<Outcome, TrainingError> {
    let protocol = Protocol::KFold;
    let Answers { multi, distances, .. } = cross_validate::frozen(set, (protocol, false, seed), done)?;
    let targets = Targets::new(set.samples, set.graded, Task::Multi);
    let weights = fit_trunk(set.features, &targets, set.graded, seed)?;
    // Each fold is cooled by a temperature that its own answers had no part in.
    let folds = multi.map(|folds| with_temperatures_of_the_others(&folds));
    outcome(set.references(set.graded), weights, &folds, &distances, (protocol, risk_target))
}

/// Trains the ResNet with everything behind it. A fifth of the samples is held out for the figures, and
/// of the rest a fifth stops the training and sets the temperatures.
///
/// # Errors
/// When the set is too small, training diverges or a checkpoint cannot be written.
pub fn end_to_end(
    set: Set<'_>,
    normalisation: Normalisation,
    (resnet, stages): (&Weights, &[Stage]),
    (seed, risk_target): (u64, f64),
    folder: &Path,
    told: &mut dyn FnMut(usize, &Stage, &Progress),
) -> Result<Outcome, TrainingError> {
    let Set { samples, features, .. } = set;
    let protocol = Protocol::Holdout;
    let fold = set.folds(protocol, seed)?.pop().unwrap_or_default();
    let (rest, validation) = set.part(&fold.train, VALIDATION_SHARE, mix(&[seed, 0]))?;
    let parts = Parts { fit: &rest, validation: &validation };
    let targets = Targets::new(samples, &rest, Task::Multi);
    // The trunk first, on frozen features: a random one would spoil the ResNet with its first gradients.
    let mut start = prefixed("resnet", resnet.clone());
    start.extend(prefixed("trunk", fit_trunk(features, &targets, &rest, seed)?));
    let embeddings: Vec<Vec<f32>> =
        (0..samples.len()).map(|index| features.embedding(index).to_vec()).collect();
    let material = Material { samples, embeddings: &embeddings, targets: &targets, normalisation };
    let weights = train(material, parts, &start, stages, folder, told)?;
    let scored = |of: &[usize]| targets.scored(of, &material.answers(&weights, of));
    let (held_out, tested) = (scored(&validation), scored(&fold.test));
    let mut folds: [Vec<FoldAnswers>; 3] = [const { Vec::new() }; 3];
    for ((place, held_out), tested) in folds.iter_mut().zip(&held_out).zip(tested) {
        place.push(of_fold(&fold, calibrate::temperature(held_out), tested));
    }
    let references = set.references(&rest);
    let held_out = validation.iter().chain(&fold.test);
    let distances: Vec<f64> =
        held_out.map(|index| distance(&references, features.embedding(*index))).collect();
    outcome(references, weights.without_parts(), &folds, &distances, (protocol, risk_target))
}

fn outcome(
    references: Vec<Reference>,
    weights: Weights,
    folds: &[Vec<FoldAnswers>; 3],
    distances: &[f64],
    (protocol, risk_target): (Protocol, f64),
) -> Result<Outcome, TrainingError> {
    if references.is_empty() {
        return Err(TrainingError::Encode("all embeddings are the same".to_owned()));
    }
    let abstain_above = quantile(distances, ACCEPTED)
        .ok_or_else(|| TrainingError::Encode("no distance of a held-out sample".to_owned()))?;
    let mut calibration = [Calibration { temperature: 1.0, abstain_below: ALWAYS }; 3];
    let (mut heads, mut abstention) = (Vec::new(), Vec::new());
    for ((head, folds), calibration) in Head::ALL.iter().zip(folds).zip(&mut calibration) {
        let all: Vec<Scored> = folds.iter().flat_map(|fold| fold.scored.iter().cloned()).collect();
        let temperature = match folds.as_slice() {
            [one] => one.temperature,
            _ => calibrate::temperature(&all),
        };
        let threshold = calibrate::abstain_below(&all, temperature, risk_target);
        *calibration = Calibration {
            temperature: round4(temperature),
            abstain_below: threshold.map_or(ALWAYS, |threshold| threshold.abstain_below),
        };
        abstention.push(HeadAbstention { head: *head, threshold });
        heads.extend(HeadEvaluation::of(*head, folds, None));
    }
    Ok(Outcome {
        weights,
        references,
        out_of_distribution: OutOfDistribution { abstain_above: round4(abstain_above), accepts: ACCEPTED },
        calibration,
        heads,
        abstention: Abstention { risk_target: Some(risk_target), heads: abstention },
        protocol,
    })
}

fn with_temperatures_of_the_others(folds: &[FoldAnswers]) -> Vec<FoldAnswers> {
    let temperature = |number: usize| {
        let others = folds.iter().enumerate().filter(|(other, _)| *other != number);
        let others: Vec<Scored> = others.flat_map(|(_, fold)| fold.scored.iter().cloned()).collect();
        calibrate::temperature(&others)
    };
    let cooled = |(number, fold): (usize, &FoldAnswers)| FoldAnswers {
        temperature: temperature(number),
        ..fold.clone()
    };
    folds.iter().enumerate().map(cooled).collect()
}

/// Weights under the name of the part of the network that holds them.
fn prefixed(part: &str, weights: Weights) -> Weights {
    Weights(weights.0.into_iter().map(|(name, weight)| (format!("{part}.{name}"), weight)).collect())
}

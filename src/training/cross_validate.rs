//! How good training is on a labelled set: networks trained on parts of it, asked about the rest.

use super::calibrate;
use super::frozen::{Features, answers, fit_trunk};
use super::loss::{Targets, Task};
use super::reference::{distance, references_of};
use super::split::{Fold, Protocol, SplitError, folds, part};
use super::{FoldAnswers, Sample, Scored, TrainingError};
use crate::domain::Head;
use crate::model::multitask::Reference;
use crate::random::mix;

/// Share of the training samples that sets the temperature, and stops the training of a ResNet.
pub const VALIDATION_SHARE: f64 = 0.2;

/// A labelled set ready for training.
#[derive(Clone, Copy)]
pub struct Set<'a> {
    /// All samples.
    pub samples: &'a [&'a Sample],
    /// Those that have an expansion, as indices.
    pub graded: &'a [usize],
    /// Features of all samples.
    pub features: &'a Features,
}

impl<'a> Set<'a> {
    /// Cuts the graded samples; the folds hold indices into `samples`.
    ///
    /// # Errors
    /// When the set is too small.
    pub fn folds(&self, protocol: Protocol, seed: u64) -> Result<Vec<Fold>, SplitError> {
        let folds = folds(protocol, &self.these(self.graded), seed)?;
        let of_set = |fold: Fold| Fold {
            train: picked(&fold.train, self.graded),
            test: picked(&fold.test, self.graded),
            ..fold
        };
        Ok(folds.into_iter().map(of_set).collect())
    }

    /// Takes a share of the samples `indices` away: the rest and the part, as indices into `samples`.
    ///
    /// # Errors
    /// When they are too few.
    pub fn part(
        &self,
        indices: &[usize],
        share: f64,
        seed: u64,
    ) -> Result<(Vec<usize>, Vec<usize>), SplitError> {
        let (rest, part) = part(&self.these(indices), share, seed)?;
        Ok((picked(&rest, indices), picked(&part, indices)))
    }

    /// What the samples `indices` look like to DINOv2.
    #[must_use]
    pub fn references(&self, indices: &[usize]) -> Vec<Reference> {
        let labelled =
            |index: &usize| Some((self.samples.get(*index)?.truth.exp?, self.features.embedding(*index)));
        references_of(&indices.iter().filter_map(labelled).collect::<Vec<_>>())
    }

    fn these(&self, indices: &[usize]) -> Vec<&'a Sample> {
        indices.iter().filter_map(|index| self.samples.get(*index).copied()).collect()
    }
}

/// From positions in a list of indices to the indices.
fn picked(positions: &[usize], indices: &[usize]) -> Vec<usize> {
    positions.iter().filter_map(|position| indices.get(*position).copied()).collect()
}

/// The answers of all folds.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// By head: EXP, ICM, TE of the network trained on all of them.
    pub multi: [Vec<FoldAnswers>; 3],
    /// By head: of the network trained on that head alone. Empty where that was not asked for.
    pub single: [Vec<FoldAnswers>; 3],
    /// Distance of every test picture from the pictures that its network was trained on.
    pub distances: Vec<f64>,
}

/// Trains the trunk on every fold, with all tasks and, when `single` asks for it, each alone, and
/// collects the answers to the test samples. `done` is told how many networks are trained.
///
/// # Errors
/// When the set is too small for the protocol or training diverges.
pub fn frozen(
    set: Set<'_>,
    (protocol, single, seed): (Protocol, bool, u64),
    done: &dyn Fn(usize, usize),
) -> Result<Answers, TrainingError> {
    let Set { samples, features, .. } = set;
    let folds = set.folds(protocol, seed)?;
    let tasks: Vec<Task> = if single {
        [Task::Multi].into_iter().chain(Head::ALL.iter().map(|head| Task::Single(*head))).collect()
    } else {
        vec![Task::Multi]
    };
    let mut collected = Answers::default();
    let networks = folds.len() * tasks.len();
    for (number, fold) in folds.iter().enumerate() {
        let seed = mix(&[seed, number as u64]);
        let (fit, validation) = set.part(&fold.train, VALIDATION_SHARE, seed)?;
        for (task_number, task) in tasks.iter().enumerate() {
            done(number * tasks.len() + task_number, networks);
            // One network's answers to what it has not seen set the temperature; the one that is tested
            // is its like, trained on those samples too.
            let trained = |on: &[usize], of: &[usize]| -> Result<[Vec<Scored>; 3], TrainingError> {
                let targets = Targets::new(samples, on, *task);
                let weights = fit_trunk(features, &targets, on, seed)?;
                Ok(targets.scored(of, &answers(features, &weights, of)))
            };
            let (held_out, tested) = (trained(&fit, &validation)?, trained(&fold.train, &fold.test)?);
            let place = match task {
                Task::Multi => &mut collected.multi,
                Task::Single(_) => &mut collected.single,
            };
            let heads = Head::ALL.iter().zip(place.iter_mut()).zip(held_out).zip(tested);
            for (((head, place), held_out), tested) in heads {
                if task.includes(*head) {
                    place.push(of_fold(fold, calibrate::temperature(&held_out), tested));
                }
            }
        }
        let references = set.references(&fold.train);
        let tested = fold.test.iter().map(|index| distance(&references, features.embedding(*index)));
        collected.distances.extend(tested);
    }
    done(networks, networks);
    Ok(collected)
}

/// The answers of one fold on one head.
#[must_use]
pub fn of_fold(fold: &Fold, temperature: f64, scored: Vec<Scored>) -> FoldAnswers {
    FoldAnswers { repeat: fold.repeat, fold: fold.fold, temperature, scored }
}

//! How good training is on a labelled set: networks trained on parts of it, asked about the rest.

use super::calibrate;
use super::fit::Parts;
use super::frozen::{Features, answers, fit_trunk, schedule};
use super::loss::{Targets, Task};
use super::reference::{distance, references_of};
use super::split::{Fold, Protocol, folds, part};
use super::{FoldAnswers, Sample, Scored, TrainingError, class_index};
use crate::domain::Head;
use crate::model::multitask::Reference;
use crate::random::mix;

/// Share of the training samples that stops the training and sets the temperature.
pub const VALIDATION_SHARE: f64 = 0.2;

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
/// collects the answers to the test samples. `graded` are the samples that have an expansion, as
/// indices into `samples` and `features`. `done` is told how many networks are trained.
///
/// # Errors
/// When the set is too small for the protocol or training diverges.
pub fn frozen(
    samples: &[&Sample],
    graded: &[usize],
    features: &Features,
    (protocol, single, seed): (Protocol, bool, u64),
    done: &dyn Fn(usize, usize),
) -> Result<Answers, TrainingError> {
    let cut: Vec<&Sample> = graded.iter().filter_map(|index| samples.get(*index).copied()).collect();
    let folds = folds(protocol, &cut, seed)?;
    let tasks: Vec<Task> = if single {
        [Task::Multi].into_iter().chain(Head::ALL.iter().map(|head| Task::Single(*head))).collect()
    } else {
        vec![Task::Multi]
    };
    let mut collected = Answers::default();
    let networks = folds.len() * tasks.len();
    for (number, fold) in folds.iter().enumerate() {
        let train: Vec<&Sample> = fold.train.iter().filter_map(|index| cut.get(*index).copied()).collect();
        let fold_seed = mix(&[seed, number as u64]);
        let (rest, validation) = part(&train, VALIDATION_SHARE, fold_seed)?;
        // From positions in the fold to positions in the set.
        let of_train = |positions: &[usize]| -> Vec<usize> {
            let in_cut = positions.iter().filter_map(|position| fold.train.get(*position));
            in_cut.filter_map(|index| graded.get(*index).copied()).collect()
        };
        let (fit, validation) = (of_train(&rest), of_train(&validation));
        let test: Vec<usize> = fold.test.iter().filter_map(|index| graded.get(*index).copied()).collect();
        for (task_number, task) in tasks.iter().enumerate() {
            done(number * tasks.len() + task_number, networks);
            let targets = Targets::new(samples, &fit, *task);
            let parts = Parts { fit: &fit, validation: &validation };
            let (weights, _) = fit_trunk(features, &targets, parts, &schedule(fit.len(), fold_seed))?;
            let held_out = scored(samples, &validation, &answers(features, &weights, &validation));
            let tested = scored(samples, &test, &answers(features, &weights, &test));
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
        let references = references(samples, &fit, features);
        let tested = test.iter().map(|index| distance(&references, features.embedding(*index)));
        collected.distances.extend(tested);
    }
    done(networks, networks);
    Ok(collected)
}

/// What the samples `indices` look like to DINOv2.
#[must_use]
pub fn references(samples: &[&Sample], indices: &[usize], features: &Features) -> Vec<Reference> {
    let labelled = |index: &usize| Some((samples.get(*index)?.truth.exp?, features.embedding(*index)));
    references_of(&indices.iter().filter_map(labelled).collect::<Vec<_>>())
}

/// The answers of one fold on one head.
#[must_use]
pub fn of_fold(fold: &Fold, temperature: f64, scored: Vec<Scored>) -> FoldAnswers {
    FoldAnswers { repeat: fold.repeat, fold: fold.fold, temperature, scored }
}

/// By head, the answers to the samples `indices` that have a grade on it.
#[must_use]
pub fn scored(samples: &[&Sample], indices: &[usize], answers: &[[Vec<f32>; 3]]) -> [Vec<Scored>; 3] {
    [Head::Exp, Head::Icm, Head::Te].map(|head| {
        let one = |(index, answer): (&usize, &[Vec<f32>; 3])| {
            let truth = class_index(&samples.get(*index)?.truth, head)?;
            let logits = answer.get(head as usize)?.clone();
            Some(Scored { truth, logits })
        };
        indices.iter().zip(answers).filter_map(one).collect()
    })
}

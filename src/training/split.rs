//! Cutting a labelled set into training and test parts: stratified, grouped, reproducible.

use std::collections::HashMap;

use super::{Sample, class_index, class_labels};
use crate::domain::{Head, label_enum};
use crate::random::{Random, mix};

/// Share of the samples that a holdout keeps for the test.
const HOLDOUT_SHARE: f64 = 0.2;
/// Folds of k-fold cross-validation.
const FOLDS: usize = 5;
/// Repeats of 5x2 cross-validation.
const REPEATS: usize = 5;

label_enum! {
    /// How a set is cut for an evaluation.
    Protocol {
        /// One cut: 20 % for the test.
        Holdout = "holdout",
        /// Five folds, each the test of the other four once.
        KFold = "kfold",
        /// Five repeats of two halves, each the test of the other (Dietterich 1998): what the paired
        /// tests need.
        FiveByTwo = "5x2cv",
    }
}

/// One training with its test, as indices into the samples that were cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fold {
    /// Repeat, from 0.
    pub repeat: usize,
    /// Fold within the repeat, from 0.
    pub fold: usize,
    /// To train on, ascending.
    pub train: Vec<usize>,
    /// To test on, ascending.
    pub test: Vec<usize>,
}

/// Why a set cannot be cut.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// A part would be empty.
    #[error("{units} embryos (images of one group count once) cannot be cut into {parts} parts: label more")]
    TooFew {
        /// What may be separated: groups, and samples without one.
        units: usize,
        /// Parts asked for.
        parts: usize,
    },
    /// A part that is nothing or everything.
    #[error("a share of {0} is not between 0 and 1")]
    Share(f64),
}

/// Cuts `samples` as the protocol says; the same seed cuts the same way.
///
/// Every part holds about the same share of every class of every head, and of the samples without a
/// grade on it. Samples of one group stay together.
///
/// # Errors
/// When there are fewer groups than parts.
pub fn folds(protocol: Protocol, samples: &[&Sample], seed: u64) -> Result<Vec<Fold>, SplitError> {
    let cut = |repeat: usize, shares: &[f64], tests: std::ops::Range<usize>| {
        let part_of = assign(samples, shares, &mut Random::new(mix(&[seed, repeat as u64])))?;
        let within = |part: usize, is_test: bool| {
            let wanted = part_of.iter().enumerate().filter(move |(_, p)| (**p == part) == is_test);
            wanted.map(|(index, _)| index).collect()
        };
        let fold = |(fold, part)| Fold { repeat, fold, train: within(part, false), test: within(part, true) };
        Ok(tests.enumerate().map(fold).collect::<Vec<_>>())
    };
    match protocol {
        Protocol::Holdout => cut(0, &[1.0 - HOLDOUT_SHARE, HOLDOUT_SHARE], 1..2),
        Protocol::KFold => cut(0, &[1.0 / FOLDS as f64; FOLDS], 0..FOLDS),
        Protocol::FiveByTwo => {
            let repeats: Result<Vec<_>, _> =
                (0..REPEATS).map(|repeat| cut(repeat, &[0.5; 2], 0..2)).collect();
            Ok(repeats?.concat())
        }
    }
}

/// Takes a `share` of the samples away, stratified and grouped like [`folds`]: the indices of (the
/// rest, the part), for the part of a training set that calibrates and stops the training.
///
/// # Errors
/// When there are fewer than two groups, or the share is not between 0 and 1.
pub fn part(samples: &[&Sample], share: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>), SplitError> {
    if !(share > 0.0 && share < 1.0) {
        return Err(SplitError::Share(share));
    }
    let part_of = assign(samples, &[1.0 - share, share], &mut Random::new(mix(&[seed, u64::MAX])))?;
    Ok((0..samples.len()).partition(|index| part_of.get(*index) == Some(&0)))
}

/// What stays together: the samples of a group, or one sample without a group.
struct Unit {
    samples: Vec<usize>,
    /// Samples with each label; the last label is "a sample", which keeps the sizes right.
    labels: Vec<f64>,
}

/// The part of every sample.
///
/// Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011): the rarest label is dealt first,
/// while there is still room to place it, and a unit goes where most is lacking. There the lack of one
/// label decides; here it is the chi-square distance of all parts from their due, over all labels, so
/// that parts of unequal size get their due of small sets, and groups with many labels land well.
fn assign(samples: &[&Sample], shares: &[f64], random: &mut Random) -> Result<Vec<usize>, SplitError> {
    let mut units = units(samples);
    if units.len() < shares.len() {
        return Err(SplitError::TooFew { units: units.len(), parts: shares.len() });
    }
    random.shuffle(&mut units);
    // A large group is hard to place late.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.samples.len()));
    let labels = units.first().map_or(0, |unit| unit.labels.len());
    let count = |label: usize, units: &[Unit]| units.iter().map(|unit| unit.labels[label]).sum::<f64>();
    let totals: Vec<f64> = (0..labels).map(|label| count(label, &units)).collect();
    let mut lacking: Vec<Vec<f64>> =
        shares.iter().map(|share| totals.iter().map(|total| total * share).collect()).collect();

    let mut part_of = vec![0; samples.len()];
    let mut empty = vec![true; shares.len()];
    while !units.is_empty() {
        let rarest = (0..labels)
            .filter(|label| count(*label, &units) > 0.0)
            .min_by(|a, b| count(*a, &units).total_cmp(&count(*b, &units)))
            .unwrap_or(0);
        let (dealt, later): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| unit.labels[rarest] > 0.0);
        let mut left = dealt.len() + later.len();
        for unit in dealt {
            // By how much the distance shrinks: the sum of lack^2 / due over labels and parts.
            let gain = |lacking: &[f64], share: f64| -> f64 {
                let labels = lacking.iter().zip(&unit.labels).zip(&totals).filter(|((_, n), _)| **n > 0.0);
                labels.map(|((lack, n), total)| (2.0 * lack - n) * n / (share * total)).sum()
            };
            // Equals are told apart by a drawn number. Nothing stays empty.
            let must_fill = left == empty.iter().filter(|empty| **empty).count();
            let best = lacking
                .iter()
                .zip(shares)
                .map(|(lacking, share)| (gain(lacking, *share), random.next_u64()))
                .enumerate()
                .filter(|(part, _)| !must_fill || empty[*part])
                .max_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
                .map_or(0, |(part, _)| part);
            for (lack, count) in lacking[best].iter_mut().zip(&unit.labels) {
                *lack -= count;
            }
            empty[best] = false;
            left -= 1;
            for sample in unit.samples {
                part_of[sample] = best;
            }
        }
        units = later;
    }
    Ok(part_of)
}

fn units(samples: &[&Sample]) -> Vec<Unit> {
    let widths: Vec<usize> = Head::ALL.iter().map(|head| class_labels(*head).len() + 1).collect();
    let labels = widths.iter().sum::<usize>() + 1;
    let mut units: Vec<Unit> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (index, sample) in samples.iter().enumerate() {
        let next = units.len();
        let unit = sample.group.as_deref().map_or(next, |group| *known.entry(group).or_insert(next));
        if unit == next {
            units.push(Unit { samples: Vec::new(), labels: vec![0.0; labels] });
        }
        let unit = &mut units[unit];
        unit.samples.push(index);
        let mut first = 0;
        for (head, width) in Head::ALL.iter().zip(&widths) {
            unit.labels[first + class_index(&sample.truth, *head).unwrap_or(width - 1)] += 1.0;
            first += width;
        }
        unit.labels[first] += 1.0;
    }
    units
}

#[cfg(test)]
mod tests;

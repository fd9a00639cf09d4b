//! The joint loss: what each label asks of each head, and how far the logits are from it.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

use super::network::Logits;
use super::{Sample, Scored, class_index};
use crate::domain::{Expansion, GradeClass, Head, Letter};

/// How strongly rare classes are weighted up: the power of the inverse of their frequency. 1 would
/// make every class count the same, and single pictures of rare classes count most; 0.5 is between.
const BALANCE: f32 = 0.5;
/// Share of an expansion's target that goes to each neighbour: expansion is ordinal, and 3 for 4 is
/// less wrong than 3 for 6 (soft labels after Diaz & Marathe 2019).
const ORDINAL_SHARE: f32 = 0.05;

/// Classes of a head.
#[must_use]
pub fn classes(head: Head) -> usize {
    match head {
        Head::Exp => Expansion::ALL.len(),
        Head::Icm | Head::Te => Letter::ALL.len(),
    }
}

/// Which heads are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// All three, jointly.
    Multi,
    /// One alone, in the same network.
    Single(Head),
}

impl Task {
    /// Whether the head is part of it.
    #[must_use]
    pub fn includes(self, head: Head) -> bool {
        self == Self::Multi || self == Self::Single(head)
    }
}

/// The targets of a set of samples: for each head a row per sample, class probabilities times the
/// weight of the sample; zeros where the label has no grade.
#[derive(Debug, Clone)]
pub struct Targets {
    rows: [Vec<Vec<f32>>; 3],
    task: Task,
}

impl Targets {
    /// Class weights come from `fitted`, the samples that are trained on.
    #[must_use]
    pub fn new(samples: &[&Sample], fitted: &[usize], task: Task) -> Self {
        let of = |head: Head| {
            let classes = classes(head);
            let truth = |sample: &Sample| class_index(&sample.truth, head).filter(|_| task.includes(head));
            let mut counts = vec![0.0_f32; classes];
            for class in fitted.iter().filter_map(|index| samples.get(*index).and_then(|s| truth(s))) {
                if let Some(count) = counts.get_mut(class) {
                    *count += 1.0;
                }
            }
            let weights = class_weights(&counts);
            let row = |sample: &&Sample| match truth(sample) {
                Some(class) => target(head, class, weights.get(class).copied().unwrap_or(1.0)),
                None => vec![0.0; classes],
            };
            samples.iter().map(row).collect()
        };
        Self { rows: [of(Head::Exp), of(Head::Icm), of(Head::Te)], task }
    }

    /// The loss of logits for the samples `indices`, in that order: per head the mean cross-entropy of
    /// those that have a grade, and of these the sum.
    #[must_use]
    pub fn loss(&self, indices: &[usize], logits: Logits, device: &Device) -> Tensor<1> {
        let mut total = Tensor::zeros([1], device);
        for ((head, rows), logits) in Head::ALL.iter().zip(&self.rows).zip(logits) {
            if !self.task.includes(*head) {
                continue;
            }
            let values: Vec<f32> =
                indices.iter().filter_map(|index| rows.get(*index)).flatten().copied().collect();
            let weight: f32 = values.iter().sum();
            if weight <= 0.0 {
                continue;
            }
            let target = TensorData::new(values, [indices.len(), classes(*head)]);
            let target = Tensor::<2>::from_data(target, device);
            total = total - (log_softmax(logits, 1) * target).sum().div_scalar(weight);
        }
        total
    }
}

impl Targets {
    /// By head, the answers to those of `indices` that have a grade on it; none for heads that are not
    /// trained.
    #[must_use]
    pub fn scored(&self, indices: &[usize], logits: Logits) -> [Vec<Scored>; 3] {
        let [exp, icm, te] = logits.map(split_rows);
        let of = |rows: &[Vec<f32>], logits: Vec<Vec<f32>>| {
            let one = |(index, logits): (&usize, Vec<f32>)| {
                let row = rows.get(*index)?;
                let largest = row.iter().copied().fold(0.0, f32::max);
                let truth = row.iter().position(|value| *value >= largest && *value > 0.0)?;
                Some(Scored { truth, logits })
            };
            indices.iter().zip(logits).filter_map(one).collect()
        };
        let [exp_rows, icm_rows, te_rows] = &self.rows;
        [of(exp_rows, exp), of(icm_rows, icm), of(te_rows, te)]
    }
}

/// The rows of a matrix.
#[must_use]
pub fn split_rows(matrix: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = matrix.dims();
    let values = matrix.into_data().convert::<f32>().try_to_vec::<f32>().unwrap_or_default();
    values.chunks(width.max(1)).map(<[f32]>::to_vec).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a handful of classes")]
fn class_weights(counts: &[f32]) -> Vec<f32> {
    let present = counts.iter().filter(|count| **count > 0.0).count().max(1) as f32;
    let mean = counts.iter().sum::<f32>() / present;
    counts.iter().map(|count| if *count > 0.0 { (mean / count).powf(BALANCE) } else { 1.0 }).collect()
}

fn target(head: Head, class: usize, weight: f32) -> Vec<f32> {
    let classes = classes(head);
    let mut row = vec![0.0; classes];
    let neighbours = match head {
        Head::Exp => [class.checked_sub(1), Some(class + 1).filter(|next| *next < classes)],
        Head::Icm | Head::Te => [None, None],
    };
    let mut left = 1.0;
    for index in neighbours.into_iter().flatten() {
        if let Some(value) = row.get_mut(index) {
            *value = ORDINAL_SHARE * weight;
            left -= ORDINAL_SHARE;
        }
    }
    if let Some(value) = row.get_mut(class) {
        *value = left * weight;
    }
    row
}

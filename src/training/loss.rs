//! The joint loss: what each label asks of each head, and how far the logits are from it.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

use super::network::{Answer, Logits};
use super::{Sample, Scored, class_index, class_labels};
use crate::domain::Head;

/// How strongly rare classes are weighted up: the power of the inverse of their frequency. 1 would
/// make every class count the same, and single pictures of rare classes count most; 0.5 is between.
const BALANCE: f32 = 0.5;
/// Share of an expansion's target that goes to each neighbour: expansion is ordinal, and 3 for 4 is
/// less wrong than 3 for 6 (soft labels after Diaz & Marathe 2019).
const ORDINAL_SHARE: f32 = 0.05;

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

/// What the labels of a set of samples ask of each head, EXP, ICM and TE.
#[derive(Debug, Clone)]
pub struct Targets {
    heads: [HeadTargets; 3],
}

#[derive(Debug, Clone)]
struct HeadTargets {
    /// The class of each sample; `None` where the label has no grade or the head is not trained.
    truths: Vec<Option<usize>>,
    /// A row per sample: class probabilities times the weight of the sample; zeros without a class.
    rows: Vec<Vec<f32>>,
}

impl Targets {
    /// Class weights come from `fitted`, the samples that are trained on.
    #[must_use]
    pub fn new(samples: &[&Sample], fitted: &[usize], task: Task) -> Self {
        let of = |head: Head| {
            let truth = |sample: &&Sample| class_index(&sample.truth, head).filter(|_| task.includes(head));
            let truths: Vec<Option<usize>> = samples.iter().map(truth).collect();
            let mut counts = vec![0.0_f32; class_labels(head).len()];
            for class in fitted.iter().filter_map(|index| truths.get(*index).copied().flatten()) {
                if let Some(count) = counts.get_mut(class) {
                    *count += 1.0;
                }
            }
            let weights = class_weights(&counts);
            let row = |truth: &Option<usize>| match truth {
                Some(class) => target(head, *class, weights.get(*class).copied().unwrap_or(1.0)),
                None => vec![0.0; weights.len()],
            };
            let rows = truths.iter().map(row).collect();
            HeadTargets { truths, rows }
        };
        Self { heads: [of(Head::Exp), of(Head::Icm), of(Head::Te)] }
    }

    /// The loss of logits for the samples `indices`, in that order: per head the mean cross-entropy of
    /// those that have a class, and of these the sum.
    #[must_use]
    pub fn loss(&self, indices: &[usize], logits: Logits, device: &Device) -> Tensor<1> {
        let mut total = Tensor::zeros([1], device);
        for (HeadTargets { rows, .. }, logits) in self.heads.iter().zip(logits) {
            let values: Vec<f32> =
                indices.iter().filter_map(|index| rows.get(*index)).flatten().copied().collect();
            let weight: f32 = values.iter().sum();
            if weight <= 0.0 {
                continue;
            }
            let target = Tensor::<2>::from_data(TensorData::new(values, logits.dims()), device);
            total = total - (log_softmax(logits, 1) * target).sum().div_scalar(weight);
        }
        total
    }

    /// By head, the answers to those of `indices` that have a class; none for heads that are not trained.
    #[must_use]
    pub fn scored(&self, indices: &[usize], answers: &[Answer]) -> [Vec<Scored>; 3] {
        [0, 1, 2].map(|head| {
            let one = |(index, answer): (&usize, &Answer)| {
                let truth = self.heads.get(head)?.truths.get(*index).copied().flatten()?;
                Some(Scored { truth, logits: answer.get(head)?.clone() })
            };
            indices.iter().zip(answers).filter_map(one).collect()
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "a handful of classes")]
fn class_weights(counts: &[f32]) -> Vec<f32> {
    let present = counts.iter().filter(|count| **count > 0.0).count().max(1) as f32;
    let mean = counts.iter().sum::<f32>() / present;
    counts.iter().map(|count| if *count > 0.0 { (mean / count).powf(BALANCE) } else { 1.0 }).collect()
}

fn target(head: Head, class: usize, weight: f32) -> Vec<f32> {
    let classes = class_labels(head).len();
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

//! Training with frozen encoders: everything after them, on features computed once. Seconds.

use burn::module::Module as _;
use burn::tensor::{Device, Tensor, TensorData};

use super::TrainingError;
use super::fit::{Checkpoint, Objective, Parts, Rule, Schedule, Start, device, fit};
use super::loss::Targets;
use super::network::{Answer, Logits, Mask, Trunk, answers_of, load, shapes_of, weights_of};
use super::weights::Weights;
use crate::domain::Head;
use crate::model::multitask::{EMBEDDING_WIDTH, RESNET_WIDTH};
use crate::random::{Random, mix};

/// Numbers that describe one picture: ResNet features, then the DINOv2 embedding.
pub const FEATURES: usize = RESNET_WIDTH + EMBEDDING_WIDTH;
/// Deviation that ResNet features are scaled to; DINOv2's are scaled to 1. The ResNet has seen one kind of
/// picture, DINOv2 a hundred million: on few pictures the former must not drown the latter.
const RESNET_DEVIATION: f32 = 0.25;
/// Features that vary less than this are left as they are.
const MIN_DEVIATION: f32 = 1e-4;

/// How the trunk is trained: to the end, held back by a ridge penalty and dropout and not by a validation
/// loss, which of the fifteen pictures that a set of a hundred can spare is mostly chance. The end is where
/// loss and penalty balance: steps half as long, or more of them, come to the same loss.
fn schedule(samples: usize, seed: u64) -> Schedule {
    // At least 1,500 steps, however many samples there are: the penalty needs them to take back what the
    // random start says.
    let batch = 32;
    let steps_per_epoch = samples.div_ceil(batch).max(1);
    Schedule {
        epochs: 1_500_usize.div_ceil(steps_per_epoch).max(20),
        batch,
        rule: Rule::Descent,
        learning_rate: 0.1,
        weight_decay: 0.01,
        // Without validation it never counts.
        patience: usize::MAX,
        seed,
    }
}

/// Features of every picture as the service sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// `[sample, 896]`
    values: Vec<f32>,
}

impl Features {
    /// `None` unless `values` is `[samples, 896]` of some samples.
    #[must_use]
    pub fn new(values: Vec<f32>) -> Option<Self> {
        values.len().is_multiple_of(FEATURES).then_some(Self { values })
    }

    /// The features of one sample.
    #[must_use]
    pub fn row(&self, sample: usize) -> &[f32] {
        let first = sample * FEATURES;
        self.values.get(first..first + FEATURES).unwrap_or_default()
    }

    /// The DINOv2 embedding of one sample.
    #[must_use]
    pub fn embedding(&self, sample: usize) -> &[f32] {
        self.row(sample).get(RESNET_WIDTH..).unwrap_or_default()
    }
}

/// Mean and deviation of every feature.
struct Scale {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl Scale {
    #[allow(clippy::cast_precision_loss, reason = "numbers of samples")]
    fn of(features: &Features, samples: &[usize]) -> Self {
        let rows = || samples.iter().map(|sample| features.row(*sample));
        let count = samples.len().max(1) as f32;
        let (mut mean, mut variance) = (vec![0.0; FEATURES], vec![0.0; FEATURES]);
        for row in rows() {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / count);
        }
        for row in rows() {
            let differences = variance.iter_mut().zip(&mean).zip(row);
            differences.for_each(|((sum, mean), value)| *sum += (value - mean).powi(2) / count);
        }
        let deviation = |variance: f32| if variance.sqrt() > MIN_DEVIATION { variance.sqrt() } else { 1.0 };
        let scaled = |(index, variance): (usize, f32)| {
            if index < RESNET_WIDTH { deviation(variance) / RESNET_DEVIATION } else { deviation(variance) }
        };
        Self { mean, deviation: variance.into_iter().enumerate().map(scaled).collect() }
    }

    /// Changes the first layers so that they take features as they come.
    fn fold(&self, weights: &mut Weights) {
        for (name, first) in [("embedding_layer", 0), ("projection", RESNET_WIDTH)] {
            let Some(mut weight) = weights.0.remove(&format!("{name}.weight")) else { continue };
            let width = weight.dims.get(1).copied().unwrap_or(1).max(1);
            let mut shifts = Vec::new();
            for row in weight.values.chunks_mut(width) {
                let scale = self.mean.iter().zip(&self.deviation).skip(first);
                let mut shift = 0.0;
                for (value, (mean, deviation)) in row.iter_mut().zip(scale) {
                    *value /= deviation;
                    shift += *value * mean;
                }
                shifts.push(shift);
            }
            if let Some(bias) = weights.0.get_mut(&format!("{name}.bias")) {
                bias.values.iter_mut().zip(shifts).for_each(|(bias, shift)| *bias -= shift);
            }
            weights.0.insert(format!("{name}.weight"), weight);
        }
    }
}

struct OnFeatures<'a> {
    features: &'a Features,
    scale: &'a Scale,
    targets: &'a Targets,
}

impl Objective<Trunk> for OnFeatures<'_> {
    fn logits(&self, trunk: &Trunk, indices: &[usize], random: Option<&mut Random>) -> Logits {
        let device = device();
        let (mut seen, mut known) = (Vec::new(), Vec::new());
        for index in indices {
            let row = self.features.row(*index);
            let scaled = row.iter().zip(&self.scale.mean).zip(&self.scale.deviation);
            for (position, ((value, mean), deviation)) in scaled.enumerate() {
                let branch = if position < RESNET_WIDTH { &mut seen } else { &mut known };
                branch.push((value - mean) / deviation);
            }
        }
        let samples = indices.len();
        let mask = random.map(|random| Mask::draw(samples, random, &device));
        trunk.forward(rows(seen, samples, &device), rows(known, samples, &device), mask)
    }

    fn targets(&self) -> &Targets {
        self.targets
    }

    fn epoch_done(&mut self, _: &Checkpoint<Trunk>) -> Result<(), TrainingError> {
        Ok(())
    }
}

fn rows(values: Vec<f32>, samples: usize, device: &Device) -> Tensor<2> {
    let width = values.len() / samples.max(1);
    Tensor::from_data(TensorData::new(values, [samples, width]), device)
}

/// Fits a trunk to `samples`; its weights take features as they come.
///
/// # Errors
/// [`TrainingError::Diverged`].
pub fn fit_trunk(
    features: &Features,
    targets: &Targets,
    samples: &[usize],
    seed: u64,
) -> Result<Weights, TrainingError> {
    let device = device();
    let trunk = Trunk::new(&device);
    let mut start = Weights::random(&shapes_of(&trunk), mix(&[seed, 0x0074_7275_6e6b]));
    // Heads of zeros: whatever of a picture no sample speaks of then stays without a say, where random
    // heads would go on answering from it.
    for head in Head::ALL {
        if let Some(weight) = start.0.get_mut(&format!("{}.weight", head.as_str())) {
            weight.values.fill(0.0);
        }
    }
    let scale = Scale::of(features, samples);
    let mut objective = OnFeatures { features, scale: &scale, targets };
    let parts = Parts { fit: samples, validation: &[] };
    let (trunk, _) =
        fit(Start::Anew(load(trunk, &start)), &schedule(samples.len(), seed), parts, &mut objective)?;
    let mut weights = weights_of(&trunk);
    scale.fold(&mut weights);
    Ok(weights)
}

/// Logits of EXP, ICM and TE for each of `samples`.
#[must_use]
pub fn answers(features: &Features, weights: &Weights, samples: &[usize]) -> Vec<Answer> {
    let device = device();
    let trunk = load(Trunk::new(&device), weights).valid();
    let mut answers = Vec::with_capacity(samples.len());
    for batch in samples.chunks(256) {
        let part = |from: usize, to: usize| {
            let values = batch.iter().filter_map(|sample| features.row(*sample).get(from..to));
            rows(values.flatten().copied().collect(), batch.len(), &device)
        };
        answers.extend(answers_of(trunk.forward(part(0, RESNET_WIDTH), part(RESNET_WIDTH, FEATURES), None)));
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DevelopmentStage, Expansion, Letter, Picture, Truth};
    use crate::training::loss::Task;
    use crate::training::{Sample, class_index};

    /// Embryos whose ICM shows in 64 of the ResNet's features, of its own scale, and whose expansion in 64 of DINOv2's.
    fn set(count: usize) -> (Vec<Sample>, Features) {
        let mut random = Random::new(9);
        let (mut samples, mut values) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (exp, icm) = (3 + index % 2, index % 3);
            samples.push(Sample {
                name: index.to_string(),
                picture: Picture::new(1, vec![0]).unwrap(),
                sha256: String::new(),
                truth: Truth {
                    stage: DevelopmentStage::Blastocyst,
                    exp: Some(Expansion::try_from(u8::try_from(exp).unwrap()).unwrap()),
                    icm: Some(Letter::ALL[icm]),
                    te: None,
                },
                group: None,
            });
            let mut row: Vec<f32> = (0..FEATURES).map(|_| random.about(5.0, 0.5)).collect();
            for (seen, known) in (0..64).map(|index| (index, RESNET_WIDTH + index)) {
                row[seen] = 40.0 * icm as f32 + random.about(0.0, 8.0);
                row[known] = 0.02 * exp as f32 + random.about(0.0, 0.004);
            }
            values.extend(row);
        }
        (samples, Features::new(values).unwrap())
    }

    fn accuracy(
        samples: &[Sample],
        features: &Features,
        weights: &Weights,
        test: &[usize],
        head: Head,
    ) -> f64 {
        let answers = answers(features, weights, test);
        let hits = test.iter().zip(answers).filter(|(sample, answer)| {
            let logits = &answer[head as usize];
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            best == class_index(&samples[**sample].truth, head)
        });
        hits.count() as f64 / test.len() as f64
    }

    #[test]
    fn each_head_learns_what_its_labels_say_and_a_head_without_labels_disturbs_nobody() {
        let (samples, features) = set(360);
        let samples_ref: Vec<&Sample> = samples.iter().collect();
        let (fit, test): (Vec<usize>, Vec<usize>) = (0..360).partition(|index| *index < 300);
        let targets = Targets::new(&samples_ref, &fit, Task::Multi);
        let weights = fit_trunk(&features, &targets, &fit, 3).unwrap();
        let (exp, icm) = (
            accuracy(&samples, &features, &weights, &test, Head::Exp),
            accuracy(&samples, &features, &weights, &test, Head::Icm),
        );
        assert!(exp > 0.9 && icm > 0.9, "{exp} and {icm}");
        let again = fit_trunk(&features, &targets, &fit, 3).unwrap();
        assert_eq!(weights, again, "the same seed trains the same network");
    }

    #[test]
    fn a_single_task_trains_its_head_alone() {
        let (samples, features) = set(120);
        let samples_ref: Vec<&Sample> = samples.iter().collect();
        let all: Vec<usize> = (0..120).collect();
        let targets = Targets::new(&samples_ref, &all, Task::Single(Head::Icm));
        let weights = fit_trunk(&features, &targets, &all, 3).unwrap();
        let icm = accuracy(&samples, &features, &weights, &all, Head::Icm);
        let exp = accuracy(&samples, &features, &weights, &all, Head::Exp);
        assert!(icm > 0.9 && exp < 0.9, "{icm} and {exp}");
    }
}

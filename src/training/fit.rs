//! The training loop: shuffled batches, AdamW or gradient descent, a cosine schedule, early stopping
//! where there is a validation set.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};

use super::loss::Targets;
use super::network::{Logits, answers_of};
use super::{Scored, TrainingError, calibrate};
use crate::random::{Random, mix};

/// Share of all steps in which the learning rate rises from zero.
const WARM_UP: f64 = 0.05;
/// Gradients of one tensor longer than this are shortened.
const MAX_GRADIENT: f32 = 1.0;
/// Share of the last step that the next one goes on with, in gradient descent.
const MOMENTUM: f64 = 0.9;

/// How gradients become steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `AdamW` (Loshchilov & Hutter 2019), for the layers of a deep network, whose gradients differ in size.
    AdamW,
    /// Gradient descent with momentum, whose decay is a ridge penalty. It moves a weight in proportion to
    /// what the data says of it; `AdamW` moves all alike, which on few pictures fits features that say little.
    Descent,
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Schedule {
    /// Passes over the samples, at most.
    pub epochs: usize,
    /// Samples in one step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How gradients become steps.
    pub rule: Rule,
    /// Weight decay: decoupled in `AdamW`, a ridge penalty in gradient descent.
    pub weight_decay: f32,
    /// Epochs without a lower validation loss before training ends.
    pub patience: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// Which samples do what.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Trained on.
    pub fit: &'a [usize],
    /// Watched, to stop in time. Empty: the last epoch is kept.
    pub validation: &'a [usize],
}

/// Where training stands after an epoch.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Epochs done.
    pub epoch: usize,
    /// Mean training loss of the last.
    pub loss: f64,
    /// Validation loss after it.
    pub validation_loss: Option<f64>,
    /// Epoch with the lowest validation loss.
    pub best_epoch: usize,
    /// That loss.
    pub best_loss: f64,
}

/// A state that training can go on from.
pub struct Checkpoint<M> {
    /// Where training stands.
    pub progress: Progress,
    /// The module after the last epoch.
    pub module: M,
    /// The module after the best epoch.
    pub best: M,
    /// The optimiser's moments.
    pub optimizer: ModuleOptimizer,
}

/// What is asked of a module.
pub trait Objective<M> {
    /// The logits of the samples `indices`. `random` is there in training, for augmentation and
    /// dropout, and absent in validation.
    fn logits(&self, module: &M, indices: &[usize], random: Option<&mut Random>) -> Logits;

    /// What the labels ask of them.
    fn targets(&self) -> &Targets;

    /// Called after every epoch.
    ///
    /// # Errors
    /// What ends training.
    fn epoch_done(&mut self, checkpoint: &Checkpoint<M>) -> Result<(), TrainingError>;
}

/// How far the answers to the validation samples are from their labels once a temperature has made
/// their confidences honest, as it will after training: a network that is merely too sure of itself
/// is not worse than it was an epoch before.
fn validation_loss<M>(objective: &dyn Objective<M>, module: &M, indices: &[usize], batch: usize) -> f64 {
    let mut scored: [Vec<Scored>; 3] = [const { Vec::new() }; 3];
    for batch in indices.chunks(batch) {
        let answers = answers_of(objective.logits(module, batch, None));
        for (all, some) in scored.iter_mut().zip(objective.targets().scored(batch, &answers)) {
            all.extend(some);
        }
    }
    scored.iter().filter(|scored| !scored.is_empty()).map(|scored| calibrated_nll(scored)).sum()
}

#[allow(clippy::cast_precision_loss, reason = "numbers of samples")]
fn calibrated_nll(scored: &[Scored]) -> f64 {
    let temperature = calibrate::temperature(scored);
    scored.iter().map(|one| one.nll(temperature)).sum::<f64>() / scored.len() as f64
}

/// The device that training runs on: the CPU, all cores.
#[must_use]
pub fn device() -> Device {
    Device::flex()
}

/// The optimiser of a schedule, its moments empty.
#[must_use]
pub fn optimizer(schedule: &Schedule) -> ModuleOptimizer {
    let clipping = Some(GradientClippingConfig::Norm(MAX_GRADIENT));
    match schedule.rule {
        Rule::AdamW => AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(schedule.weight_decay)
            .with_grad_clipping(clipping)
            .init(),
        Rule::Descent => SgdConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(schedule.weight_decay)))
            .with_momentum(Some(MomentumConfig::new().with_momentum(MOMENTUM).with_dampening(0.0)))
            .with_gradient_clipping(clipping)
            .init(),
    }
}

/// Trains `from` on, or a module anew, and returns the module of the best epoch.
///
/// # Errors
/// What [`Objective::epoch_done`] returns, or [`TrainingError::Diverged`].
pub fn fit<M: Module>(
    start: Start<M>,
    schedule: &Schedule,
    parts: Parts<'_>,
    objective: &mut dyn Objective<M>,
) -> Result<(M, Progress), TrainingError> {
    let mut now = match start {
        Start::Anew(module) => Checkpoint {
            progress: Progress {
                epoch: 0,
                loss: f64::INFINITY,
                validation_loss: None,
                best_epoch: 0,
                best_loss: f64::INFINITY,
            },
            best: module.valid(),
            module,
            optimizer: optimizer(schedule),
        },
        Start::From(checkpoint) => checkpoint,
    };
    let steps = parts.fit.len().div_ceil(schedule.batch);
    while now.progress.epoch < schedule.epochs {
        if now.progress.epoch.saturating_sub(now.progress.best_epoch) >= schedule.patience {
            break;
        }
        let epoch = now.progress.epoch;
        let mut random = Random::new(mix(&[schedule.seed, 0x66_6974, epoch as u64]));
        let mut order = parts.fit.to_vec();
        random.shuffle(&mut order);
        let mut module = now.module.train();
        let mut sum = 0.0;
        for (step, batch) in order.chunks(schedule.batch).enumerate() {
            let logits = objective.logits(&module, batch, Some(&mut random));
            let loss = objective.targets().loss(batch, logits, &device());
            sum += scalar(&loss) * weight(batch);
            let gradients = GradientsParams::from_grads(loss.backward(), &module);
            let rate = learning_rate(schedule, epoch * steps + step, schedule.epochs * steps);
            module = now.optimizer.step(rate, module, gradients);
        }
        let evaluated = module.valid();
        now.progress.epoch += 1;
        now.progress.loss = sum / weight(&order);
        if !now.progress.loss.is_finite() {
            return Err(TrainingError::Diverged { epoch, learning_rate: schedule.learning_rate });
        }
        now.progress.validation_loss = (!parts.validation.is_empty())
            .then(|| validation_loss(&*objective, &evaluated, parts.validation, schedule.batch));
        // Without validation every epoch is the best so far.
        let judged = now.progress.validation_loss.unwrap_or(f64::NEG_INFINITY);
        if judged < now.progress.best_loss || parts.validation.is_empty() {
            (now.progress.best_loss, now.progress.best_epoch) = (judged, now.progress.epoch);
            now.best = evaluated;
        }
        now.module = module;
        objective.epoch_done(&now)?;
    }
    Ok((now.best, now.progress))
}

/// Where training begins.
pub enum Start<M> {
    /// With this module.
    Anew(M),
    /// Where it was interrupted.
    From(Checkpoint<M>),
}

#[allow(clippy::cast_precision_loss, reason = "numbers of samples")]
fn weight(samples: &[usize]) -> f64 {
    samples.len() as f64
}

fn scalar(tensor: &Tensor<1>) -> f64 {
    f64::from(tensor.clone().into_scalar::<f32>())
}

/// Linear warm-up, then a cosine to zero.
#[allow(clippy::cast_precision_loss, reason = "numbers of steps")]
fn learning_rate(schedule: &Schedule, step: usize, steps: usize) -> f64 {
    let done = (step as f64 + 1.0) / steps.max(1) as f64;
    let factor = if done < WARM_UP {
        done / WARM_UP
    } else {
        let left = (done - WARM_UP) / (1.0 - WARM_UP);
        0.5 * (1.0 + (std::f64::consts::PI * left).cos())
    };
    schedule.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        let schedule = Schedule {
            rule: Rule::AdamW,
            epochs: 1,
            batch: 1,
            learning_rate: 0.1,
            weight_decay: 0.0,
            patience: 1,
            seed: 1,
        };
        let rates: Vec<f64> = (0..100).map(|step| learning_rate(&schedule, step, 100)).collect();
        let highest = rates.iter().copied().fold(0.0, f64::max);
        assert!(rates[0] < 0.03 && (highest - 0.1).abs() < 0.001 && rates[99] < 1e-6, "{rates:?}");
    }
}

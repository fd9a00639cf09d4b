//! Training end to end: ResNet-18, the embedding layer and the heads; DINOv2 stays frozen.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::augment::{View, augmented, plain};
use super::fit::{Checkpoint, Objective};
use super::loss::Targets;
use super::network::{Logits, Mask, ResNet18, Trunk};
use super::{Sample, TrainingError};
use crate::model::multitask::EMBEDDING_WIDTH;
use crate::random::Random;

/// The whole network but DINOv2.
#[derive(Module, Debug)]
pub struct Network {
    /// The image encoder.
    pub resnet: ResNet18,
    /// What comes after both encoders.
    pub trunk: Trunk,
}

/// Normalisation of the pictures: mean and standard deviation of each channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

/// Pictures, embeddings and targets to train on.
pub struct EndToEnd<'a> {
    /// The samples.
    pub samples: &'a [&'a Sample],
    /// A DINOv2 embedding of each.
    pub embeddings: &'a [Vec<f32>],
    /// What their labels ask.
    pub targets: &'a Targets,
    /// How pictures become tensors.
    pub normalisation: Normalisation,
    /// Width and height that pictures are trained at: half size takes a quarter of the time.
    pub side_px: usize,
    /// Told of every epoch.
    pub each_epoch: &'a mut dyn FnMut(&Checkpoint<Network>) -> Result<(), TrainingError>,
}

impl Objective<Network> for EndToEnd<'_> {
    fn logits(&self, network: &Network, indices: &[usize], mut random: Option<&mut Random>) -> Logits {
        let device = super::fit::device();
        let views: Vec<View> = indices
            .iter()
            .filter_map(|index| self.samples.get(*index))
            .map(|sample| match random.as_deref_mut() {
                Some(random) => augmented(&sample.picture, self.side_px, random),
                None => plain(&sample.picture, self.side_px),
            })
            .collect();
        let images = tensor(&views, self.side_px, &self.normalisation, &device);
        let embeddings: Vec<f32> =
            indices.iter().filter_map(|index| self.embeddings.get(*index)).flatten().copied().collect();
        let embeddings =
            Tensor::from_data(TensorData::new(embeddings, [indices.len(), EMBEDDING_WIDTH]), &device);
        let mask = random.map(|random| Mask::draw(indices.len(), random, &device));
        network.trunk.forward(network.resnet.forward(images), embeddings, mask)
    }

    fn targets(&self) -> &Targets {
        self.targets
    }

    fn epoch_done(&mut self, checkpoint: &Checkpoint<Network>) -> Result<(), TrainingError> {
        (self.each_epoch)(checkpoint)
    }
}

/// `[b, 3, side, side]`.
fn tensor(views: &[View], side_px: usize, normalisation: &Normalisation, device: &Device) -> Tensor<4> {
    let mut values = Vec::with_capacity(views.len() * 3 * side_px * side_px);
    for view in views {
        for (mean, std) in normalisation.mean.iter().zip(normalisation.std) {
            values.extend(view.grey.iter().map(|grey| (grey - mean) / std));
        }
    }
    Tensor::from_data(TensorData::new(values, [views.len(), 3, side_px, side_px]), device)
}

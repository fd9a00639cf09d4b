//! The weights of the network by name, outside any training stack.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::TrainingError;
use crate::model::multitask::WeightSource;
use crate::random::{Random, mix};

/// Largest weight file: ten times ResNet-18.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Added to variances by batch normalisation: torchvision's.
const BATCH_NORM_EPSILON: f32 = 1e-5;

/// One tensor, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Lengths: `[out, in, height, width]` of a convolution, `[out, in]` of a linear layer, `[out]` of a bias.
    pub dims: Vec<usize>,
    /// As many as the product of `dims`.
    pub values: Vec<f32>,
}

/// Tensors by the names of [`crate::model::multitask`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights(pub BTreeMap<String, Weight>);

impl WeightSource for Weights {
    /// Absent weights are zeros; [`Weights::covers`] says beforehand that none is.
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32> {
        self.0.get(name).map_or_else(|| vec![0.0; dims.iter().product()], |weight| weight.values.clone())
    }
}

impl Weights {
    /// Random weights of the given shapes for training from scratch without normalisation layers:
    /// He et al. 2015, and zero for what is added to a skip connection, so that every block starts as
    /// the identity (SkipInit: De & Smith 2020). Biases are zero.
    #[must_use]
    pub fn random(shapes: &[(String, Vec<usize>)], seed: u64) -> Self {
        let weight = |(index, (name, dims)): (usize, &(String, Vec<usize>))| {
            let length: usize = dims.iter().product();
            let fan_in: usize = dims.iter().skip(1).product();
            let is_zero = dims.len() == 1 || name.ends_with(".conv2.weight");
            #[allow(clippy::cast_precision_loss, reason = "fan-ins are small integers, exact in f32")]
            let deviation = (2.0 / fan_in as f32).sqrt();
            let mut random = Random::new(mix(&[seed, index as u64]));
            let value = |_| if is_zero { 0.0 } else { random.about(0.0, deviation) };
            (name.clone(), Weight { dims: dims.clone(), values: (0..length).map(value).collect() })
        };
        Self(shapes.iter().enumerate().map(weight).collect())
    }

    /// Whether every tensor of `shapes` is there in its shape.
    ///
    /// # Errors
    /// The first that is not, in words.
    pub fn covers(&self, shapes: &[(String, Vec<usize>)]) -> Result<(), String> {
        for (name, dims) in shapes {
            match self.0.get(name) {
                None => return Err(format!("no tensor {name}")),
                Some(weight) if weight.dims != *dims => {
                    return Err(format!("tensor {name} is {:?}, expected {dims:?}", weight.dims));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Names without the part of the network that they begin with: `trunk.exp.bias` is `exp.bias`.
    #[must_use]
    pub fn without_parts(self) -> Self {
        let short = |name: String| match name.split_once('.') {
            Some(("resnet" | "trunk", rest)) => rest.to_owned(),
            _ => name,
        };
        Self(self.0.into_iter().map(|(name, weight)| (short(name), weight)).collect())
    }

    /// Every value as half precision would store it, so that a bundle computes with the very numbers
    /// that were measured. Biases are stored in full.
    #[must_use]
    pub fn rounded_to_half(mut self) -> Self {
        for weight in self.0.values_mut().filter(|weight| weight.dims.len() > 1) {
            weight.values.iter_mut().for_each(|value| *value = half::f16::from_f32(*value).to_f32());
        }
        self
    }

    /// Replaces tensors by those of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Reads a ResNet-18 in torchvision's layout (`conv1.weight`, `bn1.running_mean`,
    /// `layer1.0.conv1.weight`, ..., `layer2.0.downsample.0.weight`), as timm writes it too, with
    /// batch normalisation folded into the convolutions. `fc` is not wanted.
    ///
    /// # Errors
    /// When the file cannot be read or lacks a tensor.
    pub fn read_torchvision(path: &Path) -> Result<Self, TrainingError> {
        let bytes = read_capped(path)?;
        let wrong = |reason: String| TrainingError::Init { path: path.to_owned(), reason };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let mut weights = Self::default();
        let mut fold = |ours: &str, convolution: &str, norm: &str| {
            let kernel = tensor(&file, &format!("{convolution}.weight"))?;
            let part = |part: &str| tensor(&file, &format!("{norm}.{part}")).map(|weight| weight.values);
            let (gain, shift) = (part("weight")?, part("bias")?);
            let (mean, variance) = (part("running_mean")?, part("running_var")?);
            weights.fold(ours, kernel, [&gain, &shift, &mean, &variance])
        };
        fold("stem", "conv1", "bn1").map_err(wrong)?;
        for stage in 1..=4 {
            for block in 0..2 {
                let name = format!("layer{stage}.{block}");
                for part in 1..=2 {
                    let (convolution, norm) = (format!("{name}.conv{part}"), format!("{name}.bn{part}"));
                    fold(&convolution, &convolution, &norm).map_err(wrong)?;
                }
            }
            if stage > 1 {
                let shortcut = format!("layer{stage}.0.downsample");
                fold(&shortcut, &format!("{shortcut}.0"), &format!("{shortcut}.1")).map_err(wrong)?;
            }
        }
        Ok(weights)
    }

    /// `kernel` scaled and shifted as the batch normalisation after it would have done.
    fn fold(&mut self, name: &str, kernel: Weight, norm: [&[f32]; 4]) -> Result<(), String> {
        let [gain, shift, mean, variance] = norm;
        let channels = kernel.dims.first().copied().unwrap_or(0);
        if channels == 0 || norm.iter().any(|values| values.len() != channels) {
            return Err(format!("the batch normalisation after {name} has another number of channels"));
        }
        let per_channel = kernel.values.len() / channels;
        let mut values = kernel.values;
        let mut bias = Vec::with_capacity(channels);
        let statistics = gain.iter().zip(shift).zip(mean).zip(variance);
        for (filter, (((gain, shift), mean), variance)) in values.chunks_mut(per_channel).zip(statistics) {
            let scale = gain / (variance + BATCH_NORM_EPSILON).sqrt();
            filter.iter_mut().for_each(|value| *value *= scale);
            bias.push(shift - mean * scale);
        }
        self.0.insert(format!("{name}.weight"), Weight { dims: kernel.dims, values });
        self.0.insert(format!("{name}.bias"), Weight { dims: vec![channels], values: bias });
        Ok(())
    }

    /// Reads what [`Weights::write`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, TrainingError> {
        let bytes = read_capped(path)?;
        let wrong = |reason: String| TrainingError::Init { path: path.to_owned(), reason };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let read = |name: &str| Ok((name.to_owned(), tensor(&file, name).map_err(wrong)?));
        file.names().into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrainingError> {
        let wrong = |reason: String| TrainingError::Write { path: path.to_owned(), reason };
        let bytes: Vec<(&String, &Weight, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, weight)| {
                (name, weight, weight.values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views: Result<Vec<_>, _> = bytes
            .iter()
            .map(|(name, weight, bytes)| {
                TensorView::new(Dtype::F32, weight.dims.clone(), bytes).map(|view| (name.as_str(), view))
            })
            .collect();
        let views = views.map_err(|error| wrong(error.to_string()))?;
        let data = safetensors::serialize(views, None).map_err(|error| wrong(error.to_string()))?;
        let unfinished = path.with_extension("unfinished");
        std::fs::write(&unfinished, data)
            .and_then(|()| std::fs::rename(&unfinished, path))
            .map_err(|error| wrong(error.to_string()))
    }
}

fn tensor(file: &SafeTensors<'_>, name: &str) -> Result<Weight, String> {
    let view = file.tensor(name).map_err(|_| format!("no tensor {name}"))?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("tensor {name} is {:?}, expected F32", view.dtype()));
    }
    let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(Weight { dims: view.shape().to_vec(), values })
}

fn read_capped(path: &Path) -> Result<Vec<u8>, TrainingError> {
    let wrong = |reason: String| TrainingError::Init { path: path.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if length > MAX_FILE_BYTES {
        return Err(wrong(format!("{length} bytes, more than {MAX_FILE_BYTES}")));
    }
    std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))
}

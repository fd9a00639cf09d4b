//! The multitask network in the training stack, layer by layer that of [`crate::model::multitask`].
//!
//! Batch normalisation is folded into the convolutions from the start and not trained: the sets are
//! small, and so are the batches, whose statistics would say little. It also means that the network
//! answers in training as it does when it is served.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};

use super::weights::{Weight, Weights};
use crate::domain::{Expansion, GradeClass, Letter};
use crate::model::multitask::{EMBEDDING_WIDTH, RESNET_WIDTH, SHARED_WIDTH, STAGES};
use crate::random::Random;

/// Share of the shared layer that is hidden from the heads while training.
const DROPOUT: f32 = 0.3;

/// ResNet-18 without its classifier: `[b, 3, h, w]` to `[b, 512]`.
#[derive(Module, Debug)]
pub struct ResNet18 {
    stem: Conv2d,
    pool: MaxPool2d,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
}

/// Two convolutions beside a skip connection.
#[derive(Module, Debug)]
pub struct Block {
    conv1: Conv2d,
    conv2: Conv2d,
    downsample: Option<Conv2d>,
}

/// What comes after both encoders.
#[derive(Module, Debug)]
pub struct Trunk {
    embedding_layer: Linear,
    projection: Linear,
    fusion: Linear,
    exp: Linear,
    icm: Linear,
    te: Linear,
}

/// Logits of EXP `[b, 6]`, ICM `[b, 3]` and TE `[b, 3]`.
pub type Logits = [Tensor<2>; 3];

/// Logits of EXP, ICM and TE for one sample.
pub type Answer = [Vec<f32>; 3];

/// The logits of each sample.
#[must_use]
pub fn answers_of(logits: Logits) -> Vec<Answer> {
    let rows = |logits: Tensor<2>| {
        let [_, classes] = logits.dims();
        let values = logits.into_data().convert::<f32>().try_to_vec::<f32>().unwrap_or_default();
        values.chunks(classes).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let [exp, icm, te] = logits.map(rows);
    exp.into_iter().zip(icm).zip(te).map(|((exp, icm), te)| [exp, icm, te]).collect()
}

fn convolution(channels: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let padding = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        .init(device)
}

impl ResNet18 {
    /// The network with whatever weights; [`load`] gives it those that count.
    #[must_use]
    pub fn new(device: &Device) -> Self {
        let [first, second, third, fourth] = STAGES;
        let stage = |channels_in: usize, channels: usize, stride: usize| {
            vec![Block::new(channels_in, channels, stride, device), Block::new(channels, channels, 1, device)]
        };
        Self {
            stem: convolution([3, first], 7, 2, device),
            pool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            layer1: stage(first, first, 1),
            layer2: stage(first, second, 2),
            layer3: stage(second, third, 2),
            layer4: stage(third, fourth, 2),
        }
    }

    /// From normalised pictures `[b, 3, h, w]` to features `[b, 512]`.
    #[must_use]
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.stem.forward(images)));
        let blocks = [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten();
        let x = blocks.fold(x, |x, block| block.forward(x));
        x.mean_dim(3).mean_dim(2).flatten(1, 3)
    }
}

impl Block {
    fn new(channels_in: usize, channels: usize, stride: usize, device: &Device) -> Self {
        let differs = channels_in != channels;
        Self {
            conv1: convolution([channels_in, channels], 3, stride, device),
            conv2: convolution([channels, channels], 3, 1, device),
            downsample: differs.then(|| convolution([channels_in, channels], 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv2.forward(relu(self.conv1.forward(x.clone())));
        let skip = match &self.downsample {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(y + skip)
    }
}

impl Trunk {
    /// The layers with whatever weights; [`load`] gives them those that count.
    #[must_use]
    pub fn new(device: &Device) -> Self {
        let linear = |width_in, width_out| LinearConfig::new(width_in, width_out).init(device);
        Self {
            embedding_layer: linear(RESNET_WIDTH, SHARED_WIDTH),
            projection: linear(EMBEDDING_WIDTH, SHARED_WIDTH),
            fusion: linear(2 * SHARED_WIDTH, SHARED_WIDTH),
            exp: linear(SHARED_WIDTH, Expansion::ALL.len()),
            icm: linear(SHARED_WIDTH, Letter::ALL.len()),
            te: linear(SHARED_WIDTH, Letter::ALL.len()),
        }
    }

    /// From ResNet features `[b, 512]` and DINOv2 embeddings `[b, 384]`; `mask` is there in training.
    #[must_use]
    pub fn forward(&self, features: Tensor<2>, embeddings: Tensor<2>, mask: Option<Mask>) -> Logits {
        let seen = self.embedding_layer.forward(features);
        let known = self.projection.forward(embeddings);
        let mut shared = self.fusion.forward(Tensor::cat(vec![seen, known], 1));
        if let Some(Mask(kept)) = mask {
            shared = shared * kept;
        }
        [&self.exp, &self.icm, &self.te].map(|head| head.forward(shared.clone()))
    }
}

/// What a batch is trained without: dropout of the shared layer (Srivastava et al. 2014), `[b, 128]`.
/// Drawn here and not by the training stack, whose generator all trainings of a process share: the
/// same seed must give the same network.
#[derive(Debug, Clone)]
pub struct Mask(Tensor<2>);

impl Mask {
    /// For a batch of `samples`.
    pub fn draw(samples: usize, random: &mut Random, device: &Device) -> Self {
        let kept = |_| if random.chance(DROPOUT) { 0.0 } else { 1.0 / (1.0 - DROPOUT) };
        let shared: Vec<f32> = (0..samples * SHARED_WIDTH).map(kept).collect();
        Self(Tensor::from_data(TensorData::new(shared, [samples, SHARED_WIDTH]), device))
    }
}

/// The tensors of a module by name, linear layers turned to `[out, in]`.
#[must_use]
pub fn weights_of<M: Module>(module: &M) -> Weights {
    struct Reader {
        path: Vec<String>,
        weights: Weights,
    }

    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let tensor = if D == 2 { tensor.swap_dims(0, 1) } else { tensor };
            let dims = tensor.dims().to_vec();
            let values = tensor.into_data().convert::<f32>().try_to_vec::<f32>().unwrap_or_default();
            self.weights.0.insert(self.path.join("."), Weight { dims, values });
        }
    }

    let mut reader = Reader { path: Vec::new(), weights: Weights::default() };
    module.visit(&mut reader);
    reader.weights
}

/// Names and shapes of a module's tensors.
#[must_use]
pub fn shapes_of<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    weights_of(module).0.into_iter().map(|(name, weight)| (name, weight.dims)).collect()
}

/// The module with other weights. Tensors that `weights` lacks stay; see [`Weights::covers`].
#[must_use]
pub fn load<M: Module>(module: M, weights: &Weights) -> M {
    struct Writer<'a> {
        path: Vec<String>,
        weights: &'a Weights,
    }

    impl ModuleMapper for Writer<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(weight) = self.weights.0.get(&self.path.join(".")) else { return param };
            param.map(|old| {
                let data = TensorData::new(weight.values.clone(), weight.dims.clone());
                let new = Tensor::<D>::from_data(data, &old.device());
                if D == 2 { new.swap_dims(0, 1) } else { new }
            })
        }
    }

    module.map(&mut Writer { path: Vec::new(), weights })
}

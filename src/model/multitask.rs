//! The multitask network: ResNet-18 and an embedding layer, fused with the DINOv2 embedding, one
//! shared layer and a head for each of EXP, ICM and TE.
//!
//! After MEmEBG (arXiv 2604.13217), whose abstract names the parts; the widths and the fusion are
//! choices of this project. What follows the encoders is linear, a joint embedding of low rank: with a
//! hundred graded pictures a layer that bends has more ways to be wrong than the pictures can rule out,
//! and on photographs it ranked grades worse than a linear probe. The network also says where each
//! head looked and how far the picture is from what it was trained on, so that a bundle carries all of
//! it in one verified file.

mod explain;
mod resnet;

pub use resnet::STAGES;

use super::onnx::{Attribute, Dim, GraphBuilder, Storage, Tensor};
use crate::domain::{Expansion, GradeClass, Head, Letter};

/// Side of the square input picture, pixels.
pub const SIDE_PX: usize = 224;
/// Length of the DINOv2 ViT-S/14 embedding.
pub const EMBEDDING_WIDTH: usize = 384;
/// Length of the output of ResNet-18.
pub const RESNET_WIDTH: usize = 512;
/// Cells along each side of a class-activation map.
pub const MAP_SIDE: usize = 7;
/// Length of the embedding layer, of the projected embedding and of the shared layer.
pub const SHARED_WIDTH: usize = 128;
const BATCH: Dim = Dim::Dynamic("b");

/// Where the weights of the network come from.
pub trait WeightSource {
    /// The weights called `name`, row by row: `[out, in, height, width]` of a convolution, `[out,
    /// in]` of a linear layer, `[out]` of a bias.
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32>;
}

/// A part of the training set, or all of it, as a Gaussian in the space of the DINOv2 embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Mean embedding, 384 values.
    pub mean: Vec<f32>,
    /// A square root `W` of the inverse covariance, 384 x 384 row by row: the Mahalanobis distance of
    /// an embedding `e` is `|W (e - mean)|`.
    pub whitening: Vec<f32>,
}

/// The network as an ONNX file: `image` f32`[b, 3, 224, 224]` and `embedding` f32`[b, 384]` give
/// - the logits `exp` `[b, 6]`, `icm` `[b, 3]`, `te` `[b, 3]`, and `shared` `[b, 128]`;
/// - `exp_map`, `icm_map`, `te_map` `[b, 7, 7]`: what each part of the picture adds to the largest
///   logit of a head, through the ResNet's features, where it adds to it (Grad-CAM, Selvaraju 2017;
///   with one average pool behind the features the same as HiResCAM, Draelos 2020);
/// - with `references`, `distance` `[b]`: the Mahalanobis distance of the embedding from the nearest of
///   them (Lee 2018).
///
/// `storage` says how the weights are kept; references are kept in single precision, because the
/// distance is a small difference that large numbers leave. Whatever the storage, the network computes
/// in single precision, so that in a manifest its precision is `fp32`.
pub fn multitask_onnx(
    weights: &mut dyn WeightSource,
    references: &[Reference],
    storage: Storage,
    metadata: &[(&str, &str)],
) -> Vec<u8> {
    let mut net = Net { graph: GraphBuilder::new("memebg_multitask", storage), weights };
    let image = net.image();
    let embedding = net.graph.input("embedding", &[BATCH, Dim::Fixed(EMBEDDING_WIDTH)]);

    let feature_maps = net.resnet18(&image);
    let features = net.pool(&feature_maps);
    let embedding_layer = net.parameters("embedding_layer", &[SHARED_WIDTH, RESNET_WIDTH]);
    let seen = net.linear("embedding_layer", &features, &embedding_layer);
    let projection = net.parameters("projection", &[SHARED_WIDTH, EMBEDDING_WIDTH]);
    let known = net.linear("projection", &embedding, &projection);
    let (from_seen, from_known) = net.fusion();
    let shared = net.linear("fusion.seen", &seen, &from_seen);
    let fused = [&known, &from_known, &shared];
    let shared = net.graph.node("shared", "Gemm", &fused, &[Attribute::Int("transB", 1)]);
    let layers = explain::Layers {
        fusion: &from_seen.weight,
        embedding_layer: &embedding_layer.weight,
        feature_maps: &feature_maps,
    };
    let heads = Head::ALL.iter().map(|head| net.head(*head, &shared)).collect::<Vec<_>>();
    net.graph.output(&shared, &[BATCH, Dim::Fixed(SHARED_WIDTH)]);
    net.maps(&heads, &layers);
    if !references.is_empty() {
        net.distance(&embedding, references);
    }
    net.graph.finish(metadata)
}

/// The ResNet of the multitask network alone, as an ONNX file in single precision: `image` f32`[b, 3,
/// 224, 224]` gives `features` f32`[b, 512]`.
pub fn resnet18_onnx(weights: &mut dyn WeightSource, metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut net = Net { graph: GraphBuilder::new("memebg_resnet18", Storage::Single), weights };
    let image = net.image();
    let feature_maps = net.resnet18(&image);
    let features = net.pool(&feature_maps);
    net.graph.output(&features, &[BATCH, Dim::Fixed(RESNET_WIDTH)]);
    net.graph.finish(metadata)
}

struct Net<'a> {
    graph: GraphBuilder,
    weights: &'a mut dyn WeightSource,
}

/// Weight and bias of a layer.
struct Parameters {
    weight: Tensor,
    bias: Tensor,
}

/// A head's name, its logits `[b, classes]` and its weight `[classes, 128]`.
struct HeadLayer {
    name: &'static str,
    logits: Tensor,
    weight: Tensor,
}

impl Net<'_> {
    fn image(&mut self) -> Tensor {
        self.graph.input("image", &[BATCH, Dim::Fixed(3), Dim::Fixed(SIDE_PX), Dim::Fixed(SIDE_PX)])
    }

    /// From the feature maps `[b, 512, 7, 7]` to `[b, 512]`.
    fn pool(&mut self, feature_maps: &Tensor) -> Tensor {
        let pooled = self.graph.node("pool", "GlobalAveragePool", &[feature_maps], &[]);
        self.graph.node("features", "Flatten", &[&pooled], &[Attribute::Int("axis", 1)])
    }

    fn head(&mut self, head: Head, shared: &Tensor) -> HeadLayer {
        let classes = match head {
            Head::Exp => Expansion::ALL.len(),
            Head::Icm | Head::Te => Letter::ALL.len(),
        };
        let name = head.as_str();
        let layer = self.parameters(name, &[classes, SHARED_WIDTH]);
        let logits = self.linear(name, shared, &layer);
        self.graph.output(&logits, &[BATCH, Dim::Fixed(classes)]);
        HeadLayer { name, logits, weight: layer.weight }
    }

    /// The fusion layer: the columns for what the ResNet has seen, with the bias, and those for what
    /// DINOv2 knows. Two matrices, because the maps follow only the first way back to the picture.
    fn fusion(&mut self) -> (Parameters, Tensor) {
        let values = self.weights.weights("fusion.weight", &[SHARED_WIDTH, 2 * SHARED_WIDTH]);
        let half = |skip: usize| -> Vec<f32> {
            let rows = values.chunks_exact(2 * SHARED_WIDTH);
            rows.flat_map(|row| row.iter().copied().skip(skip).take(SHARED_WIDTH)).collect()
        };
        let square = [SHARED_WIDTH; 2];
        let weight = self.graph.weight("fusion.weight.seen", &square, &half(0));
        let known = self.graph.weight("fusion.weight.known", &square, &half(SHARED_WIDTH));
        let bias = self.weights.weights("fusion.bias", &[SHARED_WIDTH]);
        let bias = self.graph.weight("fusion.bias", &[SHARED_WIDTH], &bias);
        (Parameters { weight, bias }, known)
    }

    fn linear(&mut self, name: &str, x: &Tensor, layer: &Parameters) -> Tensor {
        self.graph.node(name, "Gemm", &[x, &layer.weight, &layer.bias], &[Attribute::Int("transB", 1)])
    }

    fn parameters(&mut self, name: &str, dims: &[usize]) -> Parameters {
        let bias_dims = dims.get(..1).unwrap_or(dims);
        let mut add = |kind: &str, dims: &[usize]| {
            let name = format!("{name}.{kind}");
            let values = self.weights.weights(&name, dims);
            self.graph.weight(&name, dims, &values)
        };
        Parameters { weight: add("weight", dims), bias: add("bias", bias_dims) }
    }

    fn relu(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.graph.node(&format!("{name}.relu"), "Relu", &[x], &[])
    }
}

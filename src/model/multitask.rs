//! The multitask network: ResNet-18 and an embedding layer, fused with the DINOv2 embedding, one
//! shared layer and a head for each of EXP, ICM and TE.
//!
//! After MEmEBG (arXiv 2604.13217), whose abstract names the parts; the widths and the fusion are
//! choices of this project. ResNet-18: He et al. 2016, with batch normalisation folded into the
//! convolutions, which therefore carry a bias.

use super::onnx::{Attribute, Dim, GraphBuilder, Tensor};
use crate::domain::{Expansion, GradeClass, Head, Letter};

/// Side of the square input picture, pixels.
pub const SIDE_PX: usize = 224;
/// Length of the DINOv2 ViT-S/14 embedding.
pub const EMBEDDING_WIDTH: usize = 384;
/// Length of the output of ResNet-18.
pub const RESNET_WIDTH: usize = 512;
/// Length of the embedding layer, of the projected embedding and of the shared layer.
pub const SHARED_WIDTH: usize = 128;
/// Channels of the four stages; each has two blocks, and all but the first halve the picture.
pub const STAGES: [usize; 4] = [64, 128, 256, 512];
const BATCH: Dim = Dim::Dynamic("b");

/// Where the weights of the network come from.
pub trait WeightSource {
    /// The weights called `name`, row by row: `[out, in, height, width]` of a convolution, `[out,
    /// in]` of a linear layer, `[out]` of a bias.
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32>;
}

/// The network as an ONNX file: `image` f32`[b, 3, 224, 224]` and `embedding` f32`[b, 384]` give
/// the logits `exp` `[b, 6]`, `icm` `[b, 3]`, `te` `[b, 3]`, and `shared` `[b, 128]`.
pub fn multitask_onnx(weights: &mut dyn WeightSource, metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut net = Net { graph: GraphBuilder::new("memebg_multitask"), weights };
    let image = net.graph.input("image", &[BATCH, Dim::Fixed(3), Dim::Fixed(SIDE_PX), Dim::Fixed(SIDE_PX)]);
    let embedding = net.graph.input("embedding", &[BATCH, Dim::Fixed(EMBEDDING_WIDTH)]);

    let features = net.resnet18(&image);
    let seen = net.linear("embedding_layer", &features, RESNET_WIDTH, SHARED_WIDTH);
    let seen = net.relu("embedding_layer", &seen);
    let known = net.linear("projection", &embedding, EMBEDDING_WIDTH, SHARED_WIDTH);
    let known = net.relu("projection", &known);
    let fused = net.graph.node("fused", "Concat", &[&seen, &known], &[Attribute::Int("axis", 1)]);
    let shared = net.linear("fusion", &fused, 2 * SHARED_WIDTH, SHARED_WIDTH);
    let shared = net.graph.node("shared", "Relu", &[&shared], &[]);
    for head in Head::ALL {
        let classes = match head {
            Head::Exp => Expansion::ALL.len(),
            Head::Icm | Head::Te => Letter::ALL.len(),
        };
        let logits = net.linear(head.as_str(), &shared, SHARED_WIDTH, classes);
        net.graph.output(&logits, &[BATCH, Dim::Fixed(classes)]);
    }
    net.graph.output(&shared, &[BATCH, Dim::Fixed(SHARED_WIDTH)]);
    net.graph.finish(metadata)
}

struct Net<'a> {
    graph: GraphBuilder,
    weights: &'a mut dyn WeightSource,
}

/// A square convolution.
#[derive(Clone, Copy)]
struct Convolution {
    channels_in: usize,
    channels_out: usize,
    kernel: usize,
    stride: i64,
    padding: i64,
}

impl Net<'_> {
    /// From `[b, 3, h, w]` to `[b, 512]`.
    fn resnet18(&mut self, image: &Tensor) -> Tensor {
        let mut channels = STAGES[0];
        let stem = Convolution { channels_in: 3, channels_out: channels, kernel: 7, stride: 2, padding: 3 };
        let x = self.convolution("stem", image, stem);
        let x = self.relu("stem", &x);
        let pool = [
            Attribute::Ints("kernel_shape", &[3, 3]),
            Attribute::Ints("strides", &[2, 2]),
            Attribute::Ints("pads", &[1, 1, 1, 1]),
        ];
        let mut x = self.graph.node("stem.pool", "MaxPool", &[&x], &pool);
        for (stage, channels_out) in STAGES.into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                x = self.basic_block(&name, &x, channels, channels_out, stride);
                channels = channels_out;
            }
        }
        let pooled = self.graph.node("pool", "GlobalAveragePool", &[&x], &[]);
        self.graph.node("features", "Flatten", &[&pooled], &[Attribute::Int("axis", 1)])
    }

    fn basic_block(
        &mut self,
        name: &str,
        x: &Tensor,
        channels_in: usize,
        channels_out: usize,
        stride: i64,
    ) -> Tensor {
        let first = Convolution { channels_in, channels_out, kernel: 3, stride, padding: 1 };
        let y = self.convolution(&format!("{name}.conv1"), x, first);
        let y = self.relu(&format!("{name}.conv1"), &y);
        let second = Convolution { channels_in: channels_out, stride: 1, ..first };
        let y = self.convolution(&format!("{name}.conv2"), &y, second);
        let skip = if channels_in == channels_out {
            x.clone()
        } else {
            let shortcut = Convolution { kernel: 1, padding: 0, ..first };
            self.convolution(&format!("{name}.downsample"), x, shortcut)
        };
        let sum = self.graph.node(&format!("{name}.sum"), "Add", &[&y, &skip], &[]);
        self.relu(&format!("{name}.sum"), &sum)
    }

    fn convolution(&mut self, name: &str, x: &Tensor, shape: Convolution) -> Tensor {
        let Convolution { channels_in, channels_out, kernel, stride, padding } = shape;
        let dims = [channels_out, channels_in, kernel, kernel];
        let (weight, bias) = self.parameters(name, &dims);
        let attributes = [
            Attribute::Ints("strides", &[stride, stride]),
            Attribute::Ints("pads", &[padding, padding, padding, padding]),
        ];
        self.graph.node(name, "Conv", &[x, &weight, &bias], &attributes)
    }

    fn linear(&mut self, name: &str, x: &Tensor, width_in: usize, width_out: usize) -> Tensor {
        let (weight, bias) = self.parameters(name, &[width_out, width_in]);
        self.graph.node(name, "Gemm", &[x, &weight, &bias], &[Attribute::Int("transB", 1)])
    }

    fn parameters(&mut self, name: &str, dims: &[usize]) -> (Tensor, Tensor) {
        let bias_dims = dims.get(..1).unwrap_or(dims);
        let mut add = |kind: &str, dims: &[usize]| {
            let name = format!("{name}.{kind}");
            let values = self.weights.weights(&name, dims);
            self.graph.weight(&name, dims, &values)
        };
        (add("weight", dims), add("bias", bias_dims))
    }

    fn relu(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.graph.node(&format!("{name}.relu"), "Relu", &[x], &[])
    }
}

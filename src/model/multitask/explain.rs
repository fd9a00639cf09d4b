//! What the network says besides grades: where its heads looked, and how far the picture lies from
//! what it was trained on.
//!
//! Everything is written with operators that ONNX Runtime has on a GPU too, which `ArgMax` of this
//! opset is not: a node without a kernel there would keep the whole network off it.

use super::{BATCH, EMBEDDING_WIDTH, HeadLayer, MAP_SIDE, Net, RESNET_WIDTH, Reference};
use crate::model::onnx::{Attribute, Dim, Tensor};

const CELLS: usize = MAP_SIDE * MAP_SIDE;

/// The way back from a logit to the feature maps: weights `[out, in]`.
pub(super) struct Layers<'a> {
    pub(super) fusion: &'a Tensor,
    pub(super) embedding_layer: &'a Tensor,
    pub(super) feature_maps: &'a Tensor,
}

impl Net<'_> {
    /// One output `[b, 7, 7]` per head. What follows the features is linear, so the derivative of a
    /// logit with respect to them is a product of matrices, the same for every picture.
    pub(super) fn maps(&mut self, heads: &[HeadLayer], layers: &Layers<'_>) {
        let flat = self.graph.shape("map.flat_shape", &[0, RESNET_WIDTH, CELLS]);
        let flat = self.graph.node("map.flat", "Reshape", &[layers.feature_maps, &flat], &[]);
        let row = self.graph.shape("map.row_shape", &[0, 1, RESNET_WIDTH]);
        let square = self.graph.shape("map.square_shape", &[0, MAP_SIDE, MAP_SIDE]);
        let one = self.graph.constant("map.one", &[1], &[1.0]);
        #[allow(clippy::cast_precision_loss, reason = "49 is exact")]
        let per_cell = self.graph.constant("map.per_cell", &[1], &[1.0 / CELLS as f32]);
        for head in heads {
            let mut node = |step: &str, op_type: &str, inputs: &[&Tensor], attributes: &[Attribute<'_>]| {
                self.graph.node(&format!("{}_map.{step}", head.name), op_type, inputs, attributes)
            };
            // 1 for the largest logit, 0 for the others; two that are equal both count.
            let axes = [Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", 1)];
            let largest = node("largest", "ReduceMax", &[&head.logits], &axes);
            let behind = node("behind", "Sub", &[&head.logits, &largest], &[]);
            let behind = node("is_behind", "Sign", &[&behind], &[]);
            let class = node("class", "Add", &[&behind, &one], &[]);
            // Each step is the derivative with respect to the layer it is named after.
            let shared = node("shared", "MatMul", &[&class, &head.weight], &[]);
            let seen = node("seen", "MatMul", &[&shared, layers.fusion], &[]);
            let pooled = node("pooled", "MatMul", &[&seen, layers.embedding_layer], &[]);
            let pooled = node("per_cell", "Mul", &[&pooled, &per_cell], &[]);
            let pooled = node("row", "Reshape", &[&pooled, &row], &[]);
            let map = node("signed", "MatMul", &[&pooled, &flat], &[]);
            let map = node("square", "Reshape", &[&map, &square], &[]);
            let map = self.graph.node(&format!("{}_map", head.name), "Relu", &[&map], &[]);
            self.graph.output(&map, &[BATCH, Dim::Fixed(MAP_SIDE), Dim::Fixed(MAP_SIDE)]);
        }
    }

    /// The distance from the nearest of the references.
    pub(super) fn distance(&mut self, embedding: &Tensor, references: &[Reference]) {
        let distances: Vec<Tensor> = references
            .iter()
            .enumerate()
            .map(|(index, one)| self.distance_from(index, embedding, one))
            .collect();
        let all: Vec<&Tensor> = distances.iter().collect();
        let all = self.graph.node("distances", "Concat", &all, &[Attribute::Int("axis", 1)]);
        let axes = [Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", 0)];
        let nearest = self.graph.node("distance", "ReduceMin", &[&all], &axes);
        self.graph.output(&nearest, &[BATCH]);
    }

    /// `[b, 1]`. The mean is subtracted first: the difference is small against both, and single precision
    /// would lose it in the difference of two products.
    fn distance_from(&mut self, index: usize, embedding: &Tensor, reference: &Reference) -> Tensor {
        let name = |part: &str| format!("reference.{index}.{part}");
        let mean = self.graph.constant(&name("mean"), &[1, EMBEDDING_WIDTH], &reference.mean);
        let square = [EMBEDDING_WIDTH; 2];
        let whitening = self.graph.constant(&name("whitening"), &square, &reference.whitening);
        let centred = self.graph.node(&name("centred"), "Sub", &[embedding, &mean], &[]);
        let inputs = [&centred, &whitening];
        let white = self.graph.node(&name("white"), "Gemm", &inputs, &[Attribute::Int("transB", 1)]);
        let axes = [Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", 1)];
        self.graph.node(&name("distance"), "ReduceL2", &[&white], &axes)
    }
}

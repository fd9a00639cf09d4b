//! A multitask network that nobody has trained: made in a second, sound in every shape, and of no use.

use memebg::model::multitask::{WeightSource, multitask_onnx};
use memebg::model::onnx::Storage;
use memebg::random::Random;

/// The multitask network of `seed` as an ONNX file. Its metadata say that it is untrained. It has no output
/// `distance`: there is no training set to be far from.
pub fn random_multitask(seed: u64) -> Vec<u8> {
    let mut weights = RandomWeights(Random::new(seed));
    multitask_onnx(&mut weights, &[], Storage::Single, &[("untrained", "true")])
}

struct RandomWeights(Random);

impl WeightSource for RandomWeights {
    /// Biases are zero. The rest is uniform with the variance that keeps activations as large as they come in (He et
    /// al. 2015): 2 / fan-in. The second convolution of a block is added to a branch that skips it; it gets a quarter,
    /// or eight blocks would multiply activations by 16.
    ///
    /// Rows of linear layers sum to zero: the features of the ResNet, which are behind a ReLU, have a common positive
    /// part, and without this it would drown what differs between two pictures.
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32> {
        let length = dims.iter().product();
        let fan_in: usize = dims.iter().skip(1).product();
        if dims.len() == 1 {
            return vec![0.0; length];
        }
        let gain = if name.ends_with(".conv2.weight") { 0.5 } else { 1.0 };
        let bound = gain * (6.0 / fan_in as f32).sqrt();
        let mut values: Vec<f32> = (0..length).map(|_| self.0.within(-bound, bound)).collect();
        if dims.len() == 2 {
            for row in values.chunks_exact_mut(fan_in) {
                let mean = row.iter().sum::<f32>() / fan_in as f32;
                row.iter_mut().for_each(|value| *value -= mean);
            }
        }
        values
    }
}

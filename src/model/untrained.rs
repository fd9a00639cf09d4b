//! The multitask network with random weights: what the demo runs until somebody trains one.
//!
//! The file is a function of a seed and the same on every machine, so that its SHA-256 can stand in
//! a manifest while its 47 MB need not be kept anywhere. That holds because only operations are
//! used whose results IEEE 754 fixes to the last bit: multiplication, division, square root.

use super::multitask::{WeightSource, multitask_onnx};
use super::onnx::Storage;

/// The multitask network of `seed` as an ONNX file.
#[must_use]
pub fn untrained_multitask(seed: u64) -> Vec<u8> {
    let seed_text = seed.to_string();
    let metadata = [("untrained", "true"), ("seed", seed_text.as_str())];
    multitask_onnx(&mut RandomWeights(SplitMix64(seed)), &[], Storage::Single, &metadata)
}

/// SplitMix64 (Steele, Lea & Flood 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform within [-1, 1), from 24 bits, which an `f32` holds exactly.
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
    fn next_unit(&mut self) -> f32 {
        const STEP: f32 = 1.0 / 8_388_608.0;
        (self.next() >> 40) as f32 * STEP - 1.0
    }
}

struct RandomWeights(SplitMix64);

impl WeightSource for RandomWeights {
    /// Biases are zero. The rest is uniform with the variance that keeps activations as large as
    /// they come in (He et al. 2015): 2 / fan-in. The second convolution of a block is added to a
    /// branch that skips it; it gets a quarter, or eight blocks would multiply activations by 16.
    ///
    /// Rows of linear layers sum to zero: activations behind a ReLU have a common positive part,
    /// and without this it would drown what differs between two pictures.
    #[allow(clippy::cast_precision_loss, reason = "fan-ins are small integers, exact in f32")]
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32> {
        let length = dims.iter().product();
        let fan_in: usize = dims.iter().skip(1).product();
        if dims.len() == 1 {
            return vec![0.0; length];
        }
        let gain = if name.ends_with(".conv2.weight") { 0.5 } else { 1.0 };
        let bound = gain * (6.0 / fan_in as f32).sqrt();
        let mut values: Vec<f32> = (0..length).map(|_| self.0.next_unit() * bound).collect();
        if dims.len() == 2 {
            for row in values.chunks_exact_mut(fan_in) {
                let mean = row.iter().sum::<f32>() / fan_in as f32;
                row.iter_mut().for_each(|value| *value -= mean);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_those_of_the_published_generator() {
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn another_seed_gives_another_network_and_the_same_seed_the_same() {
        let weights = |seed| RandomWeights(SplitMix64(seed)).weights("stem.weight", &[64, 3, 7, 7]);
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}

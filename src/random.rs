//! Reproducible random numbers: the same seed draws the same embryo on every machine and with every
//! version of every crate.

/// `SplitMix64` (Steele, Lea & Flood 2014): small, and any seed is a good seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// Mixes words into one seed, so that streams for different purposes do not overlap.
#[must_use]
pub fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0, |seed, word| Random(seed ^ word).next_u64())
}

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `[low, high)`.
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
    pub fn within(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next_u64() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }

    /// Bell-shaped around `mean`, never further than 3.46 `deviation` from it.
    pub fn about(&mut self, mean: f32, deviation: f32) -> f32 {
        let sum: f32 = (0..4).map(|_| self.within(-0.5, 0.5)).sum();
        mean + deviation * sum * 1.732
    }

    /// Fisher and Yates. The remainder favours small numbers by less than one in 2^40 for any list that
    /// fits into memory.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let drawn = self.next_u64() % (last as u64 + 1);
            items.swap(last, usize::try_from(drawn).unwrap_or(last));
        }
    }

    /// True with the given probability, 0 to 1.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.within(0.0, 1.0) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..50).collect();
        Random::new(3).shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}

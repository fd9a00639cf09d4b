//! Reproducible random numbers: the same seed cuts a set the same way on every machine and with every
//! version of every crate.

/// `SplitMix64` (Steele, Lea & Flood 2014): small, and any seed is a good seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// A stream for each pair of seed and purpose.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        Self(Self(seed).next_u64() ^ purpose)
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fisher and Yates. The remainder favours small numbers by less than one in 2^40 for any
    /// list that fits into memory.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let drawn = self.next_u64() % (last as u64 + 1);
            items.swap(last, usize::try_from(drawn).unwrap_or(last));
        }
    }
}

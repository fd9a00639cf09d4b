//! How far the reviewers agree with the summaries of a partition.

use std::collections::HashMap;

use crate::domain::{Comparison, Expansion, GradeClass, Head, Letter, quadratic_kappa};

/// Kappa of fewer embryos would say more about chance than about the graders.
pub const MIN_REVIEWED_EMBRYOS: u64 = 30;

/// The newest review of each embryo beside its summary. Embryos by hash: of two with the same one, one is left out.
#[derive(Debug, Default)]
pub(super) struct Opinions(HashMap<u64, Comparison>);

impl Opinions {
    pub(super) fn set(&mut self, embryo: u64, comparison: Option<Comparison>) {
        match comparison {
            Some(comparison) => self.0.insert(embryo, comparison),
            None => self.0.remove(&embryo),
        };
    }
}

/// Quadratic-weighted kappa of one head over these partitions; none of fewer than [`MIN_REVIEWED_EMBRYOS`].
pub(super) fn kappa<'a>(partitions: impl Iterator<Item = &'a Opinions>, head: Head) -> Option<f64> {
    let classes = match head {
        Head::Exp => <Expansion as GradeClass>::ALL.len(),
        Head::Icm | Head::Te => Letter::ALL.len(),
    };
    let mut confusion = vec![vec![0; classes]; classes];
    let mut embryos = 0;
    for comparison in partitions.flat_map(|partition| partition.0.values()) {
        let pair = match head {
            Head::Exp => comparison.exp,
            Head::Icm => comparison.icm,
            Head::Te => comparison.te,
        };
        if let Some((ours, reviewers)) = pair
            && let Some(cell) = confusion.get_mut(reviewers).and_then(|row| row.get_mut(ours))
        {
            *cell += 1;
            embryos += 1;
        }
    }
    if embryos < MIN_REVIEWED_EMBRYOS { None } else { quadratic_kappa(&confusion) }
}

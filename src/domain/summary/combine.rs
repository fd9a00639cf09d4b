//! From the set of contributions to what they say together.
//!
//! # Weights
//! A frame counts in a head by that head's own confidence, the calibrated probability of its grade. It is the
//! only measure of quality that a grade event carries of every frame: what the quality gate refused is
//! abstained and has no vote. The combination is the weighted *mean* of the probabilities, not their product:
//! photographs of one embryo a few minutes apart are no independent witnesses, and a product would become
//! surer with every one of them.

use std::collections::BTreeMap;

use super::contribution::{Contribution, Vote};
use super::event::{Disagreement, TrajectoryPoint};
use super::{Embryo, Window};
use crate::domain::grade::{Expansion, GradeClass, HeadGrade, Letter, Probabilities, round4};
use crate::domain::grade_event::{AbstainReason, Heads};

/// The trajectory has one point per fortieth of the window, and one for its very end.
const TRAJECTORY_STEPS: u32 = 40;

/// Sum of weight times probability, by class. Whole numbers, so that the order of adding does not matter.
fn sums<'a, G: GradeClass>(votes: impl Iterator<Item = &'a Vote<G>>) -> Vec<u64> {
    let mut sums = vec![0; G::ALL.len()];
    for vote in votes {
        for (sum, parts) in sums.iter_mut().zip(&vote.parts) {
            *sum += vote.weight() * u64::from(*parts);
        }
    }
    sums
}

#[allow(clippy::cast_precision_loss, reason = "1,000 frames x 10^8 are far below 2^53")]
fn combined<'a, G: GradeClass>(votes: impl Iterator<Item = &'a Vote<G>>) -> Option<HeadGrade<G>> {
    let sums = sums(votes);
    let largest = sums.iter().copied().max().filter(|largest| *largest > 0)?;
    // The first of equals.
    let best = sums.iter().position(|sum| *sum == largest)?;
    let total: u64 = sums.iter().sum();
    let values: Vec<f64> = sums.iter().map(|sum| round4(*sum as f64 / total as f64)).collect();
    Some(HeadGrade {
        grade: *G::ALL.get(best)?,
        confidence: *values.get(best)?,
        probabilities: Probabilities::new(values)?,
    })
}

/// Share of the votes for another class than `grade`; nothing without votes.
#[allow(clippy::cast_precision_loss, reason = "1,000 frames at most")]
fn against<'a, G: GradeClass>(votes: impl Iterator<Item = &'a Vote<G>>, grade: G) -> Option<f64> {
    let (all, against) =
        votes.fold((0, 0), |(all, against), vote| (all + 1, against + u32::from(vote.grade != grade)));
    (all > 0).then(|| round4(f64::from(against) / f64::from(all)))
}

impl Embryo {
    fn votes<'a, G: 'a>(
        &'a self,
        head: impl Fn(&'a Contribution) -> Option<&'a Vote<G>> + 'a,
    ) -> impl Iterator<Item = &'a Vote<G>> {
        self.frames.values().filter_map(head)
    }

    /// The heads together; letters only from expansion 3, of the frames that have them.
    pub(super) fn heads(&self) -> Option<Heads> {
        let exp = combined(self.votes(|it| it.exp.as_ref()))?;
        let letters = exp.grade.has_letters();
        let letter = |head: Option<HeadGrade<Letter>>| head.filter(|_| letters);
        let icm = letter(combined(self.votes(|it| it.icm.as_ref())));
        let te = letter(combined(self.votes(|it| it.te.as_ref())));
        Some(Heads { exp, icm, te })
    }

    pub(super) fn disagreement(&self, heads: &Heads) -> Option<Disagreement> {
        Some(Disagreement {
            exp: against(self.votes(|it| it.exp.as_ref()), heads.exp.grade)?,
            icm: heads.icm.as_ref().and_then(|head| against(self.votes(|it| it.icm.as_ref()), head.grade)),
            te: heads.te.as_ref().and_then(|head| against(self.votes(|it| it.te.as_ref()), head.grade)),
        })
    }

    /// Frames by reason. One with two reasons counts in both.
    pub(super) fn abstentions(&self) -> BTreeMap<AbstainReason, u32> {
        let mut counts = BTreeMap::new();
        for reason in self.frames.values().flat_map(|it| &it.reasons) {
            *counts.entry(*reason).or_default() += 1;
        }
        counts
    }

    /// Expected expansion over time.
    pub(super) fn trajectory(&self) -> Vec<TrajectoryPoint> {
        let mut steps: BTreeMap<u32, Vec<(u32, &Vote<Expansion>)>> = BTreeMap::new();
        for frame in self.frames.values() {
            if let Some(vote) = &frame.exp {
                steps.entry(self.window.step(frame.centi_hpi)).or_default().push((frame.centi_hpi, vote));
            }
        }
        steps.values().map(|frames| point(frames)).collect()
    }
}

impl Window {
    fn step(self, centi_hpi: u32) -> u32 {
        let width = self.to_centi_hpi.saturating_sub(self.from_centi_hpi).div_ceil(TRAJECTORY_STEPS).max(1);
        centi_hpi.saturating_sub(self.from_centi_hpi) / width
    }
}

#[allow(clippy::cast_precision_loss, reason = "1,000 frames x 10^8 are far below 2^53")]
fn point(frames: &[(u32, &Vote<Expansion>)]) -> TrajectoryPoint {
    let sums = sums(frames.iter().map(|(_, vote)| *vote));
    let total: u64 = sums.iter().sum();
    let weighted: u64 = sums.iter().zip(1..).map(|(sum, class)| sum * class).sum();
    let centi_hpi: u64 = frames.iter().map(|(centi_hpi, _)| u64::from(*centi_hpi)).sum();
    TrajectoryPoint {
        hpi: (centi_hpi as f64 / frames.len() as f64).round() / 100.0,
        expansion: (weighted as f64 / total as f64 * 100.0).round() / 100.0,
        frames: u32::try_from(frames.len()).unwrap_or(u32::MAX),
    }
}

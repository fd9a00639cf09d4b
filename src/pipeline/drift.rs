//! How far the recent frames of each make of incubator are from what the bundle was made for.
//!
//! Of grades: the population stability index, the sum over the classes of (recent - reference) x
//! ln(recent / reference). Of pictures: how far the mean embedding has moved. Both over the recent frames, of which
//! each counts a little less with every one that follows, so that memory is bounded and no window has to be kept.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{GradeClass, Head, HeadGrade, Heads, Population};
use crate::telemetry::metrics::Metrics;

/// Added to the count of every class, so that one that has not been seen yet does not make the index infinite.
const PSEUDO_COUNT: f64 = 0.5;

/// What counts as recent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftSettings {
    /// Recent frames of an incubator model: one more than so many frames old counts a third.
    pub window_frames: usize,
    /// Fewest frames of an incubator model about which anything is said.
    pub min_frames: usize,
}

/// Drift of one bundle. Bounded by the labels of the metrics, of which there are few.
pub struct Drift {
    population: Arc<Population>,
    settings: DriftSettings,
    recent: HashMap<Arc<str>, Recent>,
    metrics: Metrics,
}

/// The recent frames of an incubator model.
#[derive(Default)]
struct Recent {
    seen: usize,
    grades: [Vec<f64>; 3],
    weight: f64,
    mean: Vec<f64>,
}

impl Drift {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(population: Arc<Population>, settings: DriftSettings, metrics: Metrics) -> Self {
        Self { population, settings, recent: HashMap::new(), metrics }
    }

    /// A frame was looked at. `instrument_model` is a label of the metrics.
    pub fn observe(&mut self, instrument_model: Arc<str>, heads: &Heads, embedding: &[f32]) {
        let keep = keep(self.settings.window_frames);
        let recent = self.recent.entry(Arc::clone(&instrument_model)).or_default();
        recent.seen = recent.seen.saturating_add(1);
        let [exp, icm, te] = &mut recent.grades;
        count(exp, keep, Some(&heads.exp));
        count(icm, keep, heads.icm.as_ref());
        count(te, keep, heads.te.as_ref());
        recent.weight = recent.weight * keep + 1.0;
        recent.mean.resize(embedding.len(), 0.0);
        for (mean, value) in recent.mean.iter_mut().zip(embedding) {
            *mean += (f64::from(*value) - *mean) / recent.weight;
        }
        let seen = recent.seen.min(self.settings.window_frames);
        self.metrics.set_drift_frames(&instrument_model, i64::try_from(seen).unwrap_or(i64::MAX));
        if recent.seen < self.settings.min_frames {
            return;
        }
        let reference = &self.population.grades;
        for ((head, counts), reference) in
            Head::ALL.iter().zip(&recent.grades).zip([&reference.exp, &reference.icm, &reference.te])
        {
            if let Some(psi) = psi(counts, reference, self.population.frames) {
                self.metrics.set_drift_psi(&instrument_model, *head, psi);
            }
        }
        if let Some(shift) = shift(&recent.mean, &self.population) {
            self.metrics.set_drift_embedding_shift(&instrument_model, shift);
        }
    }
}

/// What is left of the weight of a frame once another one follows.
#[allow(clippy::cast_precision_loss, reason = "a number of frames")]
fn keep(window_frames: usize) -> f64 {
    1.0 - 1.0 / window_frames.max(1) as f64
}

/// A head without a grade leaves the counts as they are: letters are not defined for every frame.
fn count<G: GradeClass>(counts: &mut Vec<f64>, keep: f64, head: Option<&HeadGrade<G>>) {
    counts.resize(G::ALL.len(), 0.0);
    let Some(head) = head else { return };
    for (class, count) in G::ALL.iter().zip(counts) {
        *count = *count * keep + if *class == head.grade { 1.0 } else { 0.0 };
    }
}

/// Population stability index of weighted counts against the shares of a reference of so many frames. `None` before
/// the first count.
#[allow(clippy::cast_precision_loss, reason = "numbers of frames and classes")]
fn psi(counts: &[f64], reference: &[f64], frames: u64) -> Option<f64> {
    let (classes, frames) = (counts.len() as f64, frames as f64);
    let total: f64 = counts.iter().sum();
    let smoothed = |count: f64, total: f64| (count + PSEUDO_COUNT) / (total + PSEUDO_COUNT * classes);
    let index = counts.iter().zip(reference).map(|(count, share)| {
        let (recent, reference) = (smoothed(*count, total), smoothed(share * frames, frames));
        (recent - reference) * (recent / reference).ln()
    });
    (total > 0.0).then(|| index.sum())
}

/// Root mean square over the values of an embedding of how far their means have moved, in standard deviations.
/// `None` when the embedding has another length than the reference.
#[allow(clippy::cast_precision_loss, reason = "a few hundred values")]
fn shift(mean: &[f64], population: &Population) -> Option<f64> {
    let reference = &population.embedding;
    let moved = mean.iter().zip(&reference.mean).zip(&reference.std);
    let square: f64 = moved.map(|((mean, reference), std)| ((mean - reference) / std).powi(2)).sum();
    (mean.len() == reference.mean.len()).then(|| (square / mean.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{GradeShares, Moments};

    fn population() -> Population {
        Population {
            about: "invented".into(),
            frames: 1_000,
            grades: GradeShares {
                exp: vec![0.1, 0.2, 0.3, 0.2, 0.1, 0.1],
                icm: vec![0.5, 0.3, 0.2],
                te: vec![0.2, 0.3, 0.5],
            },
            embedding: Moments { mean: vec![0.0, 10.0], std: vec![1.0, 2.0] },
        }
    }

    fn heads(expansion: usize, letter: usize) -> Heads {
        let (mut exp, mut letters) = ([0.0; 6], [0.0; 3]);
        exp[expansion] = 9.0;
        letters[letter] = 9.0;
        let head = HeadGrade::from_logits(&letters, 1.0).unwrap();
        Heads::new(HeadGrade::from_logits(&exp, 1.0).unwrap(), head.clone(), head)
    }

    fn observed(frames: impl Iterator<Item = (usize, usize, [f32; 2])>) -> String {
        let metrics = Metrics::new(&[]).unwrap();
        let settings = DriftSettings { window_frames: 200, min_frames: 50 };
        let mut drift = Drift::new(population().into(), settings, metrics.clone());
        for (expansion, letter, embedding) in frames {
            drift.observe("invented T-1".into(), &heads(expansion, letter), &embedding);
        }
        metrics.encode().unwrap()
    }

    fn value(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ').unwrap().1.parse().ok()
    }

    const EXP: &str = "memebg_drift_psi{head=\"exp\",instrument_model=\"invented T-1\"}";
    const SHIFT: &str = "memebg_drift_embedding_shift{instrument_model=\"invented T-1\"}";

    /// Frames with the shares of the reference, in a fixed turn.
    fn as_made_for(count: usize) -> impl Iterator<Item = (usize, usize, [f32; 2])> {
        let expansions = [0, 1, 1, 2, 2, 2, 3, 3, 4, 5];
        (0..count).map(move |frame| (expansions[frame % 10], frame % 3, [0.0, 10.0]))
    }

    #[test]
    fn frames_like_the_reference_show_next_to_no_drift() {
        let text = observed(as_made_for(600));
        assert!(value(&text, EXP).unwrap() < 0.02, "{text}");
        assert!(value(&text, SHIFT).unwrap() < 1e-9, "{text}");
    }

    #[test]
    fn a_changed_mix_of_grades_and_a_moved_embedding_are_seen_within_the_window() {
        let changed = (0..400).map(|_| (5, 0, [1.0, 12.0]));
        let text = observed(as_made_for(600).chain(changed));
        assert!(value(&text, EXP).unwrap() > 1.0, "{text}");
        let shift = value(&text, SHIFT).unwrap();
        assert!((0.7..1.0).contains(&shift), "86 % of one deviation: {shift}");
    }

    #[test]
    fn nothing_is_said_of_a_handful_of_frames() {
        let text = observed(as_made_for(49));
        assert_eq!((value(&text, EXP), value(&text, SHIFT)), (None, None));
        let frames = "memebg_drift_frames{instrument_model=\"invented T-1\"}";
        assert_eq!(value(&text, frames), Some(49.0));
    }

    #[test]
    fn an_embedding_of_another_length_is_not_compared() {
        assert_eq!(shift(&[0.0], &population()), None);
    }

    proptest! {
        #[test]
        fn the_index_is_finite_and_never_negative(
            counts in prop::collection::vec(0.0_f64..1e6, 3),
            first in 0.0_f64..=1.0,
        ) {
            let index = psi(&counts, &[first, 1.0 - first, 0.0], 100);
            prop_assert_eq!(index.is_none(), counts.iter().all(|count| *count == 0.0));
            prop_assert!(index.unwrap_or(0.0).is_finite() && index.unwrap_or(0.0) >= -1e-12);
        }
    }
}

//! Labelled sets of synthetic embryos: what the demo's model is trained on and measured with.

use image::ImageError;

use super::random::{Random, mix};
use super::{Embryo, Renderer};
use crate::domain::{Expansion, GradeClass, Label, Letter};

/// One picture in this many shows an embryo that is no blastocyst.
const OTHER_STAGE_EVERY: u64 = 10;
/// Hours after hatching within which a hatched blastocyst is drawn.
const HATCHED_HOURS: f32 = 18.0;
/// Focal offsets of the pictures, micrometres: an operator's central plane is not always the best.
const FOCAL_OFFSETS_UM: [f64; 4] = [0.0, 0.0, -7.5, 7.5];

/// A picture with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPicture {
    /// What it shows; the group is the embryo.
    pub label: Label,
    /// The embryo it shows.
    pub embryo: Embryo,
    /// Hours post insemination.
    pub hpi: f64,
    /// Distance from the central plane, micrometres.
    pub focal_offset_um: f64,
    /// The picture.
    pub jpeg: Vec<u8>,
}

/// An endless set of labelled pictures: blastocysts in equal numbers of every combination of
/// expansion, inner cell mass and trophectoderm, each at a random moment of its expansion, and one
/// picture in ten of an earlier stage. Every picture shows another embryo. The same seed gives the
/// same set, and sets of different seeds share no embryo.
#[derive(Debug)]
pub struct LabelledSet {
    renderer: Renderer,
    seed: u64,
    number: u64,
}

impl LabelledSet {
    /// The set of a seed, pictures of `side_px` x `side_px` pixels.
    #[must_use]
    pub fn new(seed: u64, side_px: u32) -> Self {
        Self { renderer: Renderer::new(side_px), seed, number: 0 }
    }

    fn embryo(&self) -> (Embryo, f64) {
        let embryo_seed = mix(&[self.seed, 0x6c61_6265_6c73, self.number]);
        let mut random = Random::new(mix(&[embryo_seed, 20]));
        let class = |of: u64| usize::try_from(of).unwrap_or(0);
        // Stages are taken out first, so that they do not empty one combination.
        let blastocyst = self.number - self.number / OTHER_STAGE_EVERY;
        let letter = |index: u64| Letter::ALL.get(class(index % 3)).copied().unwrap_or(Letter::B);
        let (icm, te) = (letter(blastocyst / 6), letter(blastocyst / 18));
        let embryo = Embryo::with_quality(embryo_seed, icm, te);
        let cavity = embryo.reaches_hpi(Expansion::E1).unwrap_or_default();
        if self.number % OTHER_STAGE_EVERY == OTHER_STAGE_EVERY - 1 {
            return (embryo, f64::from(random.within(26.0, cavity - 1.0)));
        }
        let index = class(blastocyst % 6);
        let starts = |index: usize| {
            let expansion = <Expansion as GradeClass>::ALL.get(index).copied()?;
            embryo.reaches_hpi(expansion)
        };
        let from = starts(index).unwrap_or_default();
        let to = starts(index + 1).unwrap_or(from + HATCHED_HOURS);
        let hpi = f64::from(random.within(from, to));
        (embryo, hpi)
    }
}

impl Iterator for LabelledSet {
    type Item = Result<LabelledPicture, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (embryo, hpi) = self.embryo();
        let focal = usize::try_from(mix(&[self.seed, 21, self.number]) % 4).unwrap_or(0);
        let focal_offset_um = FOCAL_OFFSETS_UM.get(focal).copied().unwrap_or_default();
        let picture = self.renderer.render(&embryo, hpi, focal_offset_um);
        let name = format!("synthetic-{}-{:06}", self.seed, self.number);
        self.number += 1;
        let label = Label {
            line: usize::try_from(self.number).unwrap_or(usize::MAX) + 1,
            image: format!("{name}.jpg"),
            truth: embryo.truth_at(hpi),
            group: Some(name),
        };
        let jpeg = Renderer::jpeg(&picture);
        Some(jpeg.map(|jpeg| LabelledPicture { label, embryo, hpi, focal_offset_um, jpeg }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn labels(seed: u64, count: usize) -> Vec<Label> {
        LabelledSet::new(seed, 16).take(count).map(|picture| picture.unwrap().label).collect()
    }

    #[test]
    fn every_combination_of_grades_is_as_frequent_as_the_next() {
        let mut counts = HashMap::new();
        for label in labels(3, 600) {
            let truth = label.truth;
            let lettered = truth.exp.is_some_and(Expansion::has_letters);
            assert_eq!((truth.icm.is_some(), truth.te.is_some()), (lettered, lettered));
            *counts.entry((truth.exp, truth.icm, truth.te)).or_insert(0) += 1;
        }
        assert_eq!(counts.remove(&(None, None, None)), Some(60));
        // 4 expansions with 9 pairs of letters each, and 2 without letters.
        assert_eq!(counts.len(), 4 * 9 + 2);
        assert!(counts.iter().all(|((exp, ..), count)| {
            if exp.unwrap().has_letters() { *count == 10 } else { *count == 90 }
        }));
    }

    #[test]
    fn every_picture_shows_another_embryo_and_sets_share_none() {
        let both: Vec<Label> = [labels(1, 50), labels(2, 50)].concat();
        let groups: HashSet<_> = both.iter().map(|label| label.group.clone().unwrap()).collect();
        assert_eq!(groups.len(), both.len());
        let seeds: HashSet<u64> = [1, 2]
            .into_iter()
            .flat_map(|seed| LabelledSet::new(seed, 16).take(50).map(|picture| picture.unwrap().embryo.seed))
            .collect();
        assert_eq!(seeds.len(), 100);
    }

    #[test]
    fn the_same_seed_gives_the_same_set() {
        assert_eq!(labels(7, 12), labels(7, 12));
        assert_ne!(labels(7, 12), labels(8, 12));
    }
}

//! A virtual embryo: from one seed its whole course over six days, and what an embryologist would
//! call it at any hour.

use super::random::{Random, mix};
use crate::domain::{DevelopmentStage, Expansion, Letter, Truth};

/// Hours post insemination at which an average embryo reaches 2, 3, ... 8 cells, compaction done and
/// the first cavity (t2 ... t8, tM, tSB of the time-lapse literature).
const CELL_DIVISIONS_HPI: [f32; 7] = [27.0, 37.0, 38.0, 50.0, 52.0, 54.0, 56.0];
const COMPACTION_STARTS_HPI: f32 = 80.0;
const MORULA_HPI: f32 = 86.0;
const CAVITY_HPI: f32 = 102.0;
/// Hours from the first cavity to expansion 1, 2, ... 6 of an average embryo.
const EXPANSION_HOURS: [f32; 6] = [0.0, 4.0, 8.0, 13.0, 21.0, 29.0];

/// How far an embryo has come: what [`super::Renderer`] draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Development {
    /// One cell; pronuclei are visible or not.
    Zygote { pronuclei: bool },
    /// Separate blastomeres.
    Cleavage { cells: u8 },
    /// From 0, outlines still visible, to 1, fully compacted.
    Morula { compaction: f32 },
    /// Expansion as a continuous number, 1 to below 7; its integer part is the Gardner digit.
    Blastocyst { expansion: f32 },
}

/// One embryo with its own pace, fate and quality.
#[derive(Debug, Clone, PartialEq)]
pub struct Embryo {
    pub(super) seed: u64,
    pace: f32,
    expansion_pace: f32,
    arrests_at_hpi: Option<f32>,
    pub(super) icm: Letter,
    pub(super) te: Letter,
    /// Share of the volume lost to fragments, 0 to 0.3.
    pub(super) fragmentation: f32,
}

impl Embryo {
    /// The embryo of a seed. About three in four become blastocysts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(mix(&[seed, 1]));
        let vigour = random.within(0.0, 1.0);
        let arrests_at_hpi = match vigour {
            v if v < 0.13 => Some(random.within(30.0, 70.0)),
            v if v < 0.25 => Some(random.within(84.0, 98.0)),
            _ => None,
        };
        let letter = |random: &mut Random| match random.about(vigour, 0.22) {
            v if v < 0.40 => Letter::C,
            v if v < 0.66 => Letter::B,
            _ => Letter::A,
        };
        Self {
            seed,
            pace: random.about(1.02 - 0.03 * vigour, 0.018),
            expansion_pace: random.within(0.75, 1.6),
            arrests_at_hpi,
            icm: letter(&mut random),
            te: letter(&mut random),
            fragmentation: random.within(0.0, 0.3) * (1.1 - vigour).min(1.0),
        }
    }

    /// The same embryo with chosen qualities that never arrests: for contact sheets and for training
    /// sets with every class in them.
    #[must_use]
    pub fn with_quality(seed: u64, icm: Letter, te: Letter) -> Self {
        Self { icm, te, arrests_at_hpi: None, ..Self::new(seed) }
    }

    /// The hour at which this embryo reaches an expansion; an arrested embryo never does.
    #[must_use]
    pub fn reaches_hpi(&self, expansion: Expansion) -> Option<f32> {
        let index = usize::from(u8::from(expansion)) - 1;
        let hours = EXPANSION_HOURS.get(index)?;
        let hpi = CAVITY_HPI * self.pace + hours * self.expansion_pace;
        self.arrests_at_hpi.is_none_or(|arrest| hpi < arrest).then_some(hpi)
    }

    /// Hours since this embryo stopped developing, 0 while it develops.
    pub(super) fn arrested_hours(&self, hpi: f32) -> f32 {
        self.arrests_at_hpi.map_or(0.0, |arrest| (hpi - arrest).max(0.0))
    }

    pub(super) fn development_at(&self, hpi: f32) -> Development {
        let hpi = self.arrests_at_hpi.map_or(hpi, |arrest| hpi.min(arrest));
        let average = hpi / self.pace;
        if average >= CAVITY_HPI {
            return Development::Blastocyst {
                expansion: expansion_after((hpi - CAVITY_HPI * self.pace) / self.expansion_pace),
            };
        }
        if average >= COMPACTION_STARTS_HPI {
            let compaction = (average - COMPACTION_STARTS_HPI) / (MORULA_HPI - COMPACTION_STARTS_HPI);
            return Development::Morula { compaction: compaction.min(1.0) };
        }
        let divisions = CELL_DIVISIONS_HPI.iter().filter(|division| average >= **division).count();
        match u8::try_from(divisions) {
            Ok(0) | Err(_) => Development::Zygote { pronuclei: (8.0..24.0).contains(&average) },
            Ok(divisions) => Development::Cleavage { cells: divisions + 1 },
        }
    }

    /// What an embryologist would say of a sharp photograph at this hour.
    #[must_use]
    pub fn truth_at(&self, hpi: f64) -> Truth {
        #[allow(clippy::cast_possible_truncation, reason = "hours of a week")]
        let development = self.development_at(hpi as f32);
        let stage = match development {
            Development::Zygote { .. } => DevelopmentStage::Zygote,
            Development::Cleavage { .. } => DevelopmentStage::Cleavage,
            Development::Morula { .. } => DevelopmentStage::Morula,
            Development::Blastocyst { .. } => DevelopmentStage::Blastocyst,
        };
        let exp = match development {
            Development::Blastocyst { expansion } => digit(expansion),
            _ => None,
        };
        let lettered = exp.is_some_and(Expansion::has_letters);
        Truth { stage, exp, icm: lettered.then_some(self.icm), te: lettered.then_some(self.te) }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to below 7")]
fn digit(expansion: f32) -> Option<Expansion> {
    Expansion::try_from(expansion.floor().clamp(1.0, 6.0) as u8).ok()
}

/// Expansion, continuous, a number of average hours after the first cavity.
fn expansion_after(hours: f32) -> f32 {
    let mut digit = 1.0;
    for pair in EXPANSION_HOURS.windows(2) {
        if let [from, to] = pair {
            if hours < *to {
                return digit + ((hours - from) / (to - from)).max(0.0);
            }
            digit += 1.0;
        }
    }
    let hatched = EXPANSION_HOURS.last().copied().unwrap_or_default();
    6.0 + ((hours - hatched) / 20.0).min(0.99)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn truths(seed: u64) -> Vec<Truth> {
        (0..144).map(|hour| Embryo::new(seed).truth_at(f64::from(hour))).collect()
    }

    #[test]
    fn an_embryo_never_develops_backwards() {
        for seed in 0..300 {
            let course: Vec<_> = truths(seed).iter().map(|truth| (truth.stage as u8, truth.exp)).collect();
            assert!(course.is_sorted(), "seed {seed}: {course:?}");
        }
    }

    #[test]
    fn letters_are_given_from_expansion_three_on_and_only_there() {
        for truth in (0..100).flat_map(truths) {
            let lettered = truth.exp.is_some_and(|exp| exp >= Expansion::E3);
            assert_eq!((truth.icm.is_some(), truth.te.is_some()), (lettered, lettered));
            assert_eq!(truth.exp.is_some(), truth.stage == DevelopmentStage::Blastocyst);
        }
    }

    #[test]
    fn about_three_in_four_become_blastocysts_and_every_class_occurs() {
        let ends: Vec<Truth> = (0..2_000).map(|seed| Embryo::new(seed).truth_at(140.0)).collect();
        let blastocysts = ends.iter().filter(|truth| truth.exp.is_some()).count();
        assert!((1_400..1_600).contains(&blastocysts), "{blastocysts}");
        let day_five: Vec<Truth> = (0..2_000).map(|seed| Embryo::new(seed).truth_at(110.0)).collect();
        let expansions: HashSet<_> = day_five.iter().chain(&ends).filter_map(|truth| truth.exp).collect();
        assert_eq!(expansions.len(), 6);
        for letter in Letter::ALL {
            let share = |of: fn(&Truth) -> Option<Letter>| {
                ends.iter().filter(|truth| of(truth) == Some(*letter)).count() as f64 / blastocysts as f64
            };
            assert!(share(|truth| truth.icm) > 0.1 && share(|truth| truth.te) > 0.1, "{letter}");
        }
    }

    #[test]
    fn an_average_embryo_keeps_the_times_of_the_textbook() {
        let embryo = Embryo { pace: 1.0, ..Embryo::with_quality(1, Letter::A, Letter::A) };
        assert_eq!(embryo.development_at(18.0), Development::Zygote { pronuclei: true });
        assert_eq!(embryo.development_at(30.0), Development::Cleavage { cells: 2 });
        assert_eq!(embryo.development_at(44.0), Development::Cleavage { cells: 4 });
        assert_eq!(embryo.development_at(68.0), Development::Cleavage { cells: 8 });
        assert_eq!(embryo.development_at(92.0), Development::Morula { compaction: 1.0 });
        assert_eq!(embryo.truth_at(103.0).exp, Some(Expansion::E1));
    }
}

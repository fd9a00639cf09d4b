//! Gardner grades: expansion (EXP) 1-6, inner cell mass (ICM) A-C, trophectoderm (TE) A-C.
//!
//! Source: Gardner & Schoolcraft 1999; below expansion 3 the two letters are not defined.

use std::marker::PhantomData;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::label::label_enum;

label_enum! {
    /// One output of the multitask model.
    Head {
        /// Expansion, six classes.
        Exp = "exp",
        /// Inner cell mass, three classes.
        Icm = "icm",
        /// Trophectoderm, three classes.
        Te = "te",
    }
}

/// The classes of one head, in the order of the model's logits.
pub trait GradeClass: Copy + PartialEq + std::fmt::Debug + 'static {
    /// Every class, best known first for letters, 1 to 6 for expansion.
    const ALL: &'static [Self];
    /// The class as it is written in a Gardner string.
    fn label(self) -> &'static str;
}

/// Degree of expansion and hatching, 1 (early blastocyst) to 6 (hatched).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Expansion {
    /// Blastocoel less than half the volume of the embryo.
    E1 = 1,
    /// Blastocoel at least half the volume.
    E2 = 2,
    /// Full blastocyst.
    E3 = 3,
    /// Expanded blastocyst, thinning zona.
    E4 = 4,
    /// Hatching blastocyst.
    E5 = 5,
    /// Hatched blastocyst.
    E6 = 6,
}

impl Expansion {
    /// Whether ICM and TE are graded at this expansion (Gardner: from 3).
    #[must_use]
    pub fn has_letters(self) -> bool {
        self >= Self::E3
    }
}

impl From<Expansion> for u8 {
    fn from(expansion: Expansion) -> Self {
        expansion as Self
    }
}

impl TryFrom<u8> for Expansion {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .iter()
            .copied()
            .find(|class| *class as u8 == value)
            .ok_or_else(|| format!("expansion {value} is not one of 1 to 6"))
    }
}

impl GradeClass for Expansion {
    const ALL: &'static [Self] = &[Self::E1, Self::E2, Self::E3, Self::E4, Self::E5, Self::E6];

    fn label(self) -> &'static str {
        match self {
            Self::E1 => "1",
            Self::E2 => "2",
            Self::E3 => "3",
            Self::E4 => "4",
            Self::E5 => "5",
            Self::E6 => "6",
        }
    }
}

label_enum! {
    /// Quality of the inner cell mass or of the trophectoderm.
    Letter {
        /// Many cells, tightly packed (ICM) or cohesive epithelium (TE).
        A = "A",
        /// Several cells, loosely grouped.
        B = "B",
        /// Very few cells.
        C = "C",
    }
}

impl GradeClass for Letter {
    const ALL: &'static [Self] = Self::ALL;

    fn label(self) -> &'static str {
        self.as_str()
    }
}

/// Calibrated probabilities over all classes of a head, in class order, rounded to four decimals.
///
/// In JSON an object from class label to probability, so that nobody needs to know the order.
#[derive(Debug, Clone, PartialEq)]
pub struct Probabilities<G> {
    values: Vec<f64>,
    classes: PhantomData<G>,
}

impl<G: GradeClass> Probabilities<G> {
    /// One per class, in class order; `None` when there are more or fewer.
    #[must_use]
    pub fn new(values: Vec<f64>) -> Option<Self> {
        (values.len() == G::ALL.len()).then_some(Self { values, classes: PhantomData })
    }

    /// The probability of one class.
    #[must_use]
    pub fn of(&self, class: G) -> f64 {
        G::ALL.iter().position(|c| *c == class).and_then(|i| self.values.get(i)).copied().unwrap_or(0.0)
    }

    /// Class and probability, in class order.
    pub fn iter(&self) -> impl Iterator<Item = (G, f64)> + '_ {
        G::ALL.iter().copied().zip(self.values.iter().copied())
    }
}

impl<G: GradeClass> Serialize for Probabilities<G> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (class, probability) in self.iter() {
            map.serialize_entry(class.label(), &probability)?;
        }
        map.end()
    }
}

impl<'de, G: GradeClass> Deserialize<'de> for Probabilities<G> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByLabel<G>(PhantomData<G>);

        impl<'de, G: GradeClass> Visitor<'de> for ByLabel<G> {
            type Value = Probabilities<G>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object from every class label to its probability")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = vec![None; G::ALL.len()];
                while let Some((label, probability)) = map.next_entry::<String, f64>()? {
                    let slot = G::ALL
                        .iter()
                        .position(|class| class.label() == label)
                        .and_then(|index| values.get_mut(index))
                        .ok_or_else(|| A::Error::custom(format!("unknown class {label:?}")))?;
                    *slot = Some(probability);
                }
                let values = values.into_iter().collect::<Option<Vec<f64>>>();
                let values = values.ok_or_else(|| A::Error::custom("a class has no probability"))?;
                Ok(Probabilities { values, classes: PhantomData })
            }
        }

        deserializer.deserialize_map(ByLabel(PhantomData))
    }
}

/// What one head says about one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "G: GradeClass + Serialize + serde::de::DeserializeOwned")]
pub struct HeadGrade<G> {
    /// The most probable class.
    pub grade: G,
    /// All classes.
    pub probabilities: Probabilities<G>,
    /// The probability of `grade`, 0 to 1.
    pub confidence: f64,
}

impl<G: GradeClass> HeadGrade<G> {
    /// Softmax of `logits / temperature` (Guo 2017, temperature scaling).
    ///
    /// `None` when the number of logits is not the number of classes, or one of them is not a
    /// finite number: such an output is refused, never turned into a grade.
    #[must_use]
    pub fn from_logits(logits: &[f32], temperature: f64) -> Option<Self> {
        if logits.len() != G::ALL.len() || !logits.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        let scaled: Vec<f64> = logits.iter().map(|logit| f64::from(*logit) / temperature).collect();
        let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = scaled.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        // The first of equals, so that the grade does not depend on the order of evaluation.
        let best = scaled.iter().position(|logit| *logit >= largest)?;
        let values: Vec<f64> = exponentials.iter().map(|e| round4(e / sum)).collect();
        Some(Self {
            grade: *G::ALL.get(best)?,
            confidence: *values.get(best)?,
            probabilities: Probabilities { values, classes: PhantomData },
        })
    }
}

/// Four decimals: finer differences are arithmetic noise between batch sizes and devices.
pub(crate) fn round4(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The Gardner string: "4AB", or only the digit below expansion 3 or when a letter is missing.
#[must_use]
pub fn gardner(expansion: Expansion, icm: Option<Letter>, te: Option<Letter>) -> String {
    match (expansion.has_letters(), icm, te) {
        (true, Some(icm), Some(te)) => format!("{}{icm}{te}", expansion.label()),
        _ => expansion.label().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logit_wins_and_probabilities_sum_to_one() {
        let head = HeadGrade::<Letter>::from_logits(&[0.0, 2.0, 1.0], 1.0).unwrap();
        assert_eq!(head.grade, Letter::B);
        let sum: f64 = head.probabilities.iter().map(|(_, p)| p).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
        assert!((head.confidence - head.probabilities.of(Letter::B)).abs() < f64::EPSILON);
    }

    #[test]
    fn a_higher_temperature_lowers_confidence_and_keeps_the_grade() {
        let cool = HeadGrade::<Letter>::from_logits(&[0.0, 2.0, 1.0], 1.0).unwrap();
        let warm = HeadGrade::<Letter>::from_logits(&[0.0, 2.0, 1.0], 3.0).unwrap();
        assert_eq!(cool.grade, warm.grade);
        assert!(warm.confidence < cool.confidence);
    }

    #[test]
    fn a_non_finite_or_short_output_is_no_grade() {
        assert!(HeadGrade::<Letter>::from_logits(&[0.0, f32::NAN, 1.0], 1.0).is_none());
        assert!(HeadGrade::<Letter>::from_logits(&[0.0, f32::INFINITY, 1.0], 1.0).is_none());
        assert!(HeadGrade::<Expansion>::from_logits(&[0.0, 1.0], 1.0).is_none());
    }

    #[test]
    fn letters_are_absent_below_expansion_three() {
        assert_eq!(gardner(Expansion::E2, Some(Letter::A), Some(Letter::B)), "2");
        assert_eq!(gardner(Expansion::E3, Some(Letter::A), Some(Letter::B)), "3AB");
        assert_eq!(gardner(Expansion::E6, Some(Letter::C), None), "6");
    }

    #[test]
    fn a_head_survives_json() {
        let head = HeadGrade::<Expansion>::from_logits(&[0.0, 1.0, 2.0, 5.0, 1.0, 0.0], 1.0).unwrap();
        let json = serde_json::to_string(&head).unwrap();
        assert!(json.contains(r#""grade":4"#), "{json}");
        assert_eq!(serde_json::from_str::<HeadGrade<Expansion>>(&json).unwrap(), head);
        assert!(serde_json::from_str::<HeadGrade<Expansion>>(&json.replace(r#""6":"#, r#""7":"#)).is_err());
    }
}

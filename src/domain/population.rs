//! What a bundle says of the pictures it was made for: the reference that drift is measured against.

use serde::{Deserialize, Serialize};

use super::grade::{Expansion, GradeClass, Letter};
use super::grade_event::Heads;

/// Most values of an embedding.
const MAX_EMBEDDING: usize = 4_096;
/// How far shares may be from adding up to one: they are rounded.
const ROUNDING: f64 = 0.01;

/// The grades and embeddings of a reference set, as the bundle itself sees them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// What the pictures are, in words.
    pub about: String,
    /// Number of pictures.
    pub frames: u64,
    /// How often each head gives each of its classes.
    pub grades: GradeShares,
    /// Each value of the DINOv2 embedding.
    pub embedding: Moments,
}

/// Shares of the classes of each head, in class order; each list adds up to 1. ICM and TE over the pictures
/// with an expansion of 3 or more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradeShares {
    /// Expansion 1 to 6.
    pub exp: Vec<f64>,
    /// Inner cell mass A to C.
    pub icm: Vec<f64>,
    /// Trophectoderm A to C.
    pub te: Vec<f64>,
}

/// Mean and standard deviation of each value of an embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations, greater than 0.
    pub std: Vec<f64>,
}

impl Population {
    /// What a bundle said of pictures: their heads and embeddings, all of one length.
    ///
    /// `None` without two pictures, without one that has letters, or when a value of the embeddings does not vary.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "numbers of pictures")]
    pub fn of(about: &str, pictures: &[(Heads, Vec<f32>)]) -> Option<Self> {
        let count = pictures.len() as f64;
        let width = pictures.first()?.1.len();
        let values = |index: usize| {
            pictures.iter().filter_map(move |(_, embedding)| embedding.get(index)).map(|it| f64::from(*it))
        };
        let mean: Vec<f64> = (0..width).map(|index| values(index).sum::<f64>() / count).collect();
        let deviation = |(index, mean): (usize, &f64)| {
            let square: f64 = values(index).map(|value| (value - mean).powi(2)).sum();
            (square / (count - 1.0)).sqrt()
        };
        let std: Vec<f64> = mean.iter().enumerate().map(deviation).collect();
        let letters =
            |of: fn(&Heads) -> Option<Letter>| pictures.iter().filter_map(move |(heads, _)| of(heads));
        let population = Self {
            about: about.to_owned(),
            frames: pictures.len() as u64,
            grades: GradeShares {
                exp: shares(pictures.iter().map(|(heads, _)| heads.exp.grade)),
                icm: shares(letters(|heads| heads.icm.as_ref().map(|head| head.grade))),
                te: shares(letters(|heads| heads.te.as_ref().map(|head| head.grade))),
            },
            embedding: Moments { mean, std },
        };
        population.check().is_ok().then_some(population)
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// A text that names the field and what is expected.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let population: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        population.check()?;
        Ok(population)
    }

    fn check(&self) -> Result<(), String> {
        if self.frames < 2 {
            return Err(format!("frames is {}, expected 2 or more", self.frames));
        }
        let heads = [
            ("exp", &self.grades.exp, Expansion::ALL.len()),
            ("icm", &self.grades.icm, Letter::ALL.len()),
            ("te", &self.grades.te, Letter::ALL.len()),
        ];
        for (head, shares, classes) in heads {
            let sum: f64 = shares.iter().sum();
            let all_shares = shares.iter().all(|share| (0.0..=1.0).contains(share));
            if shares.len() != classes || !all_shares || (sum - 1.0).abs() > ROUNDING {
                return Err(format!("grades.{head} is not {classes} shares that add up to 1"));
            }
        }
        let Moments { mean, std } = &self.embedding;
        if !(1..=MAX_EMBEDDING).contains(&mean.len()) || mean.len() != std.len() {
            return Err(format!(
                "embedding has {} means and {} deviations, expected 1 to {MAX_EMBEDDING} of both",
                mean.len(),
                std.len()
            ));
        }
        if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Err("embedding.std has a value that is not above 0".to_owned());
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "numbers of pictures")]
fn shares<G: GradeClass>(grades: impl Iterator<Item = G>) -> Vec<f64> {
    let grades: Vec<G> = grades.collect();
    let of = |class: &G| grades.iter().filter(|grade| *grade == class).count() as f64 / grades.len() as f64;
    G::ALL.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HeadGrade;

    fn picture(expansion: usize, icm: usize, embedding: [f32; 2]) -> (Heads, Vec<f32>) {
        let (mut exp, mut letter) = ([0.0; 6], [0.0; 3]);
        exp[expansion - 1] = 9.0;
        letter[icm] = 9.0;
        let head = HeadGrade::from_logits(&letter, 1.0).unwrap();
        (Heads::new(HeadGrade::from_logits(&exp, 1.0).unwrap(), head.clone(), head), embedding.to_vec())
    }

    #[test]
    fn a_population_counts_letters_only_where_they_are_defined() {
        let pictures = [picture(1, 0, [0.0, 1.0]), picture(4, 1, [2.0, 3.0]), picture(4, 2, [4.0, 5.0])];
        let population = Population::of("invented", &pictures).unwrap();
        assert_eq!(population.grades.icm, [0.0, 0.5, 0.5]);
        assert!((population.grades.exp[3] - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((population.embedding.mean, population.embedding.std), (vec![2.0, 3.0], vec![2.0, 2.0]));
    }

    #[test]
    fn what_nothing_can_be_measured_against_is_no_population() {
        assert!(Population::of("none", &[]).is_none());
        assert!(Population::of("one", &[picture(4, 0, [0.0, 1.0])]).is_none());
        let constant = [picture(4, 0, [0.0, 1.0]), picture(4, 0, [0.0, 2.0])];
        assert!(Population::of("constant", &constant).is_none());
        let no_letters = [picture(1, 0, [0.0, 1.0]), picture(2, 0, [1.0, 2.0])];
        assert!(Population::of("no letters", &no_letters).is_none());
    }

    #[test]
    fn a_population_that_was_tampered_with_is_refused_by_field() {
        let pictures = [picture(3, 0, [0.0, 1.0]), picture(4, 1, [2.0, 3.0])];
        let good = serde_json::to_value(Population::of("invented", &pictures).unwrap()).unwrap();
        assert!(Population::from_json(good.to_string().as_bytes()).is_ok());
        for (pointer, value, named) in [
            ("/frames", serde_json::json!(1), "frames"),
            ("/grades/icm/0", serde_json::json!(0.2), "grades.icm"),
            ("/grades/exp", serde_json::json!([1.0]), "grades.exp"),
            ("/embedding/std/0", serde_json::json!(0.0), "embedding.std"),
            ("/embedding/mean", serde_json::json!([1.0]), "1 means and 2 deviations"),
        ] {
            let mut json = good.clone();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = Population::from_json(json.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(named), "{pointer}: {error}");
        }
    }
}

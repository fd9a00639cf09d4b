//! Was a model made for these pictures? How many of a set it refuses as unlike its training set.

use serde::Serialize;

use super::Sample;
use crate::domain::DevelopmentStage;
use crate::model::manifest;

/// Pictures that a model refuses for their distance from its training set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OutOfDistribution {
    /// Mahalanobis distance of the embedding above which there is no grade.
    pub abstain_above: f64,
    /// Pictures that are labelled as blastocysts: every refusal costs a grade.
    pub graded: Shares,
    /// Pictures of earlier stages, which have no Gardner grade: a refusal is right.
    pub other_stages: Shares,
}

/// How many of some pictures are refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// Pictures.
    pub images: usize,
    /// Refused ones among them.
    pub refused: usize,
}

impl Shares {
    /// Share of the refused ones, 0 to 1; `None` of no pictures.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.images > 0).then(|| self.refused as f64 / self.images as f64)
    }

    fn add(&mut self, is_refused: bool) {
        self.images += 1;
        self.refused += usize::from(is_refused);
    }

    fn in_words(self, what: &str) -> String {
        let share = self.share().map(|share| format!(" ({:.1} %)", share * 100.0)).unwrap_or_default();
        format!("{} of {} {what}{share}", self.refused, self.images)
    }
}

impl OutOfDistribution {
    /// Counts what a limit refuses: `distances` are those of `samples`, in the same order.
    #[must_use]
    pub fn of(
        limit: &manifest::OutOfDistribution,
        samples: &[Sample],
        distances: impl IntoIterator<Item = f64>,
    ) -> Self {
        let (mut graded, mut other_stages) = (Shares::default(), Shares::default());
        for (sample, distance) in samples.iter().zip(distances) {
            match sample.truth.stage {
                DevelopmentStage::Blastocyst => graded.add(limit.refuses(distance)),
                DevelopmentStage::Zygote | DevelopmentStage::Cleavage | DevelopmentStage::Morula => {
                    other_stages.add(limit.refuses(distance));
                }
            }
        }
        Self { abstain_above: limit.abstain_above, graded, other_stages }
    }

    /// Whether most blastocysts are refused: then the figures say little about what is left.
    #[must_use]
    pub fn is_for_other_pictures(&self) -> bool {
        self.graded.share().is_some_and(|share| share > 0.5)
    }

    /// How many are refused, in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "no grade beyond a distance of {:.2} from the training set: {} and {} are refused",
            self.abstain_above,
            self.graded.in_words("blastocysts"),
            self.other_stages.in_words("pictures of other stages")
        )
    }
}

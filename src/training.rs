//! The training room: from labelled pictures to a bundle, and to figures that say how good it is.
//!
//! [`data`] reads a labelled set, [`split`] cuts it, [`figures`] measures answers against labels,
//! [`paired`] compares two ways of training, [`calibrate`] makes confidences honest, [`distribution`]
//! counts pictures that a model was not made for; [`evaluation`] is the result, of [`finished`] models
//! too, which [`report`] shows in a browser and [`table`] in a terminal; [`mod@population`] is what drift is
//! measured against. These need no training stack.
//! What does is behind the cargo feature `train`.

#[cfg(feature = "train")]
pub mod augment;
#[cfg(feature = "train")]
pub mod bundle;
pub mod calibrate;
#[cfg(feature = "train")]
pub mod card;
#[cfg(feature = "train")]
pub mod cross_validate;
pub mod data;
pub mod distribution;
#[cfg(feature = "train")]
pub mod encode;
#[cfg(feature = "train")]
pub mod end_to_end;
pub mod evaluation;
pub mod figures;
#[cfg(feature = "train")]
pub mod finetune;
pub mod finished;
#[cfg(feature = "train")]
pub mod fit;
#[cfg(feature = "train")]
pub mod frozen;
#[cfg(feature = "train")]
pub mod loss;
#[cfg(feature = "train")]
pub mod network;
pub mod paired;
pub mod population;
#[cfg(feature = "train")]
pub mod reference;
pub mod report;
pub mod split;
pub mod table;
#[cfg(feature = "train")]
pub mod trainer;
#[cfg(feature = "train")]
pub mod weights;
pub mod written;

pub use calibrate::Threshold;
pub use data::{DataError, LabelledImages, Sample};
pub use distribution::OutOfDistribution;
pub use evaluation::{Evaluation, FoldAnswers, HeadEvaluation};
pub use figures::HeadFigures;
pub use paired::PairedTest;
pub use population::{population, set_population};
pub use split::{Fold, Protocol, SplitError};

use crate::domain::{Expansion, GradeClass, Head, Letter, Truth};

/// What a network says of one picture on one head, and what the label says.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Index of the true class.
    pub truth: usize,
    /// Finite logits in class order, before any temperature.
    pub logits: Vec<f32>,
}

impl Scored {
    /// Index of the class that is answered: the first of the largest logits, as
    /// [`HeadGrade::from_logits`](crate::domain::HeadGrade::from_logits) has it.
    #[must_use]
    pub fn answer(&self) -> usize {
        let largest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.logits.iter().position(|logit| *logit >= largest).unwrap_or(0)
    }

    /// Whether the answer is the true class.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.answer() == self.truth
    }

    /// Softmax of `logits / temperature`, in class order, not rounded.
    #[must_use]
    pub fn probabilities(&self, temperature: f64) -> Vec<f64> {
        let shifted = self.shifted(temperature);
        let sum: f64 = shifted.iter().map(|logit| logit.exp()).sum();
        shifted.iter().map(|logit| logit.exp() / sum).collect()
    }

    /// Probability of the answer, 0 to 1.
    #[must_use]
    pub fn confidence(&self, temperature: f64) -> f64 {
        // The largest of the shifted logits is 0.
        1.0 / self.shifted(temperature).iter().map(|logit| logit.exp()).sum::<f64>()
    }

    /// Negative logarithm of the probability of the true class, nats.
    #[must_use]
    pub fn nll(&self, temperature: f64) -> f64 {
        let shifted = self.shifted(temperature);
        let sum: f64 = shifted.iter().map(|logit| logit.exp()).sum();
        sum.ln() - shifted.get(self.truth).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// Logits over the temperature, less the largest, so that no exponential overflows.
    fn shifted(&self, temperature: f64) -> Vec<f64> {
        let largest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.logits.iter().map(|logit| (f64::from(*logit) - f64::from(largest)) / temperature).collect()
    }
}

/// The classes of a head as they are written, in the order of the logits.
#[must_use]
pub fn class_labels(head: Head) -> Vec<&'static str> {
    match head {
        Head::Exp => Expansion::ALL.iter().map(|class| class.label()).collect(),
        Head::Icm | Head::Te => Letter::ALL.iter().map(|class| class.label()).collect(),
    }
}

/// The true class of a head as an index into its classes; `None` where the label has no grade.
#[must_use]
pub fn class_index(truth: &Truth, head: Head) -> Option<usize> {
    let letter = match head {
        Head::Exp => return truth.exp.map(|exp| usize::from(u8::from(exp)) - 1),
        Head::Icm => truth.icm,
        Head::Te => truth.te,
    };
    letter.map(|letter| letter as usize)
}

/// Why there is no trained model.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A file of initial weights that cannot be used.
    #[error("initial weights: {}: {reason}", path.display())]
    Init {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The set cannot be cut.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// An encoder or bundle cannot be used.
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    /// An encoder failed on a picture.
    #[error("encoding the pictures: {0}")]
    Encode(String),
    /// The loss is no longer a number.
    #[error("training diverged in epoch {epoch} at a learning rate of {learning_rate}: choose a lower one")]
    Diverged {
        /// The epoch, from 0.
        epoch: usize,
        /// The highest learning rate of the schedule.
        learning_rate: f64,
    },
    /// A file could not be written.
    #[error("{} cannot be written: {reason}", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HeadGrade;

    #[test]
    fn an_answer_is_the_one_that_the_service_would_give() {
        for logits in [vec![0.3, -1.2, 2.5], vec![1.0, 1.0, 0.0], vec![900.0, -900.0, 899.0]] {
            for temperature in [0.05, 1.0, 3.7] {
                let service = HeadGrade::<Letter>::from_logits(&logits, temperature).unwrap();
                let scored = Scored { truth: 1, logits: logits.clone() };
                assert_eq!(service.grade as usize, scored.answer());
                assert!((service.confidence - scored.confidence(temperature)).abs() <= 0.5e-4);
                for ((_, theirs), ours) in service.probabilities.iter().zip(scored.probabilities(temperature))
                {
                    assert!((theirs - ours).abs() <= 0.5e-4 + 1e-12);
                }
                assert!(scored.nll(temperature).is_finite());
            }
        }
    }

    #[test]
    fn classes_are_numbered_in_the_order_of_the_logits() {
        let stage = crate::domain::DevelopmentStage::Blastocyst;
        let truth = Truth { stage, exp: Some(Expansion::E6), icm: None, te: Some(Letter::C) };
        assert_eq!(class_index(&truth, Head::Exp), Some(5));
        assert_eq!(class_index(&truth, Head::Icm), None);
        assert_eq!(class_index(&truth, Head::Te), Some(2));
        assert_eq!(class_labels(Head::Exp), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(class_labels(Head::Te), ["A", "B", "C"]);
    }
}

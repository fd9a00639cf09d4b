//! The training room: from labelled pictures to a bundle, and to figures that say how good it is.
//!
//! [`data`] reads a labelled set, [`split`] cuts it, [`figures`] measures answers against labels,
//! [`paired`] compares two ways of training, [`calibrate`] makes confidences honest, [`report`] shows
//! it all. These need no training stack. What does is behind the cargo feature `train`.

pub mod data;

pub use data::{LabelledImages, Sample};

use crate::domain::{Head, Truth};

/// What a network says of one picture on one head, and what the label says.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Index of the true class.
    pub truth: usize,
    /// Logits in class order, before any temperature.
    pub logits: Vec<f32>,
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

#[cfg(feature = "train")]
pub mod augment;
#[cfg(feature = "train")]
pub mod finetune;
#[cfg(feature = "train")]
pub mod fit;
#[cfg(feature = "train")]
pub mod loss;
#[cfg(feature = "train")]
pub mod network;
#[cfg(feature = "train")]
pub mod weights;

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

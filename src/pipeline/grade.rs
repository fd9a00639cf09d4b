//! The grader: a model behind a small synchronous trait, each instance on a thread of its own.

use std::time::Duration;

use crate::domain::{AbstainReason, GraderIdentity, Heads, Picture};

/// What the model says about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// The heads.
    pub heads: Heads,
    /// Non-empty when the bundle's thresholds say that this is not good enough to be a grade.
    pub reasons: Vec<AbstainReason>,
}

/// The model's answer for one picture was not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model's output is not finite")]
pub struct NotFinite;

/// The answer to one batch.
#[derive(Debug)]
pub struct GradedBatch {
    /// One answer per picture, in order.
    pub opinions: Vec<Result<Opinion, NotFinite>>,
    /// Time in the embedding model.
    pub embedding: Duration,
    /// Time in the multitask model.
    pub multitask: Duration,
}

/// The model could not run: the device, the memory, or an input it chokes on.
#[derive(Debug, thiserror::Error)]
#[error("inference failed: {0}")]
pub struct GraderError(pub String);

/// A loaded model. Synchronous and single-threaded by contract: one instance per thread and device.
pub trait Grader: Send {
    /// What every event says about this grader.
    fn identity(&self) -> &GraderIdentity;

    /// Side of the square picture the model wants, pixels.
    fn input_side_px(&self) -> usize;

    /// Largest number of pictures in one call of [`Grader::grade`].
    fn max_batch_frames(&self) -> usize;

    /// Runs every batch size once on a picture of its own, so that the first real frame meets no
    /// kernel search and no memory growth. Also the self-test after a failure.
    ///
    /// # Errors
    /// When a run fails or its output is not finite.
    fn warm_up(&mut self) -> Result<(), GraderError>;

    /// Grades 1 to [`Grader::max_batch_frames`] pictures. The answer for a picture does not depend
    /// on the others in the batch.
    ///
    /// # Errors
    /// When the batch as a whole could not be run.
    fn grade(&mut self, pictures: &[&Picture]) -> Result<GradedBatch, GraderError>;
}

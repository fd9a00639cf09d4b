//! The grader: a model behind a small synchronous trait, each instance on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::domain::{AbstainReason, GraderIdentity, Heads, Picture, Population, Rejection, RejectionCode};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// What the model says about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// The heads.
    pub heads: Heads,
    /// Non-empty when the bundle's thresholds say that this is not good enough to be a grade.
    pub reasons: Vec<AbstainReason>,
    /// Mahalanobis distance of the picture's embedding from the training set, where the model knows it.
    pub training_distance: Option<f64>,
    /// The embedding of the picture, of the same length for every picture of a model.
    pub embedding: Box<[f32]>,
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

    /// What drift is measured against, where the model knows it.
    fn population(&self) -> Option<Arc<Population>>;

    /// Side of the square picture the model wants, pixels.
    fn input_side_px(&self) -> usize;

    /// Largest number of pictures in one call of [`Grader::grade`].
    fn max_batch_frames(&self) -> usize;

    /// Runs every batch size once on a picture of its own, so that the first real frame meets no
    /// kernel search and no memory growth, and makes sure that answers do not depend on the batch. Also
    /// the self-test after a failure.
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

/// An idle grader asks for a batch.
#[derive(Debug)]
pub struct BatchRequest<T> {
    /// Which model the grader has: each one that replaces another has a higher number. Once a grader of a newer
    /// model has asked, an older one gets no batch any more.
    pub generation: u64,
    /// Where the batch goes. Dropping it ends the grader.
    pub reply: oneshot::Sender<Vec<T>>,
}

/// What the pool needs of the frames it grades.
pub trait HasPicture: Send + 'static {
    /// The picture to grade.
    fn picture(&self) -> &Picture;
}

/// The answer for one frame.
#[derive(Debug)]
pub struct Judged<T> {
    /// The frame that was graded.
    pub frame: T,
    /// What the model says, or why it could not.
    pub opinion: Result<Opinion, Rejection>,
    /// When its batch went into the models.
    pub started: Instant,
    /// Time in both models for its whole batch.
    pub inference: Duration,
}

/// Runs one grader on the current thread until nobody forms batches any more, or none for this generation.
///
/// An idle grader asks for a batch by sending a [`BatchRequest`], so that a batch is formed as late,
/// hence as full, as possible. Results go to
/// `judged` one by one; it may block.
///
/// # Errors
/// When the device fails: the frames of the batch are dropped unsettled and read again.
pub fn run<T: HasPicture>(
    grader: &mut dyn Grader,
    generation: u64,
    requests: &mpsc::Sender<BatchRequest<T>>,
    judged: &dyn Fn(Judged<T>),
    metrics: &Metrics,
    health: &Health,
) -> Result<(), GraderError> {
    loop {
        let (reply, batch) = oneshot::channel();
        if requests.blocking_send(BatchRequest { generation, reply }).is_err() {
            return Ok(());
        }
        let Ok(frames) = batch.blocking_recv() else { return Ok(()) };
        let started = Instant::now();
        let pictures: Vec<&Picture> = frames.iter().map(HasPicture::picture).collect();
        let running = health.inference_started();
        let answers = grade_or_isolate(grader, &pictures, metrics);
        running.finished(answers.is_ok());
        let inference = started.elapsed();
        metrics.stage_seconds("grade", inference);
        for (frame, opinion) in frames.into_iter().zip(answers?) {
            judged(Judged { frame, opinion, started, inference });
        }
    }
}

/// Grades a batch; when that fails, once more, and then frame by frame to find the one to blame.
///
/// A frame that fails alone is to blame only if the grader still passes its self-test.
fn grade_or_isolate(
    grader: &mut dyn Grader,
    pictures: &[&Picture],
    metrics: &Metrics,
) -> Result<Vec<Result<Opinion, Rejection>>, GraderError> {
    for attempt in 1..=2 {
        match grade_once(grader, pictures, metrics) {
            Ok(opinions) => return Ok(opinions),
            Err(error) => tracing::warn!(%error, attempt, frames = pictures.len(), "batch failed"),
        }
    }
    let mut opinions = Vec::with_capacity(pictures.len());
    for picture in pictures {
        match grade_once(grader, &[picture], metrics) {
            Ok(alone) => opinions.extend(alone),
            Err(error) => {
                grader.warm_up()?;
                opinions.push(Err(Rejection::new(
                    RejectionCode::InferenceFailed,
                    format!("{error}; the model's self-test passes, so this frame is to blame"),
                )));
            }
        }
    }
    Ok(opinions)
}

fn grade_once(
    grader: &mut dyn Grader,
    pictures: &[&Picture],
    metrics: &Metrics,
) -> Result<Vec<Result<Opinion, Rejection>>, GraderError> {
    let graded = grader.grade(pictures)?;
    if graded.opinions.len() != pictures.len() {
        let (got, asked) = (graded.opinions.len(), pictures.len());
        return Err(GraderError(format!("the grader answered {got} of {asked} pictures")));
    }
    metrics.inference_seconds("embedding", graded.embedding);
    metrics.inference_seconds("multitask", graded.multitask);
    let rejection = |error: NotFinite| Rejection::new(RejectionCode::OutputNotFinite, error.to_string());
    Ok(graded.opinions.into_iter().map(|opinion| opinion.map_err(rejection)).collect())
}

#[cfg(test)]
#[path = "grade/tests.rs"]
mod tests;

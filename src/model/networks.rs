//! Both networks of a bundle on one device, with the buffers that a batch is built in.

use ort::environment::Environment;
use ort::session::SessionOutputs;
use ort::value::TensorRef;

use super::ModelError;
use super::bundle::Bundle;
use super::contract::{DISTANCE, EMBEDDING, Extras, IMAGE, check_embedding, check_multitask, check_opset};
use super::device::Device;
use super::loaded::Loaded;
use super::manifest::ModelFile;
use super::multitask::EMBEDDING_WIDTH;
use super::runs::{Run, padded};
use super::tensor::{Images, failed, output, outside, part};
use crate::pipeline::grade::GraderError;

pub(super) struct Networks {
    pub(super) embedding: Loaded,
    pub(super) multitask: Loaded,
    /// What the multitask network answers besides grades.
    pub(super) extras: Extras,
    pub(super) images: Images,
    /// `[frames, 384]`
    embeddings: Vec<f32>,
}

impl Networks {
    /// Loads both networks, with space for batches of the largest of `batch_sizes`.
    ///
    /// # Errors
    /// [`ModelError`] saying which network or device is wrong.
    pub(super) fn load(
        environment: &Environment,
        bundle: &Bundle,
        device: Device,
        batch_sizes: &[usize],
    ) -> Result<Self, ModelError> {
        let manifest = bundle.manifest();
        let files = &manifest.files;
        let sizes = |file: &ModelFile| (batch_sizes, file.max_batch_frames);
        let (embedding, ()) =
            Loaded::new(environment, device, bundle.embedding(), sizes(&files.embedding), |session| {
                check_opset(session, files.embedding.opset)?;
                check_embedding(session)
            })?;
        let (multitask, extras) = Loaded::new(
            environment,
            device,
            bundle.multitask(),
            sizes(&files.multitask),
            |session| {
                check_opset(session, files.multitask.opset)?;
                let extras = check_multitask(session)?;
                if manifest.out_of_distribution.is_some() && !extras.distance {
                    return Err(format!(
                        "has no output {DISTANCE}, which the manifest's out_of_distribution is about; export the \
                         network with the reference of its training set, or take the limit out"
                    ));
                }
                Ok(extras)
            },
        )?;
        let largest = batch_sizes.last().copied().unwrap_or(1);
        let frames = padded(largest, &embedding.sizes).max(padded(largest, &multitask.sizes));
        Ok(Self {
            embedding,
            multitask,
            extras,
            images: Images::new(environment, device, &manifest.input, frames)?,
            embeddings: vec![0.0; frames * EMBEDDING_WIDTH],
        })
    }

    /// Fills the embeddings of a run from its images.
    pub(super) fn embed(&mut self, run: Run) -> Result<(), GraderError> {
        let outputs = self.embedding.run(run.frames, ort::inputs![IMAGE => self.images.tensor(run)?])?;
        let answer = output(&outputs, EMBEDDING, run.frames * EMBEDDING_WIDTH)?;
        let first = run.first_frame * EMBEDDING_WIDTH;
        let target = self.embeddings.get_mut(first..first + answer.len()).ok_or_else(outside)?;
        target.copy_from_slice(answer);
        Ok(())
    }

    /// Runs the multitask network on images and embeddings of a run. Gives the embeddings back too.
    pub(super) fn opine(&mut self, run: Run) -> Result<Said<'_>, GraderError> {
        let embeddings = part(&self.embeddings, run, EMBEDDING_WIDTH)?;
        let embedding =
            TensorRef::from_array_view(([run.frames, EMBEDDING_WIDTH], embeddings)).map_err(failed)?;
        let inputs = ort::inputs![IMAGE => self.images.tensor(run)?, EMBEDDING => embedding];
        let outputs = self.multitask.run(run.frames, inputs)?;
        Ok(Said { frames: run.frames, extras: self.extras, embeddings, outputs })
    }
}

/// What the multitask network says of the frames of a run, padding included.
pub(super) struct Said<'a> {
    pub(super) frames: usize,
    extras: Extras,
    /// `[frames, 384]`
    pub(super) embeddings: &'a [f32],
    outputs: SessionOutputs<'a>,
}

impl Said<'_> {
    /// An output, `width` values per frame.
    pub(super) fn output(&self, name: &str, width: usize) -> Result<&[f32], GraderError> {
        output(&self.outputs, name, self.frames * width)
    }

    /// The distances from the training set, where the network knows them.
    pub(super) fn distances(&self) -> Result<Option<&[f32]>, GraderError> {
        self.extras.distance.then(|| self.output(DISTANCE, 1)).transpose()
    }
}

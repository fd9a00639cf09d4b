//! Pictures as the tensor that a network takes, and the tensors that it answers.

use ort::environment::Environment;
use ort::session::{SessionInputValue, SessionOutputs};
use ort::value::TensorRef;

use super::ModelError;
use super::device::Device;
use super::manifest::Input;
use super::runs::Run;
use super::uploaded::UploadedImages;
use crate::domain::Picture;
use crate::pipeline::grade::GraderError;

pub(super) const CHANNELS: usize = 3;
/// What each grey value becomes in each channel.
pub(super) type Tables = [[f32; 256]; CHANNELS];

/// Space for the pictures of a batch, `[frames, 3, side, side]`, normalised.
pub(super) enum Images {
    /// In main memory.
    Host(HostImages),
    /// In the memory of a GPU.
    Uploaded(UploadedImages),
}

impl Images {
    /// Space for `frames` pictures, padding included, where the networks of `device` want them.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device has none.
    pub(super) fn new(
        environment: &Environment,
        device: Device,
        input: &Input,
        frames: usize,
    ) -> Result<Self, ModelError> {
        match device.memory() {
            None => Ok(Self::Host(HostImages::new(input, frames))),
            Some(memory) => {
                let images = UploadedImages::new(environment, device, memory?, input, frames)?;
                Ok(Self::Uploaded(images))
            }
        }
    }

    pub(super) fn side_px(&self) -> usize {
        match self {
            Self::Host(images) => images.side_px,
            Self::Uploaded(images) => images.side_px(),
        }
    }

    /// Takes the pictures of a batch.
    ///
    /// # Errors
    /// When a picture has another size, or there are too many.
    pub(super) fn fill(&mut self, pictures: &[&Picture]) -> Result<(), GraderError> {
        let expected = self.side_px();
        if let Some(odd) = pictures.iter().find(|picture| picture.side_px() != expected) {
            let found = odd.side_px();
            return Err(GraderError(format!("picture of {found} pixels a side, expected {expected}")));
        }
        match self {
            Self::Host(images) => images.fill(pictures),
            Self::Uploaded(images) => images.fill(pictures)?,
        }
        Ok(())
    }

    /// The pictures of a run, `[frames, 3, side, side]`.
    ///
    /// # Errors
    /// When the run reaches past the space, or the GPU fails.
    pub(super) fn tensor(&mut self, run: Run) -> Result<SessionInputValue<'_>, GraderError> {
        match self {
            Self::Host(images) => Ok(images.tensor(run)?.into()),
            Self::Uploaded(images) => Ok(images.tensor(run)?.into()),
        }
    }
}

/// Pictures in main memory.
pub(super) struct HostImages {
    side_px: usize,
    normalised: Box<Tables>,
    values: Vec<f32>,
}

impl HostImages {
    pub(super) fn new(input: &Input, frames: usize) -> Self {
        let values = vec![0.0; frames * CHANNELS * input.side_px * input.side_px];
        Self { side_px: input.side_px, normalised: Box::new(normalised(input)), values }
    }

    /// Writes the pictures, each three times, and zeros behind them.
    pub(super) fn fill(&mut self, pictures: &[&Picture]) {
        let planes = self.values.chunks_exact_mut(self.side_px * self.side_px);
        let sources =
            pictures.iter().flat_map(|picture| self.normalised.iter().map(|lut| (picture.grey(), lut)));
        let mut planes = planes.into_iter();
        for ((grey, lut), plane) in sources.zip(planes.by_ref()) {
            for (target, value) in plane.iter_mut().zip(grey) {
                *target = lut[usize::from(*value)];
            }
        }
        planes.for_each(|plane| plane.fill(0.0));
    }

    pub(super) fn tensor(&self, run: Run) -> Result<TensorRef<'_, f32>, GraderError> {
        let values = part(&self.values, run, CHANNELS * self.side_px * self.side_px)?;
        let shape = [run.frames, CHANNELS, self.side_px, self.side_px];
        TensorRef::from_array_view((shape, values)).map_err(failed)
    }
}

pub(super) fn normalised(input: &Input) -> Tables {
    std::array::from_fn(|channel| {
        #[allow(clippy::cast_possible_truncation, reason = "single precision is what the network takes")]
        let (mean, std) = (input.mean[channel] as f32, input.std[channel] as f32);
        std::array::from_fn(|grey| {
            #[allow(clippy::cast_precision_loss, reason = "0 to 255 are exact in f32")]
            let value = grey as f32 / 255.0;
            (value - mean) / std
        })
    })
}

/// The values of an output, which must be as many as the contract says.
pub(super) fn output<'a>(
    outputs: &'a SessionOutputs<'_>,
    name: &str,
    length: usize,
) -> Result<&'a [f32], GraderError> {
    let value = outputs.get(name).ok_or_else(|| GraderError(format!("no output {name}")))?;
    let (_, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
    if values.len() == length {
        return Ok(values);
    }
    Err(GraderError(format!("output {name} has {} values, expected {length}", values.len())))
}

/// What belongs to the frames of a run.
pub(super) fn part<T>(values: &[T], run: Run, per_frame: usize) -> Result<&[T], GraderError> {
    values.get(run.first_frame * per_frame..(run.first_frame + run.frames) * per_frame).ok_or_else(outside)
}

pub(super) fn outside() -> GraderError {
    GraderError("batch reaches past its buffer".to_owned())
}

pub(super) fn failed(error: ort::Error) -> GraderError {
    GraderError(error.to_string())
}

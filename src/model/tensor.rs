//! Pictures as the tensor that a network takes, and the tensors that it answers.

use ort::session::SessionOutputs;
use ort::value::TensorRef;

use super::manifest::Input;
use super::runs::Run;
use crate::domain::Picture;
use crate::pipeline::grade::GraderError;

const CHANNELS: usize = 3;

/// Space for the pictures of a batch, `[frames, 3, side, side]`, normalised.
pub(super) struct Images {
    side_px: usize,
    /// What each grey value becomes in each channel.
    normalised: [[f32; 256]; CHANNELS],
    values: Vec<f32>,
}

impl Images {
    /// Space for `frames` pictures, padding included.
    pub(super) fn new(input: &Input, frames: usize) -> Self {
        let values = vec![0.0; frames * CHANNELS * input.side_px * input.side_px];
        Self { side_px: input.side_px, normalised: normalised(input), values }
    }

    pub(super) fn side_px(&self) -> usize {
        self.side_px
    }

    /// Writes the pictures, each three times, and zeros behind them.
    ///
    /// # Errors
    /// When a picture has another size.
    pub(super) fn fill(&mut self, pictures: &[&Picture]) -> Result<(), GraderError> {
        if let Some(odd) = pictures.iter().find(|picture| picture.side_px() != self.side_px) {
            let (found, expected) = (odd.side_px(), self.side_px);
            return Err(GraderError(format!("picture of {found} pixels a side, expected {expected}")));
        }
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
        Ok(())
    }

    /// The pictures of a run.
    pub(super) fn tensor(&self, run: Run) -> Result<TensorRef<'_, f32>, GraderError> {
        let values = part(&self.values, run, CHANNELS * self.side_px * self.side_px)?;
        let shape = [run.frames, CHANNELS, self.side_px, self.side_px];
        TensorRef::from_array_view((shape, values)).map_err(failed)
    }
}

fn normalised(input: &Input) -> [[f32; 256]; CHANNELS] {
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
pub(super) fn part(values: &[f32], run: Run, per_frame: usize) -> Result<&[f32], GraderError> {
    values.get(run.first_frame * per_frame..(run.first_frame + run.frames) * per_frame).ok_or_else(outside)
}

pub(super) fn outside() -> GraderError {
    GraderError("batch reaches past its buffer".to_owned())
}

pub(super) fn failed(error: ort::Error) -> GraderError {
    GraderError(error.to_string())
}

//! A network that turns pictures into vectors, alone: what training on frozen features starts from.

use super::bundle::{Bundle, Network};
use super::contract::{EMBEDDING, IMAGE, check_encoder};
use super::device::Device;
use super::loaded::Loaded;
use super::manifest::Input;
use super::multitask::EMBEDDING_WIDTH;
use super::runs::{padded, runs};
use super::tensor::{Images, output};
use super::{ModelError, ModelSettings, cores, runtime, warm_up};
use crate::domain::Picture;
use crate::pipeline::grade::GraderError;

/// A loaded network with one input, `image`, and one output, a vector per picture.
pub struct Encoder {
    network: Loaded,
    output: String,
    width: usize,
    max_batch_frames: usize,
    images: Images,
}

impl Encoder {
    /// The embedding network of a bundle, as the grader runs it: 384 values per picture.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn of_bundle(settings: &ModelSettings, bundle: &Bundle) -> Result<Self, ModelError> {
        let (manifest, network) = (bundle.manifest(), bundle.embedding());
        let limit = manifest.files.embedding.max_batch_frames;
        Self::load(settings, network, (EMBEDDING, EMBEDDING_WIDTH), limit, &manifest.input)
    }

    /// Loads a network whose output, name and length, is `output`, and runs it once. `input` says how
    /// pictures are normalised, `max_batch_frames` how many it may take at once: 1 for dynamic int8.
    ///
    /// # Errors
    /// [`ModelError`] saying which setting, network or device is wrong and what to do.
    pub fn load(
        settings: &ModelSettings,
        network: &Network,
        (output, width): (&str, usize),
        max_batch_frames: usize,
        input: &Input,
    ) -> Result<Self, ModelError> {
        settings.validate()?;
        let environment = runtime::environment(&settings.runtime, settings.intra_op_threads)?;
        Device::first_usable(settings.device, settings.device_id, |device| {
            let sizes = (settings.batch_sizes_on(device, cores()), max_batch_frames.max(1));
            let check = |session: &_| check_encoder(session, output, width);
            let (network, ()) = Loaded::new(&environment, device, network, sizes, check)?;
            let max_batch_frames = network.sizes.last().copied().unwrap_or(1);
            let frames = padded(max_batch_frames, &network.sizes);
            let images = Images::new(&environment, device, input, frames)?;
            let mut encoder = Self { network, output: output.to_owned(), width, max_batch_frames, images };
            let warm = warm_up::pictures(input.side_px).unwrap_or_default();
            let failed = |source| ModelError::WarmUp { device: device.to_string(), source };
            encoder.encode(&warm.iter().collect::<Vec<_>>()).map_err(failed)?;
            Ok(encoder)
        })
    }

    /// Length of a vector.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vectors of any number of pictures, one after the other.
    ///
    /// # Errors
    /// When a picture has another size, the network cannot be run, or a value is not finite.
    pub fn encode(&mut self, pictures: &[&Picture]) -> Result<Vec<f32>, GraderError> {
        let mut vectors = Vec::with_capacity(pictures.len() * self.width);
        for batch in pictures.chunks(self.max_batch_frames) {
            let end = vectors.len() + batch.len() * self.width;
            self.images.fill(batch)?;
            for run in runs(batch.len(), &self.network.sizes) {
                let inputs = ort::inputs![IMAGE => self.images.tensor(run)?];
                let outputs = self.network.run(run.frames, inputs)?;
                vectors.extend_from_slice(output(&outputs, &self.output, run.frames * self.width)?);
            }
            vectors.truncate(end);
        }
        match vectors.iter().position(|value| !value.is_finite()) {
            None => Ok(vectors),
            Some(at) => {
                let (picture, count, output) = (at / self.width + 1, pictures.len(), &self.output);
                Err(GraderError(format!("output {output} is not finite for picture {picture} of {count}")))
            }
        }
    }
}

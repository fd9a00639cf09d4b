//! Pictures in the memory of a GPU.
//!
//! They cross the bus once per batch, as grey bytes, and are normalised there: a twelfth of the bytes of three planes in
//! single precision, which otherwise cross it twice, once for each network, and take a quarter to half of the time.
//! The values are those of [`HostImages`]: they come out of the same tables.
//!
//! [`HostImages`]: super::tensor::HostImages

use std::path::Path;

use ort::environment::Environment;
use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::value::{DynValue, Tensor};

use super::ModelError;
use super::bundle::Network;
use super::contract::IMAGE;
use super::device::Device;
use super::manifest::Input;
use super::onnx::{Attribute, Dim, GraphBuilder, Storage};
use super::runs::Run;
use super::tensor::{CHANNELS, failed, normalised, outside, part};
use crate::domain::Picture;
use crate::pipeline::grade::GraderError;

const GREY: &str = "grey";

/// Space for the pictures of a batch.
pub(super) struct UploadedImages {
    side_px: usize,
    memory: MemoryInfo<'static>,
    /// From [`GREY`] `u8[b, 1, side, side]` to [`IMAGE`] `f32[b, 3, side, side]`.
    normalise: Session,
    /// `[frames, side * side]`
    grey: Vec<u8>,
    /// What was uploaded last: both networks usually take the whole batch in one run.
    uploaded: Option<(Run, DynValue)>,
}

impl UploadedImages {
    /// Space for `frames` pictures, padding included, in `memory` of `device`.
    pub(super) fn new(
        environment: &Environment,
        device: Device,
        memory: MemoryInfo<'static>,
        input: &Input,
        frames: usize,
    ) -> Result<Self, ModelError> {
        let network = Network::from_bytes(Path::new("normalise.onnx"), network(input))?;
        let normalise = device.session(environment, &network)?;
        let grey = vec![0; frames * input.side_px * input.side_px];
        Ok(Self { side_px: input.side_px, memory, normalise, grey, uploaded: None })
    }

    pub(super) fn side_px(&self) -> usize {
        self.side_px
    }

    /// Takes pictures of the right size, and zeros behind them.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn fill(&mut self, pictures: &[&Picture]) -> Result<(), GraderError> {
        self.uploaded = None;
        let per_frame = self.side_px * self.side_px;
        let (taken, rest) = self.grey.split_at_mut_checked(pictures.len() * per_frame).ok_or_else(outside)?;
        for (picture, target) in pictures.iter().zip(taken.chunks_exact_mut(per_frame)) {
            target.copy_from_slice(picture.grey());
        }
        rest.fill(0);
        Ok(())
    }

    /// The pictures of a run.
    ///
    /// # Errors
    /// When the run reaches past the space, or the GPU fails.
    pub(super) fn tensor(&mut self, run: Run) -> Result<&DynValue, GraderError> {
        let uploaded = match self.uploaded.take() {
            Some(uploaded) if uploaded.0 == run => uploaded,
            _ => (run, self.upload(run)?),
        };
        Ok(&self.uploaded.insert(uploaded).1)
    }

    fn upload(&mut self, run: Run) -> Result<DynValue, GraderError> {
        let grey = part(&self.grey, run, self.side_px * self.side_px)?;
        // A copy of its own: to bind borrowed values on a CPU, ort rc.15 waits for a lock that it holds itself.
        let grey = Tensor::from_array(([run.frames, 1, self.side_px, self.side_px], grey.to_vec()));
        let mut binding = self.normalise.create_binding().map_err(failed)?;
        binding.bind_input(GREY, &grey.map_err(failed)?).map_err(failed)?;
        binding.bind_output_to_device(IMAGE, &self.memory).map_err(failed)?;
        let mut outputs = self.normalise.run_binding(&binding).map_err(failed)?;
        outputs.remove(IMAGE).ok_or_else(|| GraderError(format!("no output {IMAGE}")))
    }
}

/// Looks every grey value up in the table of each channel.
fn network(input: &Input) -> Vec<u8> {
    let mut graph = GraphBuilder::new("normalise", Storage::Single);
    let side = Dim::Fixed(input.side_px);
    let grey = graph.bytes(GREY, &[Dim::Dynamic("batch"), Dim::Fixed(1), side, side]);
    let planes: Vec<_> = (0..)
        .zip(&normalised(input))
        .map(|(channel, table)| {
            let table = graph.constant(&format!("table{channel}"), &[table.len()], table);
            graph.node(&format!("plane{channel}"), "Gather", &[&table, &grey], &[])
        })
        .collect();
    let image = graph.node(IMAGE, "Concat", &planes.iter().collect::<Vec<_>>(), &[Attribute::Int("axis", 1)]);
    graph.output(&image, &[Dim::Dynamic("batch"), Dim::Fixed(CHANNELS), side, side]);
    graph.finish(&[])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ort::memory::{AllocationDevice, AllocatorType, MemoryType};

    use super::*;
    use crate::model::manifest::{Colour, Fit};
    use crate::model::tensor::HostImages;
    use crate::model::{RuntimeSettings, runtime, warm_up};

    const SIDE_PX: usize = 28;
    const FRAMES: usize = 4;

    fn input() -> Input {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        Input { side_px: SIDE_PX, mean, std, colour: Colour::GreyReplicated, fit: Fit::CenterCrop }
    }

    /// As on a GPU, in main memory.
    fn images() -> UploadedImages {
        let settings = RuntimeSettings { library: PathBuf::new(), fetch: true, cache_dir: PathBuf::new() };
        let environment = runtime::environment(&settings, 1).unwrap();
        let memory =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default).unwrap();
        UploadedImages::new(&environment, Device::Cpu, memory, &input(), FRAMES).unwrap()
    }

    fn values(images: &mut UploadedImages, run: Run) -> Vec<f32> {
        images.tensor(run).unwrap().try_extract_tensor::<f32>().unwrap().1.to_vec()
    }

    #[test]
    fn pictures_are_normalised_to_the_same_values_as_in_main_memory() {
        let pictures = warm_up::pictures(SIDE_PX).unwrap();
        let pictures: Vec<&Picture> = pictures.iter().cycle().take(FRAMES).collect();
        let (mut uploaded, mut host) = (images(), HostImages::new(&input(), FRAMES));
        uploaded.fill(&pictures).unwrap();
        host.fill(&pictures);
        for run in [Run { first_frame: 0, frames: FRAMES }, Run { first_frame: 1, frames: 2 }] {
            let expected = host.tensor(run).unwrap();
            assert_eq!(values(&mut uploaded, run), expected.extract_tensor().1);
        }
    }

    #[test]
    fn no_batch_is_taken_for_the_one_before_it() {
        let pictures = warm_up::pictures(SIDE_PX).unwrap();
        let (mut images, run) = (images(), Run { first_frame: 0, frames: 1 });
        images.fill(&[&pictures[0]]).unwrap();
        let first = values(&mut images, run);
        assert_eq!(values(&mut images, run), first);
        images.fill(&[&pictures[1]]).unwrap();
        assert_ne!(values(&mut images, run), first);
    }

    #[test]
    fn more_pictures_than_there_is_space_for_are_refused() {
        let pictures = warm_up::pictures(SIDE_PX).unwrap();
        let too_many: Vec<&Picture> = pictures.iter().cycle().take(FRAMES + 1).collect();
        assert!(images().fill(&too_many).is_err());
        assert!(images().tensor(Run { first_frame: 1, frames: FRAMES }).is_err());
    }
}

//! A network that is loaded, and the batch sizes it is run with.

use std::borrow::Cow;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue, SessionOutputs};

use super::ModelError;
use super::bundle::Network;
use super::device::Device;
use super::runs::usable_sizes;
use super::tensor::{failed, outside};
use crate::pipeline::grade::GraderError;

/// The sessions of a network and the batch sizes they are run with.
pub(super) struct Loaded {
    /// One for all batch sizes, or one for each of them.
    sessions: Vec<Session>,
    /// Rising.
    pub(super) sizes: Vec<usize>,
}

impl Loaded {
    /// Loads a network for a device, and what `check` has found out about it.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot run it, [`ModelError::Bundle`] with what `check`
    /// finds wrong.
    pub(super) fn new<T>(
        environment: &Environment,
        device: Device,
        network: &Network,
        sizes: (&[usize], usize),
        check: impl FnOnce(&Session) -> Result<T, String>,
    ) -> Result<(Self, T), ModelError> {
        let (batch_sizes, max_batch_frames) = sizes;
        let sizes = usable_sizes(batch_sizes, max_batch_frames);
        let session = device.session(environment, network)?;
        let checked = check(&session).map_err(|reason| ModelError::bundle(network.path(), reason))?;
        let mut sessions = vec![session];
        for _ in 1..device.sessions(sizes.len()) {
            sessions.push(device.session(environment, network)?);
        }
        Ok((Self { sessions, sizes }, checked))
    }

    /// One run of named inputs that hold so many frames.
    pub(super) fn run(
        &mut self,
        frames: usize,
        inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)>,
    ) -> Result<SessionOutputs<'_>, GraderError> {
        let last = self.sessions.len().saturating_sub(1);
        let at = self.sizes.iter().position(|size| *size == frames).unwrap_or(last).min(last);
        self.sessions.get_mut(at).ok_or_else(outside)?.run(inputs).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use ort::value::Tensor;

    use super::*;
    use crate::model::onnx::{Dim, GraphBuilder, Storage};
    use crate::model::{RuntimeSettings, runtime};

    /// Adds one to each of its values.
    fn network() -> Network {
        let mut graph = GraphBuilder::new("one_more", Storage::Single);
        let dims = [Dim::Dynamic("b"), Dim::Fixed(2)];
        let input = graph.input("in", &dims);
        let one = graph.constant("one", &[1], &[1.0]);
        let output = graph.node("out", "Add", &[&input, &one], &[]);
        graph.output(&output, &dims);
        Network::from_bytes(Path::new("one_more.onnx"), graph.finish(&[])).unwrap()
    }

    #[test]
    fn each_size_gives_the_same_answers_whether_or_not_it_has_a_session_of_its_own() {
        let settings = RuntimeSettings { library: PathBuf::new(), fetch: true, cache_dir: PathBuf::new() };
        let environment = runtime::environment(&settings, 1).unwrap();
        let network = network();
        let (mut loaded, ()) =
            Loaded::new(&environment, Device::Cpu, &network, (&[1, 2, 4], 2), |_| Ok(())).unwrap();
        assert_eq!((loaded.sessions.len(), loaded.sizes.as_slice()), (1, [1, 2].as_slice()));
        loop {
            for frames in [1, 2, 1] {
                let input = Tensor::from_array(([frames, 2], vec![frames as f32; frames * 2])).unwrap();
                let outputs = loaded.run(frames, ort::inputs!["in" => input]).unwrap();
                let (_, values) = outputs["out"].try_extract_tensor::<f32>().unwrap();
                assert_eq!(values, vec![frames as f32 + 1.0; frames * 2]);
            }
            if loaded.sessions.len() == Device::Cuda(0).sessions(2) {
                break;
            }
            loaded.sessions.push(Device::Cpu.session(&environment, &network).unwrap());
        }
    }
}

//! The model room: from a bundle on disk to [`Grader`]s. The only place that knows ONNX Runtime.
//!
//! A bundle is a folder with a manifest and two networks (see [`bundle`]); [`runtime`] finds the
//! shared library that runs them; [`session`] makes graders of both; [`answer`] and [`encoder`] give
//! what evaluation and training need. [`multitask`] writes the second network.
//!
//! [`Grader`]: crate::pipeline::grade::Grader

pub mod answer;
pub mod bundle;
mod cache;
mod contract;
mod device;
pub mod encoder;
pub mod fitness;
mod inspect;
mod loaded;
pub mod manifest;
pub mod multitask;
mod networks;
pub mod onnx;
mod opt_out;
mod runs;
pub mod runtime;
pub mod session;
mod tensor;
mod uploaded;
mod warm_up;

use std::path::{Path, PathBuf};

pub use answer::{Answer, Map, load_examiner};
pub use bundle::Bundle;
pub use cache::cache_dir;
use device::Device;
pub use device::DevicePolicy;
pub use encoder::Encoder;
pub use manifest::Manifest;
pub use opt_out::opt_out_of_usage_reports;
pub use runtime::RuntimeSettings;
pub use session::{OnnxGrader, load_graders};

use crate::pipeline::grade::GraderError;

/// Most graders (threads with a model each) in one process.
const MAX_GRADERS: usize = 64;
/// Most graders that are started unasked: each holds both models.
const MAX_UNASKED_GRADERS: usize = 8;
/// Most frames in one batch: 256 frames of 224 px take 154 MB as a tensor.
const MAX_BATCH_FRAMES: usize = 256;
/// Most different batch sizes; each is warmed up before the service is ready.
const MAX_BATCH_SIZES: usize = 16;
/// Batch sizes unasked: one thread computes batches of any size nearly equally fast...
const BATCH_SIZES_OF_A_THREAD: &[usize] = &[1, 2];
/// ...several threads wait less for each other in larger ones...
const BATCH_SIZES_OF_THREADS: &[usize] = &[1, 2, 4];
/// ...and a GPU computes large ones several times as fast.
const BATCH_SIZES_ON_A_GPU: &[usize] = &[1, 4, 16, 64];

/// What the model room needs to know.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Folder of the model bundle.
    pub bundle: PathBuf,
    /// What the models run on.
    pub device: DevicePolicy,
    /// Which GPU, from 0, as CUDA counts them.
    pub device_id: u16,
    /// Graders, each a thread with both models loaded. 0: one on a GPU; on a CPU one per core, 8 at most.
    pub graders: usize,
    /// CPU threads that all models share beside those of the graders; 0 divides the cores among the graders.
    pub intra_op_threads: usize,
    /// Batch sizes that are prepared for, rising. A batch is padded up to the next of them. Empty: 1 and 2 for
    /// graders of one thread on a CPU; 1, 2 and 4 for those of several; 1, 4, 16 and 64 on a GPU.
    pub batch_sizes: Vec<usize>,
    /// How often the bundle's folder is looked at for another bundle, which then takes over. 0: only on SIGHUP.
    pub watch_seconds: u64,
    /// Where ONNX Runtime comes from.
    pub runtime: RuntimeSettings,
}

impl ModelSettings {
    /// Checks the limits that the types do not express.
    ///
    /// # Errors
    /// [`ModelError::Settings`] naming the option and its value.
    pub fn validate(&self) -> Result<(), ModelError> {
        if self.graders > MAX_GRADERS {
            return Err(ModelError::Settings(format!("graders is {}, above {MAX_GRADERS}", self.graders)));
        }
        let sizes = &self.batch_sizes;
        let rising = sizes.iter().zip(sizes.iter().skip(1)).all(|(a, b)| a < b);
        let within = sizes.iter().all(|size| (1..=MAX_BATCH_FRAMES).contains(size));
        if sizes.len() > MAX_BATCH_SIZES || !rising || !within {
            return Err(ModelError::Settings(format!(
                "batch_sizes is {sizes:?}, not up to {MAX_BATCH_SIZES} rising numbers within 1 and {MAX_BATCH_FRAMES}"
            )));
        }
        Ok(())
    }

    /// Graders for a device that `cores` stand beside.
    fn graders_on(&self, device: Device, cores: usize) -> usize {
        match (self.graders, device) {
            (0, Device::Cpu) => cores.clamp(1, MAX_UNASKED_GRADERS),
            (0, Device::Cuda(_) | Device::TensorRt(_)) => 1,
            (asked, _) => asked,
        }
    }

    /// Batch sizes for a device that `cores` stand beside, rising.
    fn batch_sizes_on(&self, device: Device, cores: usize) -> &[usize] {
        match (self.batch_sizes.as_slice(), device) {
            ([], Device::Cpu) if self.threads(cores) == 1 => BATCH_SIZES_OF_A_THREAD,
            ([], Device::Cpu) => BATCH_SIZES_OF_THREADS,
            ([], Device::Cuda(_) | Device::TensorRt(_)) => BATCH_SIZES_ON_A_GPU,
            (asked, _) => asked,
        }
    }

    /// The largest batch size that there may be on any device.
    #[must_use]
    pub fn largest_batch_frames(&self) -> usize {
        self.batch_sizes_on(Device::Cuda(0), 1).last().copied().unwrap_or(1)
    }

    /// Threads for each network that runs on the CPU.
    fn threads(&self, cores: usize) -> usize {
        match self.intra_op_threads {
            0 => (cores / self.graders_on(Device::Cpu, cores)).max(1),
            asked => asked,
        }
    }
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Why there is no model to grade with. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// An option has a value that cannot be used.
    #[error("model settings: {0}")]
    Settings(String),
    /// A file of the bundle is missing, damaged, or not what the contract asks for.
    #[error("model bundle: {}: {reason}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache folder cannot be used.
    #[error("cache folder {}: {reason}", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// ONNX Runtime could not be found, fetched or loaded.
    #[error("onnx runtime: {0}")]
    Runtime(String),
    /// The device that was asked for cannot run the models.
    #[error("device {device}: {reason}")]
    Device {
        /// The device as it would be named in events, e.g. `cuda:0`.
        device: String,
        /// Why not.
        reason: String,
    },
    /// The models load and do not grade as they must.
    #[error("warm-up on {device}: {source}")]
    WarmUp {
        /// The device as it would be named in events.
        device: String,
        /// What went wrong.
        source: GraderError,
    },
}

impl ModelError {
    fn bundle(path: &Path, reason: impl Into<String>) -> Self {
        Self::Bundle { path: path.to_owned(), reason: reason.into() }
    }

    fn cache(path: &Path, reason: impl ToString) -> Self {
        Self::Cache { path: path.to_owned(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(graders: usize, batch_sizes: &[usize]) -> ModelSettings {
        ModelSettings {
            bundle: PathBuf::from("models/demo"),
            device: DevicePolicy::Cpu,
            device_id: 0,
            graders,
            intra_op_threads: 0,
            batch_sizes: batch_sizes.to_vec(),
            watch_seconds: 0,
            runtime: RuntimeSettings { library: PathBuf::new(), fetch: false, cache_dir: PathBuf::new() },
        }
    }

    #[test]
    fn batch_sizes_must_rise_and_stay_within_limits() {
        assert!(settings(1, &[1, 2, 4, 8]).validate().is_ok());
        for wrong in [&[0, 1][..], &[2, 2], &[4, 2], &[1, 257]] {
            let error = settings(1, wrong).validate().unwrap_err().to_string();
            assert!(error.contains("batch_sizes"), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn too_many_graders_are_refused() {
        assert!(settings(64, &[1]).validate().is_ok());
        assert!(settings(65, &[1]).validate().is_err());
    }

    #[test]
    fn unasked_a_cpu_gets_a_grader_of_one_thread_per_core_and_a_gpu_one_grader() {
        let unasked = settings(0, &[1]);
        assert_eq!((unasked.graders_on(Device::Cpu, 2), unasked.threads(2)), (2, 1));
        assert_eq!((unasked.graders_on(Device::Cpu, 32), unasked.threads(32)), (8, 4));
        assert_eq!(unasked.graders_on(Device::Cuda(0), 32), 1);
        assert_eq!(unasked.graders_on(Device::TensorRt(0), 32), 1);
    }

    #[test]
    fn unasked_batches_are_small_for_a_thread_larger_for_several_and_large_on_a_gpu() {
        let (unasked, asked) = (settings(0, &[]), settings(0, &[1, 8]));
        assert!(unasked.validate().is_ok());
        assert_eq!(unasked.batch_sizes_on(Device::Cpu, 2), [1, 2]);
        assert_eq!(unasked.batch_sizes_on(Device::Cpu, 32), [1, 2, 4], "8 graders of 4 threads");
        assert_eq!(settings(1, &[]).batch_sizes_on(Device::Cpu, 2), [1, 2, 4]);
        assert_eq!(unasked.batch_sizes_on(Device::TensorRt(0), 2), [1, 4, 16, 64]);
        assert_eq!((unasked.largest_batch_frames(), asked.largest_batch_frames()), (64, 8));
        assert_eq!(asked.batch_sizes_on(Device::Cpu, 2), asked.batch_sizes_on(Device::Cuda(0), 2));
    }

    #[test]
    fn what_is_asked_for_is_what_there_is() {
        let one = settings(1, &[1]);
        assert_eq!((one.graders_on(Device::Cpu, 8), one.threads(8)), (1, 8));
        let three = ModelSettings { intra_op_threads: 2, ..settings(3, &[1]) };
        assert_eq!((three.graders_on(Device::Cuda(0), 8), three.threads(8)), (3, 2));
        assert_eq!(settings(3, &[1]).threads(2), 1);
    }
}

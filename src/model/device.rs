//! What the models run on.

use std::fmt;

use ort::environment::Environment;
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::bundle::Network;

/// What the models run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePolicy {
    /// CUDA, else the CPU when the models do not load there or fail their warm-up; the log says which.
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU through CUDA, or no start.
    Cuda,
    /// An NVIDIA GPU through TensorRT, CUDA for what TensorRT cannot do, or no start. TensorRT picks
    /// its kernels by timing them: the last digits may differ from one start to the next.
    TensorRt,
}

impl DevicePolicy {
    /// As it is written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }
}

/// A device that sessions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Cpu,
    Cuda(u16),
    TensorRt(u16),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(id) => write!(formatter, "cuda:{id}"),
            Self::TensorRt(id) => write!(formatter, "tensorrt:{id}"),
        }
    }
}

impl Device {
    /// What `load` makes for the device that the policy names. Only `auto` has a second choice, for
    /// when the GPU is what fails; a bundle that is wrong is wrong everywhere.
    ///
    /// # Errors
    /// Those of `load`.
    pub(super) fn first_usable<T>(
        policy: DevicePolicy,
        device_id: u16,
        load: impl Fn(Self) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let device = match policy {
            DevicePolicy::Cpu => Self::Cpu,
            DevicePolicy::Auto | DevicePolicy::Cuda => Self::Cuda(device_id),
            DevicePolicy::TensorRt => Self::TensorRt(device_id),
        };
        match load(device) {
            Err(error @ (ModelError::Device { .. } | ModelError::WarmUp { .. }))
                if policy == DevicePolicy::Auto =>
            {
                tracing::warn!(%error, device = %Self::Cpu, "no GPU can be used");
                load(Self::Cpu)
            }
            made => made,
        }
    }

    /// The memory of a GPU; a CPU has none of its own.
    pub(super) fn memory(self) -> Option<Result<MemoryInfo<'static>, ModelError>> {
        let id = match self {
            Self::Cpu => return None,
            Self::Cuda(id) | Self::TensorRt(id) => id,
        };
        let memory =
            MemoryInfo::new(AllocationDevice::CUDA, id.into(), AllocatorType::Device, MemoryType::Default);
        Some(
            memory
                .map_err(|error| ModelError::Device { device: self.to_string(), reason: error.to_string() }),
        )
    }

    /// Sessions that a network of so many batch sizes needs. Since its version 1.20 ONNX Runtime plans every convolution
    /// anew when a session on a GPU meets another shape than the time before, also one that it has met already, and a
    /// ResNet has 20 of them: <https://github.com/microsoft/onnxruntime/issues/23006>. So each size has a session there.
    pub(super) fn sessions(self, sizes: usize) -> usize {
        match self {
            Self::Cpu => 1,
            Self::Cuda(_) | Self::TensorRt(_) => sizes,
        }
    }

    /// Loads a model for this device and no other.
    pub(super) fn session(self, environment: &Environment, network: &Network) -> Result<Session, ModelError> {
        let failed = |reason: String| ModelError::Device { device: self.to_string(), reason };
        let cuda = |id| cuda(id).build().error_on_failure();
        let tensorrt = |id: u16| TensorRT::default().with_device_id(id.into()).build().error_on_failure();
        let providers: Vec<ExecutionProviderDispatch> = match self {
            Self::Cpu => Vec::new(),
            Self::Cuda(id) => vec![cuda(id)],
            Self::TensorRt(id) => vec![tensorrt(id), cuda(id)],
        };
        if self != Self::Cpu && !CUDA::is_available().unwrap_or(false) {
            let advice = "set runtime.library to libonnxruntime.so of onnxruntime-gpu";
            return Err(failed(format!("this onnx runtime is built without CUDA; {advice}")));
        }
        let mut builder = Session::builder(environment)
            .map_err(|error| failed(error.to_string()))?
            .with_deterministic_compute(true)
            .map_err(|error| failed(error.to_string()))?;
        if self == Self::Cpu {
            return builder
                .commit_from_memory(network.data())
                .map_err(|error| ModelError::bundle(network.path(), format!("cannot be loaded: {error}")));
        }
        // A node without a kernel on the GPU would run on the CPU without a word, and every frame
        // would cross the bus twice more.
        builder
            .with_execution_providers(providers)
            .map_err(|error| failed(error.to_string()))?
            .with_disable_cpu_fallback()
            .map_err(|error| failed(error.to_string()))?
            .commit_from_memory(network.data())
            .map_err(|error| failed(format!("{} cannot be loaded: {error}", network.path().display())))
    }
}

/// Arithmetic that is the same at every start: single precision stays single precision, and the
/// algorithm of a convolution follows from its shape. Timing all of them, the default, may end
/// differently each time.
fn cuda(id: u16) -> CUDA {
    CUDA::default()
        .with_device_id(id.into())
        .with_tf32(false)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::pipeline::grade::GraderError;

    /// The devices that were tried when a GPU fails with `error`, and how it ended.
    fn tried(
        policy: DevicePolicy,
        error: impl Fn(String) -> ModelError,
    ) -> (Vec<Device>, Result<Device, ModelError>) {
        let tried = RefCell::new(Vec::new());
        let made = Device::first_usable(policy, 0, |device| {
            tried.borrow_mut().push(device);
            if device == Device::Cpu { Ok(device) } else { Err(error(device.to_string())) }
        });
        (tried.into_inner(), made)
    }

    fn fails_to_load(device: String) -> ModelError {
        ModelError::Device { device, reason: "no such kernel".to_owned() }
    }

    fn fails_its_warm_up(device: String) -> ModelError {
        ModelError::WarmUp { device, source: GraderError("out of memory".to_owned()) }
    }

    #[test]
    fn auto_takes_the_cpu_when_the_gpu_does_not_load_or_fails_its_warm_up() {
        for error in [fails_to_load, fails_its_warm_up] {
            let (tried, made) = tried(DevicePolicy::Auto, error);
            assert_eq!(tried, [Device::Cuda(0), Device::Cpu]);
            assert_eq!(made.unwrap(), Device::Cpu);
        }
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_not_replaced() {
        for (policy, device) in
            [(DevicePolicy::Cuda, Device::Cuda(0)), (DevicePolicy::TensorRt, Device::TensorRt(0))]
        {
            let (tried, made) = tried(policy, fails_its_warm_up);
            assert_eq!(tried, [device]);
            assert!(made.unwrap_err().to_string().contains("out of memory"));
        }
    }

    #[test]
    fn a_wrong_bundle_is_not_tried_elsewhere() {
        let (tried, made) =
            tried(DevicePolicy::Auto, |_| ModelError::bundle(std::path::Path::new("a.onnx"), "is damaged"));
        assert_eq!(tried, [Device::Cuda(0)]);
        assert!(made.is_err());
    }

    #[test]
    fn arithmetic_on_the_gpu_is_pinned() {
        let options = format!("{:?}", cuda(3));
        for option in ["\"use_tf32\": \"false\"", "\"cudnn_conv_algo_search\": \"HEURISTIC\""] {
            assert!(options.contains(option), "{options}");
        }
    }
}

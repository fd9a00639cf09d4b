//! What the models run on.

use std::fmt;

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::session::Session;
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::bundle::Network;

/// What the models run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePolicy {
    /// CUDA, else the CPU; the log says which.
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU through CUDA, or no start.
    Cuda,
    /// An NVIDIA GPU through TensorRT, CUDA for what TensorRT cannot do, or no start.
    TensorRt,
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
    /// The device to take, and the one to take instead when that fails. Only `auto` has one.
    pub(super) fn choose(policy: DevicePolicy, device_id: u16) -> (Self, Option<Self>) {
        match policy {
            DevicePolicy::Auto => (Self::Cuda(device_id), Some(Self::Cpu)),
            DevicePolicy::Cpu => (Self::Cpu, None),
            DevicePolicy::Cuda => (Self::Cuda(device_id), None),
            DevicePolicy::TensorRt => (Self::TensorRt(device_id), None),
        }
    }

    /// Loads a model for this device and no other.
    pub(super) fn session(self, environment: &Environment, network: &Network) -> Result<Session, ModelError> {
        let failed = |reason: String| ModelError::Device { device: self.to_string(), reason };
        let cuda = |id: u16| CUDA::default().with_device_id(id.into()).build().error_on_failure();
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
        let mut builder = Session::builder(environment).map_err(|error| failed(error.to_string()))?;
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

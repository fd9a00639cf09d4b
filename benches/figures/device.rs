//! What the models run on while they are measured: the CPU, or a GPU through CUDA.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::{Args, ValueEnum};
use memebg::model::{DevicePolicy, ModelSettings, RuntimeSettings};
use ort::ep::CUDA;
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::session::builder::SessionBuilder;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Cpu,
    Cuda,
}

/// On the command line.
#[derive(Args)]
pub struct Device {
    /// What the models run on. On a GPU there is no int8: the second bundle is fp16 then.
    #[arg(long, value_enum, default_value = "cpu")]
    device: Kind,
    /// libonnxruntime.so of onnxruntime-gpu, whose Python package is beside that of the bench.
    #[arg(long, required_if_eq("device", "cuda"))]
    library: Option<PathBuf>,
}

impl Device {
    pub fn is_gpu(&self) -> bool {
        self.device == Kind::Cuda
    }

    /// As `model.device` and the Python worker name it.
    pub fn name(&self) -> &'static str {
        if self.is_gpu() { "cuda" } else { "cpu" }
    }

    /// What the second bundle computes in.
    pub fn quick(&self) -> &'static str {
        if self.is_gpu() { "fp16" } else { "int8" }
    }

    /// Frames in a full batch of memebg, unasked and with a thread for each grader.
    pub fn batch(&self) -> usize {
        if self.is_gpu() { 64 } else { 2 }
    }

    /// Graders that memebg starts unasked.
    pub fn graders(&self) -> usize {
        if self.is_gpu() { 1 } else { available_parallelism().map_or(1, usize::from).min(8) }
    }

    /// Options of the service.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![("model.device", self.name().to_owned())];
        if let Some(library) = &self.library {
            options.push(("model.runtime.library", library.display().to_string()));
        }
        options
    }

    /// Makes graders load there.
    pub fn set(&self, settings: &mut ModelSettings) {
        settings.device = if self.is_gpu() { DevicePolicy::Cuda } else { DevicePolicy::Cpu };
        settings.runtime = self.runtime(settings.runtime.clone());
    }

    /// Where ONNX Runtime is.
    pub fn runtime(&self, usual: RuntimeSettings) -> RuntimeSettings {
        RuntimeSettings { library: self.library.as_deref().map_or(usual.library, Path::to_owned), ..usual }
    }

    /// Puts a session on it, with the arithmetic that memebg uses there.
    pub fn on(&self, builder: SessionBuilder) -> SessionBuilder {
        if !self.is_gpu() {
            return builder;
        }
        let cuda =
            CUDA::default().with_tf32(false).with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic);
        builder.with_execution_providers([cuda.build().error_on_failure()]).expect("a GPU")
    }
}

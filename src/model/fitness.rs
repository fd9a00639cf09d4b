//! Whether the models of a configuration run here, for `memebg doctor`. Nothing is fetched.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ort::ep::{CUDA, ExecutionProvider as _, TensorRT};

use super::device::Device;
use super::{DevicePolicy, ModelError, ModelSettings, RuntimeSettings, cores, runtime, session, warm_up};
use crate::domain::GraderIdentity;
use crate::pipeline::grade::{Grader as _, GraderError};

/// The ONNX Runtime that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Its file.
    pub library: PathBuf,
    /// Its version, where the file tells it.
    pub version: Option<String>,
    /// What it was built to run models on.
    pub providers: Vec<&'static str>,
}

/// Graders that work.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitness {
    /// Model and device.
    pub identity: GraderIdentity,
    /// Time in both models for one frame, alone.
    pub one_frame: Duration,
    /// Graders that a service starts.
    pub graders: usize,
    /// CPU threads that the models share.
    pub threads: usize,
    /// Why no GPU is used although one was to be tried.
    pub fallen_back: Option<String>,
    /// Whether the networks say where their heads looked.
    pub maps: bool,
}

fn without_fetching(settings: &ModelSettings) -> ModelSettings {
    // What a service with its own number of graders would do; only one of them is loaded.
    ModelSettings {
        intra_op_threads: settings.threads(cores()),
        graders: 1,
        runtime: RuntimeSettings { fetch: false, ..settings.runtime.clone() },
        ..settings.clone()
    }
}

/// Loads the ONNX Runtime that a service would load. Blocks.
///
/// # Errors
/// When there is none yet, or it cannot be used.
pub fn load_runtime(settings: &ModelSettings) -> Result<Runtime, ModelError> {
    let settings = without_fetching(settings);
    let library = runtime::locate(&settings.runtime)?;
    runtime::environment(&settings.runtime, settings.intra_op_threads)?;
    let version = version_of(&std::fs::read(&library).map_err(|error| ModelError::cache(&library, error))?);
    let mut providers = vec!["cpu"];
    let gpu = [("cuda", CUDA::is_available()), ("tensorrt", TensorRT::is_available())];
    providers.extend(gpu.into_iter().filter(|(_, there)| matches!(there, Ok(true))).map(|(name, _)| name));
    Ok(Runtime { library, version, providers })
}

/// The version that the library's symbols carry, `VERS_1.31.1`. ONNX Runtime tells `ort` its version, which keeps it.
fn version_of(library: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\0VERS_";
    let found = memchr::memmem::find_iter(library, MARK).find_map(|at| {
        let text = library.get(at + MARK.len()..)?.split(|byte| *byte == 0).next()?;
        let is_version = text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        (is_version && text.contains(&b'.')).then_some(text)
    })?;
    String::from_utf8(found.to_vec()).ok()
}

/// Loads one grader as a service loads its graders, warm, and has it grade one frame. Blocks.
///
/// # Errors
/// What would keep a service from starting.
pub fn try_grader(settings: &ModelSettings) -> Result<Fitness, ModelError> {
    let one = without_fetching(settings);
    let (mut graders, fallen_back) = match one.device {
        DevicePolicy::Auto => {
            let on = |device| session::load(&ModelSettings { device, ..one.clone() });
            match on(DevicePolicy::Cuda) {
                Err(error @ (ModelError::Device { .. } | ModelError::WarmUp { .. })) => {
                    (on(DevicePolicy::Cpu)?, Some(error.to_string()))
                }
                loaded => (loaded?, None),
            }
        }
        _ => (session::load(&one)?, None),
    };
    let failed = |device: &str, source| ModelError::WarmUp { device: device.to_owned(), source };
    let grader =
        graders.first_mut().ok_or_else(|| ModelError::Settings("no grader was loaded".to_owned()))?;
    let identity = grader.identity().clone();
    let picture = warm_up::pictures(grader.input_side_px()).and_then(|pictures| pictures.into_iter().next());
    let picture = picture.ok_or_else(|| {
        failed(&identity.device, GraderError("the models want a picture of no size".into()))
    })?;
    let began = Instant::now();
    grader.grade(&[&picture]).map_err(|source| failed(&identity.device, source))?;
    let (one_frame, maps) = (began.elapsed(), grader.has_maps());
    let device = if identity.device == "cpu" { Device::Cpu } else { Device::Cuda(settings.device_id) };
    Ok(Fitness {
        identity,
        one_frame,
        graders: settings.graders_on(device, cores()),
        threads: one.intra_op_threads,
        fallen_back,
        maps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_the_symbols_carry() {
        let library = b"\x7fELF VERS_9.9\0VERS_\0VERS_1.31.1\0VERS_2.0\0";
        assert_eq!(version_of(library).as_deref(), Some("1.31.1"));
        assert_eq!(version_of(b"\x7fELF"), None);
    }
}

//! ONNX Runtime, the model bundle, and a frame that is really graded on the device.

use std::path::Path;
use std::time::Duration;

use super::{Check, within};
use crate::model::{Bundle, DevicePolicy, ModelError, ModelSettings, fitness};

const RUNTIME: &str = "onnx_runtime";
const BUNDLE: &str = "bundle";
const DEVICE: &str = "device";

/// The checks, and what they found out for others.
pub(super) struct Models {
    pub(super) checks: Vec<Check>,
    /// Graders that a service starts, where that is known.
    pub(super) graders: Option<usize>,
    /// Length of both networks.
    pub(super) bundle_bytes: Option<u64>,
    /// Whether they say where they looked, where that is known.
    pub(super) maps: Option<bool>,
}

/// `serve` is whether grades are made with it, and not heat maps alone.
pub(super) async fn check(settings: &ModelSettings, serve: bool, timeout: Duration) -> Models {
    let (own, dir) = (settings.clone(), settings.bundle.clone());
    let (runtime, opened) = tokio::join!(
        within(timeout, move || fitness::load_runtime(&own)),
        within(timeout, move || Bundle::open(&dir).map(|bundle| {
            let bytes = bundle.embedding().data().len() + bundle.multitask().data().len();
            (bundle.manifest().clone(), bundle.identity(), bytes as u64)
        })),
    );
    let mut checks = vec![of_runtime(settings, runtime)];
    let mut bundle_bytes = None;
    match opened {
        Ok(Ok((manifest, identity, bytes))) => {
            bundle_bytes = Some(bytes);
            let digest: String = identity.digest.chars().take(12).collect();
            let (name, version) = (&identity.name, &identity.version);
            let found = format!("{name} {version}, digest {digest}, both networks as the manifest says");
            checks.push(Check::ok(BUNDLE, found));
            checks.push(of_training(manifest.untrained, &settings.bundle));
            checks.push(match manifest.out_of_distribution {
                Some(limit) => Check::ok(
                    "bundle.limit",
                    format!("pictures unlike the training set get no grade (beyond {})", limit.abstain_above),
                ),
                None => Check::warn(
                    "bundle.limit",
                    "no out_of_distribution: whatever is shown to it gets a grade",
                    "train the bundle anew with `memebg train`, which measures the limit",
                ),
            });
        }
        Ok(Err(error)) => checks.push(Check::fail(BUNDLE, error.to_string(), bundle_advice(&error))),
        Err(reason) => checks.push(Check::fail(BUNDLE, reason, "look at the disk that model.bundle lies on")),
    }
    let usable = checks.iter().filter(|check| [RUNTIME, BUNDLE].contains(&check.name.as_str()));
    if usable.into_iter().any(|check| check.status != super::Status::Ok) {
        checks.push(Check::skipped(DEVICE, "needs onnx_runtime and bundle"));
        return Models { checks, graders: None, bundle_bytes, maps: None };
    }
    let own = settings.clone();
    let tried = within(timeout, move || fitness::try_grader(&own)).await;
    let fitness = tried.as_ref().ok().and_then(|tried| tried.as_ref().ok());
    let (graders, maps) = (fitness.map(|it| it.graders), fitness.map(|it| it.maps));
    checks.push(of_device(settings, serve, tried));
    Models { checks, graders, bundle_bytes, maps }
}

fn of_runtime(
    settings: &ModelSettings,
    loaded: Result<Result<fitness::Runtime, ModelError>, String>,
) -> Check {
    match loaded {
        Ok(Ok(fitness::Runtime { library, version, providers })) => Check::ok(
            RUNTIME,
            format!(
                "version {}, built for {}, {}",
                version.as_deref().unwrap_or("not told"),
                providers.join(" and "),
                library.display()
            ),
        ),
        Ok(Err(error)) if settings.runtime.fetch && settings.runtime.library.as_os_str().is_empty() => {
            Check::warn(
                RUNTIME,
                format!("not here yet ({error})"),
                "the service fetches it at its first start, 24 MB from the Python package index; start it, or \
             `memebg grade` with any image, or set model.runtime.library where there is no internet",
            )
        }
        Ok(Err(error)) => Check::fail(
            RUNTIME,
            error.to_string(),
            "set model.runtime.library to libonnxruntime.so, 1.24 or newer, that this user may read",
        ),
        Err(reason) => Check::fail(RUNTIME, reason, "look at the disk that it lies on"),
    }
}

fn of_training(untrained: bool, dir: &Path) -> Check {
    const NAME: &str = "bundle.card";
    if untrained {
        return Check::warn(
            NAME,
            "UNTRAINED: its grades mean nothing",
            "set model.bundle to a trained bundle before anybody looks at the grades",
        );
    }
    if !dir.join("CARD.md").is_file() {
        return Check::warn(
            NAME,
            "there is no CARD.md: nothing says what it was trained on and how good it is",
            "ask whoever made the bundle for its card and put it beside the manifest",
        );
    }
    Check::ok(NAME, "CARD.md says what it was trained on and how good it is")
}

pub(super) fn bundle_advice(error: &ModelError) -> &'static str {
    match error {
        ModelError::Bundle { reason, .. } if reason.contains("cannot be read") => {
            "set model.bundle to the folder of a bundle, all of which this user may read"
        }
        _ => "copy the bundle anew from where it was released; never edit a released one",
    }
}

fn of_device(
    settings: &ModelSettings,
    serve: bool,
    tried: Result<Result<fitness::Fitness, ModelError>, String>,
) -> Check {
    match tried {
        Ok(Ok(fitness)) => {
            let milliseconds = fitness.one_frame.as_secs_f64() * 1e3;
            let (device, precision) = (&fitness.identity.device, &fitness.identity.precision);
            let found = format!("{device} graded a frame in {milliseconds:.0} ms ({precision})");
            match fitness.fallen_back {
                None => Check::ok(DEVICE, found),
                Some(reason) => Check::warn(
                    DEVICE,
                    format!("{found}, no GPU is used: {reason}"),
                    "set model.device = \"cpu\" if that is meant, else \"cuda\", which never falls back",
                ),
            }
        }
        Ok(Err(error)) => {
            let gpu = matches!(settings.device, DevicePolicy::Cuda | DevicePolicy::TensorRt);
            let advice = if gpu && matches!(error, ModelError::Device { .. } | ModelError::WarmUp { .. }) {
                "check the driver with `nvidia-smi`, model.device_id, the CUDA and cuDNN libraries in LD_LIBRARY_PATH \
                 and that model.runtime.library is the build of onnxruntime-gpu; model.device = \"cpu\" does without"
            } else if serve {
                "mend what it names; the service does not start without"
            } else {
                "mend what it names; the board shows no heat maps without"
            };
            Check::fail(DEVICE, error.to_string(), advice)
        }
        Err(reason) => Check::fail(
            DEVICE,
            format!("{reason}: no frame was graded"),
            "try again with a larger --timeout-seconds; TensorRT builds its engines for minutes at the first start",
        ),
    }
}

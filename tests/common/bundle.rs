//! The demo bundle, and a copy of it for tests that are not about its model.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use memebg::model::{DevicePolicy, ModelSettings, RuntimeSettings};
use serde_json::Value;

pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// A bundle on the CPU, one picture at a time.
pub fn settings(bundle: &Path) -> ModelSettings {
    ModelSettings {
        bundle: bundle.to_owned(),
        device: DevicePolicy::Cpu,
        device_id: 0,
        graders: 1,
        intra_op_threads: 0,
        batch_sizes: vec![1],
        watch_seconds: 0,
        runtime: RuntimeSettings { library: PathBuf::new(), fetch: true, cache_dir: PathBuf::new() },
    }
}

/// Copies the demo bundle into `folder` and leaves its limits out: no picture is too strange and no answer too unsure
/// to be graded. Copied and not linked: what a test does to its files is nobody else's business.
pub fn copy_without_limits(folder: &Path) {
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(demo().join("manifest.json")).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("out_of_distribution");
    for head in manifest["heads"].as_object_mut().unwrap().values_mut() {
        head.as_object_mut().unwrap().remove("abstain_below");
    }
    for file in manifest["files"].as_object().unwrap().values() {
        let path = file["path"].as_str().unwrap();
        fs::copy(demo().join(path), folder.join(path)).unwrap();
    }
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

//! The bundles that are compared: the demo's networks in fp32, in int8 for a CPU, and in fp16 for a GPU.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::device::Device;
use crate::peer::{cache, python, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Pictures that the scales of the int8 copy are taken from; no bench looks at these embryos again.
const CALIBRATION: (&str, &str) = ("400", "9");

/// Where they lie.
pub struct Bundles {
    pub fp32: PathBuf,
    /// Int8 on a CPU, fp16 on a GPU.
    pub quick: PathBuf,
}

impl Bundles {
    /// Makes what is not there yet. In short, the demo's bundle stands for both.
    pub fn prepare(short: bool, device: &Device) -> Self {
        let demo = Path::new(ROOT).join("models/demo");
        if short && !device.is_gpu() {
            return Self { fp32: demo.clone(), quick: demo };
        }
        let digest = Sha256::digest(fs::read(demo.join("manifest.json")).expect("a manifest"));
        let made = cache().join(hex::encode(&digest[..6]));
        let fp32 = kept(&made.join("fp32"), |staged| single_precision(&demo, &staged.join("made")));
        let quick = kept(&made.join(device.quick()), |staged| {
            if device.is_gpu() { half(&fp32, staged) } else { eight_bits(&demo, staged) }
        });
        Self { fp32, quick }
    }
}

/// The bundle at `path`; where there is none yet, `make` makes it as `made` in a folder of its own.
fn kept(path: &Path, make: impl FnOnce(&Path)) -> PathBuf {
    if !path.exists() {
        let staged = tempfile::tempdir_in(cache()).expect("a temporary folder");
        make(staged.path());
        fs::create_dir_all(path.parent().expect("a folder")).expect("the cache can be written to");
        fs::rename(staged.path().join("made"), path).expect("the bundle can be kept");
    }
    path.to_owned()
}

/// The demo's bundle with the embedding network unquantised.
fn single_precision(demo: &Path, out: &Path) {
    fs::create_dir_all(out).expect("a folder");
    let mut build = python();
    build.arg(demo.join("build_embedding.py")).args(["--precision", "fp32", "--output"]);
    build.arg(out.join("embedding.onnx"));
    run(build);
    for file in ["multitask.onnx", "population.json"] {
        fs::copy(demo.join(file), out.join(file)).expect("a copy");
    }
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(demo.join("manifest.json")).expect("a manifest")).expect("JSON");
    let network = fs::read(out.join("embedding.onnx")).expect("the network");
    manifest["name"] = json!("demo-fp32");
    let file = &mut manifest["files"]["embedding"];
    file["sha256"] = json!(hex::encode(Sha256::digest(&network)));
    file["bytes"] = json!(network.len());
    file["precision"] = json!("fp32");
    file["max_batch_frames"] = json!(64);
    fs::write(out.join("manifest.json"), format!("{manifest:#}\n")).expect("a manifest");
}

/// The copy that `models/quantize.py` makes.
fn eight_bits(demo: &Path, staged: &Path) {
    let drawn = staged.join("drawn");
    let (pictures, seed) = CALIBRATION;
    let mut draw = std::process::Command::new(env!("CARGO_BIN_EXE_memebg"));
    draw.args(["incubate", "--pictures", pictures, "--seed", seed, "--out"]).arg(&drawn);
    run(draw);
    let mut quantize = python();
    quantize.arg(Path::new(ROOT).join("models/quantize.py")).arg(demo).arg("--calibration").arg(&drawn);
    quantize.arg("--out").arg(staged.join("made"));
    run(quantize);
}

/// The copy that `models/half.py` makes.
fn half(fp32: &Path, staged: &Path) {
    let mut halve = python();
    halve.arg(Path::new(ROOT).join("models/half.py")).arg(fp32);
    halve.arg("--out").arg(staged.join("made"));
    run(halve);
}

//! The model room against a real ONNX Runtime, which is fetched into the cache on first use.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod answers;
#[path = "../common/bundle.rs"]
mod bundle;
#[path = "../common/random_network.rs"]
mod random_network;
mod storage;

use std::fs;
use std::path::Path;

use bundle::demo;
use memebg::domain::{AbstainReason, GradeClass, Picture, Probabilities};
use memebg::model::multitask::{WeightSource, multitask_onnx};
use memebg::model::onnx::{Attribute, Dim, GraphBuilder, Storage, Tensor};
use memebg::model::{Bundle, DevicePolicy, ModelSettings, load_graders as load};
use memebg::pipeline::grade::NotFinite;
use random_network::random_multitask;
use sha2::{Digest, Sha256};

const SIDE_PX: usize = 224;
const BATCH: Dim = Dim::Dynamic("b");

fn settings(bundle: &Path) -> ModelSettings {
    ModelSettings { batch_sizes: vec![1, 2], ..bundle::settings(bundle) }
}

/// As the service has them.
fn eight_at_a_time(bundle: &Path) -> ModelSettings {
    ModelSettings { batch_sizes: vec![1, 2, 4, 8], ..settings(bundle) }
}

fn refusal(settings: &ModelSettings) -> String {
    match load(settings) {
        Ok(_) => panic!("{settings:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

/// A disc of a given brightness and radius on a textured ground: different for every `kind`.
fn picture(kind: usize) -> Picture {
    let radius = 30 + 9 * kind;
    let grey = (0..SIDE_PX * SIDE_PX).map(|index| {
        let (x, y) = (index % SIDE_PX, index / SIDE_PX);
        let inside = x.abs_diff(112).pow(2) + y.abs_diff(112).pow(2) < radius * radius;
        let texture = (x * 7 + y * 13 * (kind + 1)) % 40;
        u8::try_from(if inside { 150 + texture } else { 60 + texture + kind * 3 }).unwrap()
    });
    Picture::new(SIDE_PX, grey.collect()).unwrap()
}

fn change_manifest(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

/// A copy of the demo bundle without its limits, whose manifest has been changed.
fn changed(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    bundle::copy_without_limits(folder);
    change_manifest(folder, change);
}

/// The same with other networks in it, by role, which nobody has trained or calibrated.
fn with_networks(folder: &Path, networks: &[(&str, &[u8])]) {
    changed(folder, |manifest| {
        manifest["untrained"] = true.into();
        for head in ["exp", "icm", "te"] {
            manifest["heads"][head]["temperature"] = 1.into();
        }
        for (role, data) in networks {
            let path = format!("{role}_of_test.onnx");
            fs::write(folder.join(&path), data).unwrap();
            let file = manifest["files"][role].as_object_mut().unwrap();
            file.insert("path".to_owned(), path.into());
            file.insert("sha256".to_owned(), hex::encode(Sha256::digest(data)).into());
            file.insert("bytes".to_owned(), data.len().into());
        }
    });
}

#[test]
fn the_demo_bundle_warms_up_and_says_what_it_is() {
    let mut graders = load(&eight_at_a_time(&demo())).unwrap();
    let grader = graders.first_mut().unwrap();
    grader.warm_up().unwrap();
    let identity = grader.identity();
    assert_eq!((identity.device.as_str(), identity.precision.as_str()), ("cpu", "int8+fp32"));
    assert!(!identity.model.untrained);
    let manifest = fs::read(demo().join("manifest.json")).unwrap();
    assert_eq!(identity.model.digest, hex::encode(Sha256::digest(manifest)));
    assert_eq!((grader.max_batch_frames(), grader.input_side_px()), (8, SIDE_PX));
}

/// A bundle whose answers hang on every value of picture and embedding, and which is never sure: a trained network may
/// overlook what is off, and call two pictures that are no embryos the same with full confidence.
fn sensitive(folder: &Path) {
    with_networks(folder, &[("multitask", &random_multitask(5))]);
}

#[test]
fn an_answer_does_not_depend_on_the_rest_of_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    sensitive(folder.path());
    let mut graders = load(&eight_at_a_time(folder.path())).unwrap();
    let grader = graders.first_mut().unwrap();
    let pictures: Vec<Picture> = (0..8).map(picture).collect();
    let all: Vec<&Picture> = pictures.iter().collect();
    let batch_of_8 = grader.grade(&all).unwrap().opinions;
    assert_eq!(batch_of_8.len(), 8);
    let batch_of_3 = grader.grade(&all[..3]).unwrap().opinions;
    assert_eq!(batch_of_3, batch_of_8[..3]);
    for (alone, expected) in all.iter().zip(&batch_of_8) {
        assert_eq!(&grader.grade(&[alone]).unwrap().opinions[0], expected);
    }
    let first = &batch_of_8[0].as_ref().unwrap().heads.exp.probabilities;
    let last = &batch_of_8[7].as_ref().unwrap().heads.exp.probabilities;
    assert_ne!(first, last, "the network sees a difference between pictures");
}

#[test]
fn a_network_that_looks_across_its_batch_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    sensitive(folder.path());
    change_manifest(folder.path(), |json| json["files"]["embedding"]["max_batch_frames"] = 64.into());
    for batch_sizes in [vec![1, 2], vec![8]] {
        let error = refusal(&ModelSettings { batch_sizes, ..settings(folder.path()) });
        assert!(error.contains("warm-up on cpu") && error.contains("max_batch_frames"), "{error}");
    }
}

/// The expected values come from a separate program: NumPy and ONNX Runtime in Python, on the same
/// pictures, one at a time.
#[test]
fn probabilities_are_those_of_an_independent_program() {
    let folder = tempfile::tempdir().unwrap();
    sensitive(folder.path());
    // Warm, so that the last bit of int8, in which processors differ, does not come through.
    change_manifest(folder.path(), |manifest| {
        for head in ["exp", "icm", "te"] {
            manifest["heads"][head]["temperature"] = 3.into();
        }
    });
    let mut graders = load(&settings(folder.path())).unwrap();
    let batch = graders[0].grade(&[&picture(0), &picture(1)]).unwrap();
    let first = &batch.opinions[0].as_ref().unwrap().heads;
    let second = &batch.opinions[1].as_ref().unwrap().heads;
    near(&first.exp.probabilities, &[0.057, 0.324, 0.043, 0.024, 0.455, 0.096]);
    near(&first.icm.as_ref().unwrap().probabilities, &[0.361, 0.435, 0.202]);
    near(&first.te.as_ref().unwrap().probabilities, &[0.486, 0.472, 0.043]);
    near(&second.exp.probabilities, &[0.019, 0.441, 0.064, 0.030, 0.351, 0.092]);
    assert!(second.icm.is_none() && second.te.is_none(), "no letters at expansion 2");
}

/// Int8 makes a step of the last bit in which two processors differ; swapped channels, a transposed
/// picture or a missing normalisation are off by more than this.
fn near<G: GradeClass>(found: &Probabilities<G>, expected: &[f64]) {
    for ((class, found), expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 0.04, "{class:?}: {found}, expected {expected}");
    }
}

#[test]
fn several_graders_give_the_same_answer() {
    let folder = tempfile::tempdir().unwrap();
    sensitive(folder.path());
    let mut graders = load(&ModelSettings { graders: 2, ..settings(folder.path()) }).unwrap();
    assert_eq!(graders.len(), 2);
    let answers: Vec<_> =
        graders.iter_mut().map(|grader| grader.grade(&[&picture(2)]).unwrap().opinions).collect();
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn an_unsure_model_abstains_when_its_bundle_says_so() {
    let folder = tempfile::tempdir().unwrap();
    sensitive(folder.path());
    change_manifest(folder.path(), |manifest| manifest["heads"]["exp"]["abstain_below"] = 1.0.into());
    let mut graders = load(&settings(folder.path())).unwrap();
    let batch = graders[0].grade(&[&picture(0)]).unwrap();
    assert_eq!(batch.opinions[0].as_ref().unwrap().reasons, [AbstainReason::LowConfidence]);
}

struct OnlyNan(&'static str);

impl WeightSource for OnlyNan {
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32> {
        vec![if name == self.0 { f32::NAN } else { 0.0 }; dims.iter().product()]
    }
}

#[test]
fn a_model_whose_answers_are_not_numbers_fails_its_warm_up() {
    let folder = tempfile::tempdir().unwrap();
    with_networks(
        folder.path(),
        &[("multitask", &multitask_onnx(&mut OnlyNan("te.bias"), &[], Storage::Single, &[]))],
    );
    let error = refusal(&settings(folder.path()));
    assert!(error.contains("warm-up on cpu") && error.contains("not finite"), "{error}");
}

/// The three channel means of the picture, `[b, 3]`: the start of a network small enough for a test.
fn channel_means(graph: &mut GraphBuilder) -> Tensor {
    let image = graph.input("image", &[BATCH, Dim::Fixed(3), Dim::Fixed(SIDE_PX), Dim::Fixed(SIDE_PX)]);
    let pooled = graph.node("pooled", "GlobalAveragePool", &[&image], &[]);
    graph.node("means", "Flatten", &[&pooled], &[Attribute::Int("axis", 1)])
}

/// An output of `width` values that are all `value`.
fn constant(graph: &mut GraphBuilder, name: &str, means: &Tensor, width: usize, value: f32) {
    let weight = graph.weight(&format!("{name}.weight"), &[3, width], &vec![0.0; 3 * width]);
    let bias = graph.weight(&format!("{name}.bias"), &[width], &vec![value; width]);
    let output = graph.node(name, "Gemm", &[means, &weight, &bias], &[]);
    graph.output(&output, &[BATCH, Dim::Fixed(width)]);
}

/// The channel means of most pictures; not numbers, for a black one.
fn square_roots(graph: &mut GraphBuilder, means: &Tensor) -> Tensor {
    // Normalised, black is -2.1, -2.0 and -1.8.
    let lift = graph.weight("lift", &[1, 3], &[1.7; 3]);
    let lifted = graph.node("lifted", "Add", &[means, &lift], &[]);
    graph.node("square_roots", "Sqrt", &[&lifted], &[])
}

fn small_embedding(is_nan_for_black: bool) -> Vec<u8> {
    let mut graph = GraphBuilder::new("small_embedding", Storage::Single);
    let means = channel_means(&mut graph);
    let from = if is_nan_for_black { square_roots(&mut graph, &means) } else { means };
    constant(&mut graph, "embedding", &from, 384, 0.0);
    graph.finish(&[])
}

fn small_multitask(te_is_nan_for_black: bool) -> Vec<u8> {
    small_multitask_with(te_is_nan_for_black, |_, _| {})
}

fn small_multitask_with(te_is_nan_for_black: bool, more: impl FnOnce(&mut GraphBuilder, &Tensor)) -> Vec<u8> {
    let mut graph = GraphBuilder::new("grades_without_embedding", Storage::Single);
    let means = channel_means(&mut graph);
    graph.input("embedding", &[BATCH, Dim::Fixed(384)]);
    for (head, classes) in [("exp", 6), ("icm", 3), ("shared", 4)] {
        constant(&mut graph, head, &means, classes, 0.0);
    }
    more(&mut graph, &means);
    let from = if te_is_nan_for_black { square_roots(&mut graph, &means) } else { means };
    constant(&mut graph, "te", &from, 3, 0.0);
    graph.finish(&[])
}

/// Even if it is the embedding and the next network hides it.
#[test]
fn an_answer_that_is_not_a_number_is_no_grade_and_spares_the_rest_of_the_batch() {
    for (embedding_is_nan, te_is_nan) in [(true, false), (false, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (embedding, multitask) = (small_embedding(embedding_is_nan), small_multitask(te_is_nan));
        with_networks(folder.path(), &[("embedding", &embedding), ("multitask", &multitask)]);
        let mut graders = load(&settings(folder.path())).unwrap();
        let black = Picture::new(SIDE_PX, vec![0; SIDE_PX * SIDE_PX]).unwrap();
        let opinions = graders[0].grade(&[&black, &picture(0)]).unwrap().opinions;
        assert_eq!(opinions[0], Err(NotFinite));
        assert!(opinions[1].is_ok(), "{:?}", opinions[1]);
    }
}

#[test]
fn too_many_frames_and_pictures_of_another_size_are_refused() {
    let mut graders = load(&settings(&demo())).unwrap();
    let one = picture(0);
    assert!(graders[0].grade(&[&one; 3]).unwrap_err().to_string().contains("batch of 3"));
    assert!(graders[0].grade(&[]).is_err());
    let small = Picture::new(8, vec![0; 64]).unwrap();
    assert!(graders[0].grade(&[&small]).unwrap_err().to_string().contains("8 pixels"));
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_stops_the_start() {
    for device in [DevicePolicy::Cuda, DevicePolicy::TensorRt] {
        let error = refusal(&ModelSettings { device, ..settings(&demo()) });
        assert!(error.contains("onnxruntime-gpu"), "{error}");
    }
}

#[test]
fn auto_takes_the_cpu_where_there_is_no_gpu() {
    let graders = load(&ModelSettings { device: DevicePolicy::Auto, ..settings(&demo()) }).unwrap();
    assert_eq!(graders[0].identity().device, "cpu");
}

#[test]
fn a_network_of_another_shape_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    with_networks(folder.path(), &[("embedding", &small_multitask(false))]);
    let error = refusal(&settings(folder.path()));
    assert!(error.contains("embedding_of_test.onnx") && error.contains("more inputs"), "{error}");
}

#[test]
fn a_file_that_is_not_a_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), |manifest| {
        let file = &mut manifest["files"]["embedding"];
        file["path"] = "text.onnx".into();
        file["bytes"] = 4.into();
        file["sha256"] = hex::encode(Sha256::digest(b"text")).into();
    });
    fs::write(folder.path().join("text.onnx"), b"text").unwrap();
    assert!(refusal(&settings(folder.path())).contains("text.onnx"));
}

#[test]
fn a_changed_or_missing_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    bundle::copy_without_limits(folder.path());
    assert!(Bundle::open(folder.path()).is_ok());

    let path = folder.path().join("embedding.onnx");
    let mut data = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("embedding.onnx") && error.contains("cannot be read"), "{error}");

    data[1_000_000] ^= 1;
    fs::write(&path, &data).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("embedding.onnx") && error.contains("sha256"), "{error}");

    data.pop();
    fs::write(&path, &data).unwrap();
    assert!(Bundle::open(folder.path()).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn a_network_with_weights_in_another_file_is_refused_by_name() {
    let mut graph = GraphBuilder::new("embedding", Storage::Single);
    let means = channel_means(&mut graph);
    constant(&mut graph, "embedding", &means, 384, 0.0);
    let mut data = graph.finish(&[]);
    // One more `graph.initializer` { name: "far", data_location: EXTERNAL }: protobuf messages merge
    // when their bytes are joined.
    data.extend(b"\x3a\x09\x2a\x07\x42\x03far\x70\x01");
    let folder = tempfile::tempdir().unwrap();
    with_networks(folder.path(), &[("embedding", &data)]);
    let error = Bundle::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("embedding_of_test.onnx") && error.contains("another file"), "{error}");
}

#[test]
fn a_network_that_says_it_is_untrained_cannot_pass_as_trained() {
    let folder = tempfile::tempdir().unwrap();
    with_networks(folder.path(), &[("multitask", &random_multitask(1))]);
    assert!(Bundle::open(folder.path()).unwrap().identity().untrained);
    change_manifest(folder.path(), |manifest| manifest["untrained"] = false.into());
    let error = Bundle::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("multitask_of_test.onnx") && error.contains("untrained"), "{error}");
}

#[test]
fn what_is_loaded_is_what_was_verified_even_if_the_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    bundle::copy_without_limits(folder.path());
    let bundle = Bundle::open(folder.path()).unwrap();
    fs::write(bundle.embedding().path(), b"another network").unwrap();
    let loaded = hex::encode(Sha256::digest(bundle.embedding().data()));
    assert_eq!(loaded, bundle.manifest().files.embedding.sha256);
}

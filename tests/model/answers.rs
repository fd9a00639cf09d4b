//! What the networks say besides grades, against arithmetic that is written down here once more.

use std::collections::HashMap;
use std::path::Path;

use memebg::domain::{Expansion, HeadGrade};
use memebg::model::bundle::Network;
use memebg::model::multitask::{Reference, resnet18_onnx};
use memebg::model::{Encoder, Manifest, load_examiner};
use memebg::pipeline::grade::Grader as _;

use super::*;

const CELLS: usize = 49;
const FEATURES: usize = 512;
const SHARED: usize = 128;

/// Numbers within [-1, 1) that nobody chose.
pub(super) fn arbitrary(seed: u64, index: usize) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
}

/// A network whose ResNet can be followed by hand: the stem looks at single pixels, the blocks pass
/// on what comes in. The layers behind it have arbitrary weights, which are kept.
#[derive(Default)]
pub(super) struct Wired(pub(super) HashMap<String, Vec<f32>>);

impl WeightSource for Wired {
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32> {
        let length: usize = dims.iter().product();
        let values: Vec<f32> = if name == "stem.weight" {
            let mut values = vec![0.0; length];
            for (channel, kernel) in values.chunks_exact_mut(3 * 49).enumerate() {
                kernel[24] = arbitrary(1, channel) as f32;
            }
            values
        } else if name == "stem.bias" {
            (0..length).map(|channel| arbitrary(2, channel) as f32).collect()
        } else if name.ends_with("downsample.weight") {
            let (channels_in, gain) = (dims[1], if name.starts_with("layer4") { 1.0 } else { 0.0 });
            let mut values = vec![0.0; length];
            for (channel, row) in values.chunks_exact_mut(channels_in).enumerate() {
                row[channel % channels_in] = 1.0 + gain * (channel % 7) as f32 / 7.0;
            }
            values
        } else if name.starts_with("layer") {
            vec![0.0; length]
        } else {
            let fan_in: usize = dims.iter().skip(1).product();
            let bound = if dims.len() == 1 { 0.3 } else { 2.0 * (6.0 / fan_in as f64).sqrt() };
            let seed = name.bytes().fold(7, |seed, byte| 31 * seed % 1_000_003 + u64::from(byte));
            (0..length).map(|index| (bound * arbitrary(seed, index)) as f32).collect()
        };
        self.0.insert(name.to_owned(), values.clone());
        values
    }
}

impl Wired {
    /// The feature maps `[512][49]` of a picture.
    fn feature_maps(&self, picture: &Picture) -> Vec<Vec<f64>> {
        let input = Manifest::from_json(&fs::read(demo().join("manifest.json")).unwrap()).unwrap().input;
        let (scale, bias) = (&self.0["stem.weight"], &self.0["stem.bias"]);
        let at = |feature: usize, cell: usize| {
            let channel = feature % 64;
            let mut largest = 0.0_f64;
            for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
                // The pool's 3 x 3 window, three times halved, on every second pixel.
                let (y, x) = (16 * (cell as i64 / 7) + dy, 16 * (cell as i64 % 7) + dx);
                if y < 0 || x < 0 {
                    continue;
                }
                let grey = picture.grey()
                    [usize::try_from(2 * y).unwrap() * SIDE_PX + usize::try_from(2 * x).unwrap()];
                let value = (f64::from(grey) / 255.0 - input.mean[0]) / input.std[0];
                let stem = f64::from(scale[channel * 147 + 24]) * value + f64::from(bias[channel]);
                largest = largest.max(stem);
            }
            largest * (1.0 + (feature % 7) as f64 / 7.0)
        };
        (0..FEATURES).map(|feature| (0..CELLS).map(|cell| at(feature, cell)).collect()).collect()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (&self.0[&format!("{name}.weight")], &self.0[&format!("{name}.bias")]);
        let rows = weight.chunks_exact(x.len()).zip(bias);
        rows.map(|(row, bias)| {
            f64::from(*bias) + row.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum::<f64>()
        })
        .collect()
    }

    /// The logits of a head for feature maps and an embedding.
    fn logits(&self, head: &str, feature_maps: &[Vec<f64>], embedding: &[f32]) -> Vec<f64> {
        let pooled: Vec<f64> =
            feature_maps.iter().map(|map| map.iter().sum::<f64>() / CELLS as f64).collect();
        let mut fused = self.linear("embedding_layer", &pooled);
        let embedding: Vec<f64> = embedding.iter().copied().map(f64::from).collect();
        fused.extend(self.linear("projection", &embedding));
        assert_eq!(fused.len(), 2 * SHARED);
        self.linear(head, &self.linear("fusion", &fused))
    }
}

/// An embedding that does not depend on the picture.
fn fixed_embedding(values: &[f32]) -> Vec<u8> {
    let mut graph = GraphBuilder::new("fixed_embedding", Storage::Single);
    let means = channel_means(&mut graph);
    let weight = graph.weight("weight", &[3, 384], &[0.0; 3 * 384]);
    let bias = graph.weight("bias", &[384], values);
    let embedding = graph.node("embedding", "Gemm", &[&means, &weight, &bias], &[]);
    graph.output(&embedding, &[BATCH, Dim::Fixed(384)]);
    graph.finish(&[])
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{what}: {found}, expected {expected}");
}

/// A cell's value is how fast the logit grows with what the cell shows: the logit is computed twice,
/// with a little more and a little less of that cell.
#[test]
fn a_map_says_what_each_part_of_the_picture_adds_to_the_largest_logit() {
    let folder = tempfile::tempdir().unwrap();
    let embedding: Vec<f32> = (0..384).map(|index| arbitrary(3, index) as f32).collect();
    let mut wired = Wired::default();
    let multitask = multitask_onnx(&mut wired, &[], Storage::Single, &[]);
    with_networks(folder.path(), &[("embedding", &fixed_embedding(&embedding)), ("multitask", &multitask)]);
    let mut examiner = load_examiner(&settings(folder.path())).unwrap();
    assert!(examiner.has_maps());
    let (mut against, mut classes) = (0, Vec::new());
    // From black to white: what one side of it adds, the other may take away.
    let slope = (0..SIDE_PX * SIDE_PX).map(|index| u8::try_from(index % SIDE_PX).unwrap());
    let slope = Picture::new(SIDE_PX, slope.collect()).unwrap();
    for picture in [slope, picture(5)] {
        let answer = examiner.answer(&picture).unwrap();
        let feature_maps = wired.feature_maps(&picture);
        let maps = answer.maps.as_ref().unwrap();
        let heads = [("exp", &answer.exp), ("icm", &answer.icm), ("te", &answer.te)];
        for ((head, found), map) in heads.into_iter().zip(maps) {
            let logits = wired.logits(head, &feature_maps, &answer.embedding);
            found.iter().zip(&logits).for_each(|(found, expected)| close(f64::from(*found), *expected, head));
            let class = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            let with_cell = |cell: usize, factor: f64| {
                let mut maps = feature_maps.clone();
                maps.iter_mut().for_each(|map| map[cell] *= factor);
                wired.logits(head, &maps, &answer.embedding)[class]
            };
            let growth = |cell| (with_cell(cell, 1.0 + 1e-5) - with_cell(cell, 1.0 - 1e-5)) / 2e-5;
            let expected: Vec<f64> = (0..CELLS).map(growth).collect();
            let largest = expected.iter().copied().fold(0.0, f64::max);
            assert!(largest > 1e-3, "{head}: {expected:?}");
            for (found, expected) in map.cells().iter().zip(&expected) {
                let difference = (f64::from(*found) - expected.max(0.0)).abs();
                assert!(difference < 1e-3 * largest, "{head}: {found}, expected {expected}");
                against += usize::from(*expected < -0.01 * largest);
            }
            classes.push(class);
        }
    }
    assert!(against > 5, "{against} cells speak against their class: the ReLU of the maps is not tested");
    assert!(classes.iter().any(|class| *class > 0), "{classes:?}");
}

#[test]
fn the_distance_is_that_of_mahalanobis() {
    let folder = tempfile::tempdir().unwrap();
    // Far from the origin, close to the mean: the difference must be taken first.
    let mean: Vec<f32> = (0..384).map(|index| 300.0 + arbitrary(4, index) as f32).collect();
    let embedding: Vec<f32> =
        mean.iter().enumerate().map(|(index, mean)| mean + 0.01 * arbitrary(5, index) as f32).collect();
    let whitening: Vec<f32> = (0..384 * 384).map(|index| arbitrary(6, index) as f32).collect();
    let expected = whitening
        .chunks_exact(384)
        .map(|row| {
            let difference = embedding.iter().zip(&mean).map(|(e, m)| f64::from(*e) - f64::from(*m));
            row.iter().zip(difference).map(|(weight, d)| f64::from(*weight) * d).sum::<f64>().powi(2)
        })
        .sum::<f64>()
        .sqrt();
    // The nearest counts: this one is further from everything.
    let far = Reference { mean: mean.iter().map(|mean| mean + 1e3).collect(), whitening: whitening.clone() };
    let reference = Reference { mean, whitening };
    let multitask = multitask_onnx(&mut Wired::default(), &[far, reference], Storage::Single, &[]);
    with_networks(folder.path(), &[("embedding", &fixed_embedding(&embedding)), ("multitask", &multitask)]);
    let answer = load_examiner(&settings(folder.path())).unwrap().answer(&picture(1)).unwrap();
    assert_eq!(answer.embedding, embedding);
    close(f64::from(answer.distance.unwrap()), expected, "distance");
    assert!(expected > 1.0, "{expected}");
}

/// A bundle whose pictures all lie at `distance`, with a limit in its manifest.
fn at_distance(folder: &Path, distance: Option<f32>, limit: f64) -> ModelSettings {
    let multitask = small_multitask_with(false, |graph, means| {
        let Some(distance) = distance else { return };
        let weight = graph.weight("distance.weight", &[3, 1], &[0.0; 3]);
        let bias = graph.weight("distance.bias", &[1], &[distance]);
        let column = graph.node("distance.column", "Gemm", &[means, &weight, &bias], &[]);
        let shape = graph.shape("distance.shape", &[0]);
        let row = graph.node("distance", "Reshape", &[&column, &shape], &[]);
        graph.output(&row, &[BATCH]);
    });
    with_networks(folder, &[("embedding", &small_embedding(false)), ("multitask", &multitask)]);
    change_manifest(folder, |manifest| {
        manifest["out_of_distribution"] = serde_json::json!({ "abstain_above": limit, "accepts": 0.99 });
    });
    settings(folder)
}

#[test]
fn a_picture_unlike_the_training_set_is_not_graded() {
    let out = [AbstainReason::OutOfDistribution];
    for (distance, expected) in [(12.5, &[][..]), (12.6, &out), (f32::NAN, &out), (f32::INFINITY, &out)] {
        let folder = tempfile::tempdir().unwrap();
        let mut examiner = load_examiner(&at_distance(folder.path(), Some(distance), 12.5)).unwrap();
        let opinions = examiner.grade(&[&picture(0), &picture(1)]).unwrap().opinions;
        for opinion in opinions {
            let opinion = opinion.unwrap();
            assert_eq!(opinion.reasons, expected, "{distance}");
            let found = opinion.training_distance.unwrap();
            assert!(found == f64::from(distance) || distance.is_nan() && found.is_nan(), "{found}");
        }
    }
}

#[test]
fn a_limit_on_a_distance_that_the_network_does_not_know_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&at_distance(folder.path(), None, 12.5));
    assert!(error.contains("no output distance") && error.contains("out_of_distribution"), "{error}");
}

#[test]
fn the_grade_is_made_of_the_logits_of_the_answer() {
    let mut examiner = load_examiner(&eight_at_a_time(&demo())).unwrap();
    let pictures: Vec<Picture> = (0..3).map(picture).collect();
    let graded = examiner.grade(&pictures.iter().collect::<Vec<_>>()).unwrap().opinions;
    for (picture, graded) in pictures.iter().zip(graded) {
        let answer = examiner.answer(picture).unwrap();
        let temperature = examiner.manifest().heads.exp.temperature;
        let exp = HeadGrade::<Expansion>::from_logits(&answer.exp, temperature).unwrap();
        assert_eq!(exp, graded.unwrap().heads.exp);
    }
}

#[test]
fn a_network_without_maps_and_distance_is_as_good_for_grading() {
    let folder = tempfile::tempdir().unwrap();
    let (embedding, multitask) = (small_embedding(false), small_multitask(false));
    with_networks(folder.path(), &[("embedding", &embedding), ("multitask", &multitask)]);
    let mut examiner = load_examiner(&settings(folder.path())).unwrap();
    let answer = examiner.answer(&picture(0)).unwrap();
    assert_eq!((answer.distance, answer.maps), (None, None));
    assert!(!examiner.has_maps());
}

#[test]
fn an_output_that_is_unknown_or_of_another_shape_is_refused_by_name() {
    let refused = |name: &'static str, width: usize| {
        let folder = tempfile::tempdir().unwrap();
        let multitask = small_multitask_with(false, |graph, means| constant(graph, name, means, width, 0.0));
        with_networks(folder.path(), &[("embedding", &small_embedding(false)), ("multitask", &multitask)]);
        refusal(&settings(folder.path()))
    };
    let error = refused("age", 1);
    assert!(error.contains("multitask_of_test.onnx") && error.contains("age"), "{error}");
    let error = refused("distance", 2);
    assert!(error.contains("output distance") && error.contains("expected f32 [batch]"), "{error}");
    let error = refused("icm_map", 49);
    assert!(error.contains("output icm_map") && error.contains("[batch, 7, 7]"), "{error}");
}

#[test]
fn one_map_without_the_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let multitask = small_multitask_with(false, |graph, means| {
        let weight = graph.weight("te_map.weight", &[3, 49], &[0.0; 3 * 49]);
        let flat = graph.node("te_map.flat", "MatMul", &[means, &weight], &[]);
        let shape = graph.shape("te_map.shape", &[0, 7, 7]);
        let map = graph.node("te_map", "Reshape", &[&flat, &shape], &[]);
        graph.output(&map, &[BATCH, Dim::Fixed(7), Dim::Fixed(7)]);
    });
    with_networks(folder.path(), &[("embedding", &small_embedding(false)), ("multitask", &multitask)]);
    let error = refusal(&settings(folder.path()));
    assert!(error.contains("all or none"), "{error}");
}

#[test]
fn an_encoder_gives_the_embeddings_that_the_grader_sees() {
    let bundle = Bundle::open(&demo()).unwrap();
    let mut encoder = Encoder::of_bundle(&eight_at_a_time(&demo()), &bundle).unwrap();
    let mut examiner = load_examiner(&settings(&demo())).unwrap();
    let pictures = [picture(0), picture(4), picture(2)];
    let vectors = encoder.encode(&pictures.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(vectors.len(), 3 * encoder.width());
    for (picture, vector) in pictures.iter().zip(vectors.chunks_exact(encoder.width())) {
        assert_eq!(examiner.answer(picture).unwrap().embedding, vector);
    }
}

#[test]
fn the_resnet_alone_gives_the_features_behind_the_heads_however_many_pictures_there_are() {
    let mut wired = Wired::default();
    let network = Network::from_bytes(Path::new("resnet18.onnx"), resnet18_onnx(&mut wired, &[])).unwrap();
    let input = Manifest::from_json(&fs::read(demo().join("manifest.json")).unwrap()).unwrap().input;
    let mut encoder = Encoder::load(&settings(&demo()), &network, ("features", 512), 8, &input).unwrap();
    let pictures: Vec<Picture> = (0..5).map(picture).collect();
    let vectors = encoder.encode(&pictures.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(vectors.len(), 5 * FEATURES);
    for (picture, features) in pictures.iter().zip(vectors.chunks_exact(FEATURES)) {
        for (found, map) in features.iter().zip(wired.feature_maps(picture)) {
            close(f64::from(*found), map.iter().sum::<f64>() / CELLS as f64, "feature");
        }
    }
    let small = Picture::new(8, vec![0; 64]).unwrap();
    assert!(encoder.encode(&[&small]).unwrap_err().to_string().contains("8 pixels"));
    let error = Encoder::load(&settings(&demo()), &network, ("embedding", 384), 8, &input).err().unwrap();
    assert!(error.to_string().contains("resnet18.onnx"), "{error}");
}

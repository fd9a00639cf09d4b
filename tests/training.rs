//! What is trained is what is served: the same numbers in the trainer and in ONNX Runtime, and an
//! interrupted training that ends where an uninterrupted one would.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "common/bundle.rs"]
mod bundle;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bundle::{demo, settings};
use memebg::domain::Picture;
use memebg::incubator::LabelledSet;
use memebg::model::manifest::OutOfDistribution;
use memebg::model::multitask::SIDE_PX;
use memebg::model::{Bundle, load_examiner};
use memebg::random::Random;
use memebg::training::Sample;
use memebg::training::bundle::{Calibration, Trained};
use memebg::training::end_to_end::{Material, Stage, shapes, train};
use memebg::training::finetune::Normalisation;
use memebg::training::fit::{Parts, Rule, Schedule};
use memebg::training::loss::{Targets, Task};
use memebg::training::reference::{distance, reference_of};
use memebg::training::weights::Weights;

const NORMALISATION: Normalisation =
    Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// Largest difference between a logit of the trainer and of ONNX Runtime.
const TOLERANCE: f32 = 1e-4;

fn samples(count: usize) -> Vec<Sample> {
    let set = LabelledSet::new(77, u32::try_from(SIDE_PX).unwrap()).map(Result::unwrap);
    set.filter(|picture| picture.label.truth.exp.is_some())
        .take(count)
        .map(|picture| {
            let grey = image::load_from_memory(&picture.jpeg).unwrap().into_luma8().into_raw();
            Sample {
                name: picture.label.image.clone(),
                picture: Picture::new(SIDE_PX, grey).unwrap(),
                sha256: String::new(),
                truth: picture.label.truth,
                group: None,
            }
        })
        .collect()
}

/// Random weights of which none is zero, so that no part of the network is silent.
fn lively_weights() -> Weights {
    let mut weights = Weights::random(&shapes(), 5);
    let mut random = Random::new(6);
    for (name, weight) in &mut weights.0 {
        let quiet = name.ends_with("conv2.weight");
        if quiet || weight.dims.len() == 1 {
            weight.values.iter_mut().for_each(|value| *value = random.about(0.0, 0.02));
        }
    }
    weights.rounded_to_half()
}

#[test]
fn the_trainer_and_the_served_network_give_the_same_logits() {
    let samples = samples(4);
    let samples: Vec<&Sample> = samples.iter().collect();
    let weights = lively_weights();
    let base = Bundle::open(&demo()).unwrap();
    let points: Vec<Vec<f32>> = (0..8)
        .map(|seed| {
            let mut random = Random::new(seed);
            (0..384).map(|_| random.about(0.0, 1.0)).collect()
        })
        .collect();
    let reference = reference_of(&points.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let trained = Trained {
        weights: weights.clone().without_parts(),
        references: vec![reference.clone()],
        out_of_distribution: OutOfDistribution { abstain_above: 1e6, accepts: 1.0 },
        calibration: [Calibration { temperature: 1.5, abstain_below: 0.25 }; 3],
        base: &base,
        name: "invented".to_owned(),
        version: "0.0.1".to_owned(),
        license: "Apache-2.0".to_owned(),
        training_data: "None: random weights.".to_owned(),
        created: "2026-01-31".parse().unwrap(),
    };
    let folder = tempfile::tempdir().unwrap();
    trained.write(folder.path()).unwrap();
    let mut served = load_examiner(&settings(folder.path())).unwrap();
    let answers: Vec<_> = samples.iter().map(|sample| served.answer(&sample.picture).unwrap()).collect();

    let embeddings: Vec<Vec<f32>> = answers.iter().map(|answer| answer.embedding.clone()).collect();
    let targets = Targets::new(&samples, &[], Task::Multi);
    let material = Material {
        samples: &samples,
        embeddings: &embeddings,
        targets: &targets,
        normalisation: NORMALISATION,
    };
    let in_trainer = material.answers(&weights, &[0, 1, 2, 3]);
    let mut differing = 0.0_f32;
    for (answer, trainer) in answers.iter().zip(&in_trainer) {
        for (served, trainer) in [&answer.exp, &answer.icm, &answer.te].into_iter().zip(trainer) {
            assert_eq!(served.len(), trainer.len());
            for (served, trainer) in served.iter().zip(trainer) {
                differing = differing.max((served - trainer).abs());
            }
        }
        let expected = distance(std::slice::from_ref(&reference), &answer.embedding);
        let served = f64::from(answer.distance.unwrap());
        assert!((served - expected).abs() < 1e-3 * expected, "distance {served} and {expected}");
    }
    println!("largest difference of a logit: {differing:e}");
    assert!(differing < TOLERANCE, "{differing}");
    // Not because every picture gets the same answer.
    let spread = in_trainer.iter().map(|answer| answer[0][0]);
    let spread = spread.clone().fold(f32::MIN, f32::max) - spread.fold(f32::MAX, f32::min);
    assert!(spread > 10.0 * TOLERANCE, "{spread}");
}

#[test]
fn a_training_that_was_killed_goes_on_and_ends_with_the_same_network() {
    let samples = samples(6);
    let samples: Vec<&Sample> = samples.iter().collect();
    let embeddings = vec![vec![0.5; 384]; samples.len()];
    let fit: Vec<usize> = (0..4).collect();
    let targets = Targets::new(&samples, &fit, Task::Multi);
    let material = Material {
        samples: &samples,
        embeddings: &embeddings,
        targets: &targets,
        normalisation: NORMALISATION,
    };
    let parts = Parts { fit: &fit, validation: &[4, 5] };
    let schedule = Schedule {
        rule: Rule::AdamW,
        epochs: 3,
        batch: 2,
        learning_rate: 1e-3,
        weight_decay: 0.01,
        patience: 9,
        seed: 4,
    };
    let stages = [Stage { side_px: 32, schedule }];
    let start = lively_weights();

    let undisturbed = tempfile::tempdir().unwrap();
    let expected = train(material, parts, &start, &stages, undisturbed.path(), &mut |_, _, _| {}).unwrap();

    let disturbed = tempfile::tempdir().unwrap();
    let killed = catch_unwind(AssertUnwindSafe(|| {
        train(material, parts, &start, &stages, disturbed.path(), &mut |_, _, progress| {
            assert!(progress.epoch < 2, "killed after the second epoch");
        })
    }));
    assert!(killed.is_err());
    let mut epochs = Vec::new();
    let found = train(material, parts, &start, &stages, disturbed.path(), &mut |_, _, progress| {
        epochs.push(progress.epoch);
    })
    .unwrap();
    assert_eq!(epochs, [3], "only what was missing is done");
    assert_ne!(found, start);
    assert_eq!(found, expected);
}

use super::*;
use crate::domain::{DevelopmentStage, Expansion, Letter, Picture, Truth};
use crate::training::Sample;
use crate::training::distribution::Shares;

/// A manifest without thresholds and with a limit on the distance.
fn manifest(change: impl FnOnce(&mut serde_json::Value)) -> Manifest {
    let mut json: serde_json::Value =
        serde_json::from_str(include_str!("../../../schemas/examples/manifest/trained.json")).unwrap();
    for head in ["exp", "icm", "te"] {
        let head = json["heads"][head].as_object_mut().unwrap();
        head.insert("temperature".to_owned(), 1.into());
        head.remove("abstain_below");
    }
    json["out_of_distribution"] = serde_json::json!({ "abstain_above": 20.0, "accepts": 0.99 });
    change(&mut json);
    Manifest::from_json(json.to_string().as_bytes()).unwrap()
}

/// Logits with a margin of 2 for one class.
fn logits(classes: usize, answer: usize) -> Vec<f32> {
    (0..classes).map(|class| if class == answer { 2.0 } else { 0.0 }).collect()
}

/// A blastocyst of expansion 4 with letters, or 2 without; `distance` of its embedding, and whether the
/// model is right on every head.
fn blastocyst(exp: Expansion, distance: f32, is_right: bool) -> (Truth, Answer) {
    let letters = exp.has_letters().then_some(Letter::B);
    let stage = DevelopmentStage::Blastocyst;
    let truth = Truth { stage, exp: Some(exp), icm: letters, te: letters };
    let class = |right: usize| if is_right { right } else { 0 };
    let answer = Answer {
        exp: logits(6, class(usize::from(u8::from(exp)) - 1)),
        icm: logits(3, class(1)),
        te: logits(3, class(1)),
        embedding: Vec::new(),
        distance: Some(distance),
        maps: None,
    };
    (truth, answer)
}

fn cleavage(distance: f32) -> (Truth, Answer) {
    let truth = Truth { stage: DevelopmentStage::Cleavage, exp: None, icm: None, te: None };
    (truth, blastocyst(Expansion::E1, distance, true).1)
}

fn measured(pictures: Vec<(Truth, Answer)>, manifest: &Manifest) -> Evaluation {
    let (truths, answers): (Vec<Truth>, Vec<Answer>) = pictures.into_iter().unzip();
    let sample = |truth| Sample {
        name: String::new(),
        picture: Picture::new(1, vec![0]).unwrap(),
        sha256: String::new(),
        truth,
        group: None,
    };
    let samples = truths.into_iter().map(sample).collect();
    let images = LabelledImages { dir: "a/set".into(), sha256: String::new(), samples };
    evaluation(&images, &answers, manifest, 1.5)
}

#[test]
fn a_head_is_measured_wherever_its_label_has_a_grade() {
    let pictures = vec![
        blastocyst(Expansion::E4, 1.0, true),
        blastocyst(Expansion::E4, 1.0, false),
        blastocyst(Expansion::E2, 1.0, true),
        cleavage(1.0),
    ];
    let evaluation = measured(pictures, &manifest(|_| ()));
    let heads: Vec<_> = evaluation.heads.iter().map(|head| (head.head, head.multi.figures.images)).collect();
    assert_eq!(heads, [(Head::Exp, 3), (Head::Icm, 2), (Head::Te, 2)]);
    assert_eq!(evaluation.heads[1].multi.figures.accuracy, 0.5);
    assert_eq!((evaluation.data.images, evaluation.encoders.as_str()), (4, "bundle"));
    assert_eq!((evaluation.protocol, evaluation.model.as_str()), (None, "invented 0.1.0"));
}

#[test]
fn calibration_is_that_of_the_temperature_in_the_manifest() {
    let pictures = || vec![blastocyst(Expansion::E4, 1.0, true), blastocyst(Expansion::E4, 1.0, false)];
    let evaluation = measured(pictures(), &manifest(|json| json["heads"]["te"]["temperature"] = 4.0.into()));
    let confidence = |temperature: f64| {
        let largest = (2.0 / temperature).exp();
        largest / (largest + 2.0)
    };
    let [exp, _, te] = &evaluation.heads[..] else { panic!("three heads") };
    assert_eq!(te.multi.folds[0].temperature, 4.0);
    assert!((te.multi.ece_before - (confidence(1.0) - 0.5)).abs() < 1e-6, "{}", te.multi.ece_before);
    assert!((te.multi.figures.ece - (0.5 - confidence(4.0)).abs()).abs() < 1e-6, "{}", te.multi.figures.ece);
    assert_eq!(exp.multi.figures.ece, exp.multi.ece_before);
}

#[test]
fn thresholds_are_measured_where_the_bundle_has_them() {
    let pictures = || vec![blastocyst(Expansion::E4, 1.0, true), blastocyst(Expansion::E4, 1.0, false)];
    let threshold = |limit: f64| {
        measured(pictures(), &manifest(|json| json["heads"]["icm"]["abstain_below"] = limit.into()))
    };
    let abstention = threshold(0.5).abstention.unwrap();
    assert_eq!(abstention.risk_target, None);
    let found: Vec<_> = abstention.heads.iter().map(|head| (head.head, head.threshold)).collect();
    let expected = Threshold { abstain_below: 0.5, coverage: 1.0, risk: 0.5 };
    assert_eq!(found, [(Head::Exp, None), (Head::Icm, Some(expected)), (Head::Te, None)]);

    // A threshold that nothing reaches is not the same as none.
    let unreached = threshold(0.99);
    assert_eq!(unreached.abstention, None);
    assert!(unreached.notes.iter().any(|note| note.starts_with("ICM: no answer reaches")));
    assert_eq!(measured(pictures(), &manifest(|_| ())).abstention, None);
}

#[test]
fn refusals_are_counted_by_stage_and_leave_the_figures_alone() {
    let mut pictures = vec![
        blastocyst(Expansion::E4, 19.0, true),
        blastocyst(Expansion::E4, 21.0, true),
        cleavage(40.0),
        cleavage(40.0),
        cleavage(2.0),
    ];
    let evaluation = measured(pictures.clone(), &manifest(|_| ()));
    let refused = evaluation.out_of_distribution.unwrap();
    assert_eq!(refused.graded, Shares { images: 2, refused: 1 });
    assert_eq!(refused.other_stages, Shares { images: 3, refused: 2 });
    assert_eq!(evaluation.heads[0].multi.figures.images, 2);
    let unfit = |evaluation: &Evaluation| {
        evaluation.notes.iter().any(|note| note.starts_with("This model was not made for these pictures"))
    };
    // More than half of the set, and yet not of what it should grade.
    assert!(!unfit(&evaluation));
    pictures.push(blastocyst(Expansion::E4, 30.0, true));
    assert!(unfit(&measured(pictures.clone(), &manifest(|_| ()))));

    let unlimited = manifest(|json| drop(json.as_object_mut().unwrap().remove("out_of_distribution")));
    let evaluation = measured(pictures, &unlimited);
    assert!(evaluation.out_of_distribution.is_none() && !unfit(&evaluation));
}

#[test]
fn the_notes_say_what_was_left_out_and_that_a_model_is_untrained() {
    let notes = |untrained: bool| {
        let manifest = manifest(|json| json["untrained"] = untrained.into());
        measured(vec![blastocyst(Expansion::E4, 1.0, true)], &manifest).notes.join("\n")
    };
    assert!(notes(false).contains("quality gate was not applied") && !notes(false).contains("UNTRAINED"));
    assert!(notes(true).starts_with("UNTRAINED"));
}

use super::*;
use crate::domain::{DevelopmentStage, Expansion, Letter, Picture, Truth};
use crate::training::Sample;

/// An answer with a margin of `margin` for `answer`.
fn scored(truth: usize, answer: usize, margin: f32) -> Scored {
    let mut logits = vec![0.0; 3];
    logits[answer] = margin;
    Scored { truth, logits }
}

/// Four answers of a fold, `right` of them right.
fn fold(repeat: usize, fold: usize, right: usize, temperature: f64) -> FoldAnswers {
    let scored = (0..4).map(|i| scored(i % 2, if i < right { i % 2 } else { 2 }, 2.0)).collect();
    FoldAnswers { repeat, fold, temperature, scored }
}

fn five_by_two(right: impl Fn(usize, usize) -> usize) -> Vec<FoldAnswers> {
    (0..10).map(|i| fold(i / 2, i % 2, right(i / 2, i % 2), 1.0)).collect()
}

#[test]
fn answers_are_pooled_after_the_temperature_of_their_own_fold() {
    let folds = [fold(0, 0, 4, 0.5), fold(0, 1, 2, 4.0)];
    let arm = Arm::of(Head::Icm, &folds).unwrap();
    assert_eq!((arm.figures.images, arm.folds.len()), (8, 2));
    assert_eq!(arm.figures.accuracy, 0.75);
    let confidence = |temperature: f64| scored(0, 0, 2.0).confidence(temperature);
    let bins: Vec<f64> = arm.figures.reliability.iter().map(|bin| bin.confidence).collect();
    assert_eq!(bins.len(), 2);
    assert!((bins[0] - confidence(4.0)).abs() < 1e-6 && (bins[1] - confidence(0.5)).abs() < 1e-6);
    let ece = ((confidence(4.0) - 0.5).abs() + (confidence(0.5) - 1.0).abs()) / 2.0;
    assert!((arm.figures.ece - ece).abs() < 1e-6);
    assert!((arm.ece_before - (confidence(1.0) - 0.75).abs()).abs() < 1e-6);
    assert_eq!(arm.reliability_before.len(), 1);
}

#[test]
fn the_mean_and_the_deviation_are_those_of_the_folds() {
    // All right: macro F1 1. Two of four right, one per class: F1 of each is 2 / 3.
    let arm = Arm::of(Head::Icm, &[fold(0, 0, 4, 1.0), fold(0, 1, 2, 1.0)]).unwrap();
    assert!((arm.macro_f1_mean - 5.0 / 6.0).abs() < 1e-12);
    assert!((arm.macro_f1_std.unwrap() - (1.0 / 3.0) / 2.0_f64.sqrt()).abs() < 1e-12);
    let one = Arm::of(Head::Icm, &[fold(0, 0, 4, 1.0)]).unwrap();
    assert_eq!((one.macro_f1_mean, one.macro_f1_std), (1.0, None));
}

#[test]
fn a_fold_without_labels_of_the_head_is_left_out() {
    let empty = FoldAnswers { repeat: 0, fold: 1, temperature: 1.0, scored: Vec::new() };
    let arm = Arm::of(Head::Te, &[fold(0, 0, 4, 1.0), empty.clone()]).unwrap();
    assert_eq!(arm.folds.len(), 1);
    assert_eq!(Arm::of(Head::Te, &[empty]), None);
    assert_eq!(Arm::of(Head::Exp, &[fold(0, 0, 4, 1.0)]), None);
}

#[test]
fn the_paired_test_takes_every_fold_with_its_partner_and_multi_less_single() {
    let multi = five_by_two(|_, _| 4);
    let mut single = five_by_two(|repeat, fold| if fold == 0 || repeat == 3 { 2 } else { 4 });
    single.reverse();
    let head = HeadEvaluation::of(Head::Icm, &multi, Some(&single)).unwrap();
    let third = 1.0 / 3.0;
    let expected = [[third, 0.0], [third, 0.0], [third, 0.0], [third, third], [third, 0.0]];
    for (repeat, row) in expected.iter().enumerate() {
        for (fold, difference) in row.iter().enumerate() {
            assert!((head.difference(repeat, fold).unwrap() - difference).abs() < 1e-12);
        }
    }
    let test = head.paired.unwrap();
    assert!((test.mean_difference - PairedTest::of(&expected).mean_difference).abs() < 1e-12);
    assert!((test.f.unwrap() - PairedTest::of(&expected).f.unwrap()).abs() < 1e-9);
}

#[test]
fn there_is_no_paired_test_without_all_ten_folds_of_both_ways() {
    let ten = five_by_two(|_, _| 4);
    let paired = |single| HeadEvaluation::of(Head::Icm, &ten, single).unwrap().paired;
    assert_eq!(paired(None), None);
    assert_eq!(paired(Some(&ten[..9])), None);
    assert!(paired(Some(&ten)).is_some());
}

#[test]
fn a_summary_counts_labels_and_embryos_and_keeps_the_folder_above_to_itself() {
    let sample = |name: &str, exp: Option<Expansion>, group: Option<&str>| Sample {
        name: name.to_owned(),
        picture: Picture::new(1, vec![0]).unwrap(),
        sha256: String::new(),
        truth: Truth { stage: DevelopmentStage::Blastocyst, exp, icm: None, te: Some(Letter::B) },
        group: group.map(str::to_owned),
    };
    let images = LabelledImages {
        dir: std::path::PathBuf::from("/home/somebody/clinic-7"),
        sha256: "ab".to_owned(),
        samples: vec![
            sample("a", Some(Expansion::E4), Some("E1")),
            sample("b", Some(Expansion::E4), Some("E1")),
            sample("c", None, None),
        ],
    };
    let summary = DataSummary::of(&images);
    assert_eq!((summary.name.as_str(), summary.images, summary.groups), ("clinic-7", 3, 1));
    let counts = |head: usize| summary.grades[head].classes.iter().map(|class| class.images);
    assert_eq!(counts(0).collect::<Vec<_>>(), [0, 0, 0, 2, 0, 0]);
    assert_eq!(counts(2).collect::<Vec<_>>(), [0, 3, 0]);
    assert_eq!([0, 1, 2].map(|head: usize| summary.grades[head].without_grade), [1, 3, 0]);
}

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::domain::{DevelopmentStage, Expansion, Letter, Picture, Truth};

/// A sample from three drawn numbers: a quarter is not graded, the letters follow from EXP 3.
fn sample(index: usize, exp: u8, icm: usize, te: usize, group: Option<String>) -> Sample {
    let exp = Expansion::try_from(exp).ok();
    let letter = |index: usize| Letter::ALL[index];
    let has_letters = exp.is_some_and(Expansion::has_letters);
    let (icm, te) = (has_letters.then(|| letter(icm)), has_letters.then(|| letter(te)));
    let stage = if exp.is_some() { DevelopmentStage::Blastocyst } else { DevelopmentStage::Morula };
    Sample {
        name: format!("{index}.png"),
        picture: Picture::new(1, vec![0]).unwrap(),
        sha256: index.to_string(),
        truth: Truth { stage, exp, icm, te },
        group,
    }
}

/// Sets in which some classes are rare, and groups, if any, hold up to `group` images.
fn sets(sizes: std::ops::Range<usize>, group: usize) -> impl Strategy<Value = Vec<Sample>> {
    let drawn = (0_u8..9, 0_usize..6, 0_usize..6, 0_usize..100);
    proptest::collection::vec(drawn, sizes).prop_map(move |all| {
        let groups = all.len().div_ceil(group);
        let letter = |drawn: usize| [0, 1, 1, 1, 1, 2][drawn];
        let one = |(index, (exp, icm, te, drawn)): (usize, (u8, usize, usize, usize))| {
            let group = (group > 1 && drawn % 4 > 0).then(|| format!("E{}", drawn % groups));
            sample(index, exp, letter(icm), letter(te), group)
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn refs(samples: &[Sample]) -> Vec<&Sample> {
    samples.iter().collect()
}

/// Every label of every head, "no grade" included.
fn labels() -> impl Iterator<Item = (Head, Option<usize>)> {
    Head::ALL.iter().flat_map(|head| {
        (0..class_labels(*head).len()).map(Some).chain([None]).map(move |class| (*head, class))
    })
}

fn count(samples: &[Sample], indices: &[usize], (head, class): (Head, Option<usize>)) -> f64 {
    indices.iter().filter(|index| class_index(&samples[**index].truth, head) == class).count() as f64
}

fn groups<'a>(samples: &'a [Sample], indices: &[usize]) -> HashSet<&'a str> {
    indices.iter().filter_map(|index| samples[*index].group.as_deref()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_sample_is_tested_once_a_repeat_and_no_group_is_on_both_sides(
        samples in sets(40..120, 4),
        seed: u64,
    ) {
        for (protocol, repeats, per_repeat) in
            [(Protocol::Holdout, 1, 1), (Protocol::KFold, 1, 5), (Protocol::FiveByTwo, 5, 2)]
        {
            let folds = folds(protocol, &refs(&samples), seed).unwrap();
            prop_assert_eq!(folds.len(), repeats * per_repeat);
            for (index, fold) in folds.iter().enumerate() {
                prop_assert_eq!((fold.repeat, fold.fold), (index / per_repeat, index % per_repeat));
                prop_assert!(!fold.train.is_empty() && !fold.test.is_empty());
                let mut all: Vec<usize> = fold.train.iter().chain(&fold.test).copied().collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..samples.len()).collect::<Vec<_>>());
                let (train, test) = (groups(&samples, &fold.train), groups(&samples, &fold.test));
                prop_assert!(train.is_disjoint(&test));
            }
            for repeat in folds.chunks(per_repeat).filter(|_| protocol != Protocol::Holdout) {
                let mut tested: Vec<usize> = repeat.iter().flat_map(|fold| fold.test.clone()).collect();
                tested.sort_unstable();
                prop_assert_eq!(tested, (0..samples.len()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn every_part_has_its_share_of_every_class(samples in sets(30..200, 1), seed: u64) {
        let everything: Vec<usize> = (0..samples.len()).collect();
        for (protocol, share) in
            [(Protocol::Holdout, 0.2), (Protocol::KFold, 0.2), (Protocol::FiveByTwo, 0.5)]
        {
            for fold in folds(protocol, &refs(&samples), seed).unwrap() {
                for label in labels() {
                    let due = count(&samples, &everything, label) * share;
                    let got = count(&samples, &fold.test, label);
                    prop_assert!((got - due).abs() < 3.0, "{} of {} {:?}, {}", got, due, label, protocol);
                }
                let due = samples.len() as f64 * share;
                prop_assert!((fold.test.len() as f64 - due).abs() < 3.0, "{} of {}", fold.test.len(), due);
            }
        }
    }

    #[test]
    fn grouped_parts_are_near_their_share_as_well(samples in sets(100..300, 4), seed: u64) {
        let everything: Vec<usize> = (0..samples.len()).collect();
        for fold in folds(Protocol::KFold, &refs(&samples), seed).unwrap() {
            for label in labels() {
                let due = count(&samples, &everything, label) * 0.2;
                let got = count(&samples, &fold.test, label);
                prop_assert!((got - due).abs() < 5.0, "{} of {} {:?}", got, due, label);
            }
        }
    }
    #[test]
    fn the_same_seed_cuts_the_same_way(samples in sets(20..60, 3), seed: u64) {
        for protocol in Protocol::ALL {
            let cut = |seed| folds(*protocol, &refs(&samples), seed).unwrap();
            prop_assert_eq!(cut(seed), cut(seed));
        }
        prop_assert_eq!(part(&refs(&samples), 0.3, seed), part(&refs(&samples), 0.3, seed));
    }

    #[test]
    fn a_part_has_its_share_and_splits_no_group(samples in sets(40..120, 3), share in 0.1..0.5, seed: u64) {
        let (rest, taken) = part(&refs(&samples), share, seed).unwrap();
        prop_assert!(groups(&samples, &rest).is_disjoint(&groups(&samples, &taken)));
        prop_assert_eq!(rest.len() + taken.len(), samples.len());
        let due = samples.len() as f64 * share;
        prop_assert!((taken.len() as f64 - due).abs() < 4.0, "{} of {}", taken.len(), due);
    }
}

#[test]
fn the_repeats_of_a_cross_validation_are_cut_differently_and_mirrored_within() {
    let samples: Vec<Sample> = (0..40).map(|index| sample(index, 4, index % 3, 1, None)).collect();
    let folds = folds(Protocol::FiveByTwo, &refs(&samples), 7).unwrap();
    let first_halves: HashSet<&Vec<usize>> = folds.iter().map(|fold| &fold.test).collect();
    assert_eq!(first_halves.len(), 10);
    for halves in folds.chunks(2) {
        assert_eq!((&halves[0].train, &halves[0].test), (&halves[1].test, &halves[1].train));
    }
}

#[test]
fn another_seed_cuts_another_way() {
    let samples: Vec<Sample> = (0..60).map(|index| sample(index, 4, index % 3, 1, None)).collect();
    for protocol in Protocol::ALL {
        let cuts: Vec<_> = (0..5).map(|seed| folds(*protocol, &refs(&samples), seed).unwrap()).collect();
        assert!(cuts.iter().enumerate().all(|(index, cut)| !cuts[..index].contains(cut)), "{protocol}");
    }
}

#[test]
fn the_smallest_set_fills_every_part_and_a_smaller_one_is_refused() {
    let samples: Vec<Sample> = (0..6_u8).map(|index| sample(index.into(), index + 1, 0, 0, None)).collect();
    let all = refs(&samples);
    for (protocol, least) in [(Protocol::Holdout, 2), (Protocol::KFold, 5), (Protocol::FiveByTwo, 2)] {
        let folds_of = |count: usize| folds(protocol, &all[..count], 1);
        for fold in folds_of(least).unwrap() {
            assert!(!fold.train.is_empty() && !fold.test.is_empty(), "{protocol}");
        }
        let parts = if protocol == Protocol::KFold { 5 } else { 2 };
        assert_eq!(folds_of(least - 1), Err(SplitError::TooFew { units: least - 1, parts }));
    }
    assert_eq!(part(&all, 1.0, 0), Err(SplitError::Share(1.0)));
    assert!(part(&all, f64::NAN, 0).is_err());
    assert!(part(&[], 0.2, 0).is_err());
}

#[test]
fn images_of_one_embryo_count_once() {
    let samples: Vec<Sample> = (0..9).map(|index| sample(index, 4, 0, 0, Some("E1".to_owned()))).collect();
    assert_eq!(folds(Protocol::Holdout, &refs(&samples), 1), Err(SplitError::TooFew { units: 1, parts: 2 }));
}

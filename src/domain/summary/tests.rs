//! A summary is a function of the set of grade events, whatever way they came.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{Expansion, HeadGrade, Letter, Review, ReviewReason, ReviewedSummary};

fn window() -> Window {
    Window::new(110.0, 120.0)
}

/// A grade event of a frame: which class each head is for, and how sure.
fn event(run: u64, plane: u32, hpi: f64, exp: usize, peak: f64) -> GradeEvent {
    let json = include_str!("../../../schemas/examples/grade/graded.json");
    let mut event: GradeEvent = serde_json::from_str(json).unwrap();
    event.run = run;
    event.focal_plane.index = plane;
    event.hpi = hpi;
    event.captured_at =
        "2026-01-26T16:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds((hpi * 3_600.0) as i64);
    let mut logits = [0.0; 6];
    logits[exp - 1] = peak as f32;
    let letters = |first: f32| HeadGrade::from_logits(&[first, 1.0, 0.0], 1.0).unwrap();
    let exp = HeadGrade::from_logits(&logits, 1.0).unwrap();
    event.heads = Some(crate::domain::Heads::new(exp, letters(3.0), letters(0.0)));
    event.gardner = event.heads.as_ref().map(crate::domain::Heads::gardner);
    event
}

fn abstained(run: u64, hpi: f64) -> GradeEvent {
    let mut event = event(run, 3, hpi, 4, 3.0);
    event.status = crate::domain::GradeStatus::Abstained;
    event.reasons = vec![crate::domain::AbstainReason::LowConfidence, crate::domain::AbstainReason::Blurred];
    event.gardner = None;
    event
}

fn embryo(events: &[GradeEvent]) -> Embryo {
    let mut embryo = Embryo::first(window(), &events[0]).unwrap().unwrap();
    for event in events {
        embryo.add(event).unwrap();
    }
    embryo
}

#[test]
fn the_combination_carries_gardner_string_confidence_counts_and_disagreement() {
    let events = [
        event(1, 3, 112.0, 4, 4.0),
        event(2, 3, 113.0, 4, 4.0),
        event(3, 3, 114.0, 3, 1.0),
        abstained(4, 115.0),
    ];
    let summary = embryo(&events).summary();
    assert_eq!(summary.gardner.as_deref(), Some("4AB"));
    assert_eq!((summary.frames.total, summary.frames.graded, summary.frames.abstained), (4, 3, 1));
    assert_eq!(summary.abstentions.values().sum::<u32>(), 2);
    let disagreement = summary.disagreement.unwrap();
    assert_eq!((disagreement.exp, disagreement.icm), (0.3333, Some(0.0)));
    assert_eq!(summary.trajectory.len(), 3);
    assert!((summary.last_frame.hpi - 115.0).abs() < 1e-9);
    assert_eq!((summary.version, summary.status), (1, SummaryStatus::Provisional));
    let heads = summary.heads.unwrap();
    // The doubtful third frame counts for less than a third.
    assert!(heads.exp.probabilities.of(Expansion::E3) < 0.15, "{:?}", heads.exp);
    assert_eq!(summary.confidence, Some(heads.confidence()));
}

#[test]
fn letters_are_absent_below_expansion_three_and_where_nothing_was_graded() {
    let early = embryo(&[event(1, 3, 112.0, 2, 4.0), event(2, 3, 113.0, 2, 4.0), event(3, 3, 114.0, 3, 1.0)]);
    let json = serde_json::to_value(early.summary()).unwrap();
    assert_eq!((&json["gardner"], json.get("icm")), (&json!("2"), None));
    assert!(json["disagreement"].get("icm").is_none(), "{json}");
    let json = serde_json::to_value(embryo(&[abstained(1, 112.0)]).summary()).unwrap();
    assert!(json.get("gardner").is_none() && json.get("exp").is_none(), "{json}");
}

#[test]
fn of_two_grades_of_one_frame_the_newer_model_counts_whichever_comes_first() {
    let old = event(1, 3, 112.0, 3, 3.0);
    let mut new = event(1, 3, 112.0, 5, 3.0);
    new.model.version = "0.10.0".to_owned();
    for events in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
        let summary = embryo(&events).summary();
        assert_eq!((summary.frames.total, summary.gardner.as_deref()), (1, Some("5AB")));
    }
    new.model.untrained = true;
    assert_eq!(embryo(&[new, old]).summary().gardner.as_deref(), Some("3AB"));
}

#[test]
fn a_summary_is_final_at_the_end_of_the_window_or_when_the_clock_says_so_and_late_frames_amend_it() {
    let mut embryo = embryo(&[event(1, 3, 112.0, 4, 3.0)]);
    assert_eq!((embryo.ends_at() - embryo.last.captured_at).num_minutes(), 480);
    let mut by_frame = embryo.clone();
    by_frame.add(&event(9, 3, 120.0, 4, 3.0)).unwrap();
    assert_eq!(by_frame.status(), SummaryStatus::Final);
    assert!(embryo.end() && !embryo.end());
    embryo.published();
    let late = event(2, 3, 111.0, 4, 3.0);
    assert_eq!(embryo.add(&late), Ok(Effect::Changed));
    assert_eq!(embryo.add(&late), Ok(Effect::Unchanged));
    let summary = embryo.summary();
    assert_eq!((summary.version, summary.status, summary.frames.total), (2, SummaryStatus::Final, 2));
    assert_eq!(embryo.add(&event(3, 3, 109.99, 4, 3.0)), Ok(Effect::OutsideWindow));
}

#[test]
fn an_event_that_contradicts_its_schema_is_refused() {
    let sound = event(1, 3, 112.0, 4, 3.0);
    let mut wrong: Vec<GradeEvent> = (0..5).map(|_| sound.clone()).collect();
    wrong[0].hpi = f64::NAN;
    wrong[1].embryo_id = "two words".to_owned();
    wrong[2].heads = None;
    wrong[3].reasons = vec![crate::domain::AbstainReason::Blurred];
    let broken = serde_json::to_string(&sound).unwrap().replacen("\"4\":0.", "\"4\":7.", 1);
    wrong[4] = serde_json::from_str(&broken).unwrap();
    for (number, event) in wrong.iter().enumerate() {
        assert!(Embryo::first(window(), event).is_err(), "{number}");
    }
}

#[test]
fn frames_and_trajectory_are_bounded_and_what_stays_does_not_depend_on_the_order() {
    let events: Vec<_> =
        (0..1_300).map(|run| event(run, 3, 110.0 + (run % 1_000) as f64 / 100.0, 4, 3.0)).collect();
    let summary = embryo(&events).summary();
    assert!(summary.frames.left_out && summary.frames.total == MAX_FRAMES && summary.trajectory.len() <= 41);
    let reversed: Vec<_> = events.into_iter().rev().collect();
    assert_eq!(embryo(&reversed).summary(), summary);
    let bytes = serde_json::to_vec(&summary).unwrap().len();
    assert!(bytes < 400_000, "{bytes} bytes do not fit into a message of 1 MiB with room to spare");
}

prop_compose! {
    fn any_event()(
        run in 0u64..6,
        plane in 0u32..3,
        centi in 10_900u32..12_100,
        exp in 1usize..=6,
        peak in 0.0f64..5.0,
        version in prop::sample::select(vec!["0.1.0", "0.9.0", "0.10.0"]),
        id in "[0-9a-f]{64}",
        abstains in prop::bool::weighted(0.2),
    ) -> GradeEvent {
        let mut event = event(run, plane, f64::from(centi) / 100.0, exp, peak);
        if abstains {
            event.status = crate::domain::GradeStatus::Abstained;
            event.reasons = vec![crate::domain::AbstainReason::LowConfidence];
        }
        event.model.version = version.to_owned();
        event.id = serde_json::from_value(json!(id)).unwrap();
        event
    }
}

prop_compose! {
    fn any_review()(
        second in 0u32..2,
        reviewer in "[ab]",
        exp in prop::sample::select(vec![2, 4]),
        blinded in any::<bool>(),
    ) -> Review {
        // Few enough for two of one id that say different things.
        review(second, &reviewer, exp, Letter::B, blinded)
    }
}

fn review(second: u32, reviewer: &str, exp: usize, letter: Letter, blinded: bool) -> Review {
    let exp = Expansion::try_from(exp as u8).unwrap();
    Review {
        embryo_id: "e".to_owned(),
        site_id: "north".to_owned(),
        reviewer: reviewer.to_owned(),
        reviewed_at: "2026-01-31T15:00:00Z".parse::<DateTime<Utc>>().unwrap()
            + TimeDelta::seconds(second.into()),
        // Not covered by the id.
        blinded,
        exp,
        icm: exp.has_letters().then_some(letter),
        te: exp.has_letters().then_some(letter),
        reason: ReviewReason::Routine,
        summary: ReviewedSummary { version: 1, gardner: None, model_digest: "ab".repeat(32) },
    }
}

#[derive(Debug, Clone)]
enum Input {
    Grade(Box<GradeEvent>),
    Review(Review),
}

/// The summary of these events in this order, restored from its own JSON before each position in `restarts`. Reviews
/// that come before the embryo wait for it.
fn summary_of(inputs: &[Input], restarts: &[usize]) -> Option<EmbryoSummary> {
    let mut embryo: Option<Embryo> = None;
    let mut waiting = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        if restarts.contains(&index)
            && let Some(known) = &embryo
        {
            let json = serde_json::to_string(&known.summary()).unwrap();
            embryo = Some(Embryo::restore(window(), &serde_json::from_str(&json).unwrap()).unwrap());
        }
        match (&mut embryo, input) {
            (Some(embryo), Input::Grade(event)) => drop(embryo.add(event).unwrap()),
            (Some(embryo), Input::Review(review)) => {
                embryo.review(review);
            }
            (None, Input::Grade(event)) => embryo = Embryo::first(window(), event).unwrap(),
            (None, Input::Review(review)) => waiting.push(review),
        }
        if let Some(embryo) = &mut embryo {
            for review in waiting.drain(..) {
                embryo.review(review);
            }
        }
    }
    embryo.map(|embryo| EmbryoSummary { version: 1, ..embryo.summary() })
}

proptest! {
    #[test]
    fn order_repetitions_and_restarts_change_nothing(
        grades in prop::collection::vec(any_event(), 1..40),
        reviews in prop::collection::vec(any_review(), 0..8),
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
        restarts in prop::collection::vec(0usize..80, 0..4),
    ) {
        let grades = grades.into_iter().map(|event| Input::Grade(Box::new(event)));
        let events: Vec<Input> = grades.chain(reviews.into_iter().map(Input::Review)).collect();
        let plain = summary_of(&events, &[]);
        // Another order, each event once more.
        let mut again = events.clone();
        again.extend(events.iter().cloned());
        let rotation = order.index(again.len());
        again.rotate_left(rotation);
        let mut state = seed;
        for index in (1..again.len()).rev() {
            state = mix(state, index as u32);
            again.swap(index, (state % (index as u64 + 1)) as usize);
        }
        prop_assert_eq!(summary_of(&again, &restarts), plain);
    }
}

#[test]
fn the_newest_review_stands_beside_the_grades_and_decides_the_assessment() {
    let mut embryo = embryo(&[event(1, 3, 112.0, 4, 4.0)]);
    assert_eq!(embryo.summary().assessment, SummaryAssessment::Preliminary);
    let of = |second, exp, letter| review(second, "a", exp, letter, true);
    // The machine says 4AB; nobody who gives one letter twice says so.
    assert_eq!(embryo.review(&of(2, 4, Letter::A)), Effect::Changed);
    let agrees = Review { te: Some(Letter::B), ..of(3, 4, Letter::A) };
    assert_eq!(embryo.summary().assessment, SummaryAssessment::Amended);
    assert_eq!(embryo.review(&agrees), Effect::Changed);
    assert_eq!(embryo.review(&of(1, 2, Letter::A)), Effect::Changed);
    let summary = embryo.summary();
    let newest = summary.review.as_ref().unwrap();
    assert_eq!((summary.assessment, summary.reviews), (SummaryAssessment::Final, 3));
    assert_eq!(
        (newest.id.clone(), newest.gardner.as_str(), summary.gardner.as_deref()),
        (agrees.id(), "4AB", Some("4AB"))
    );
    // A later frame changes what the grades say, and with it whether they were confirmed.
    embryo.add(&event(2, 3, 113.0, 6, 9.0)).unwrap();
    assert_eq!(
        (embryo.summary().assessment, embryo.summary().gardner.as_deref()),
        (SummaryAssessment::Amended, Some("6AB"))
    );
}

#[test]
fn a_review_of_an_embryo_without_any_grade_amends() {
    let mut embryo = embryo(&[abstained(1, 112.0)]);
    embryo.review(&review(0, "a", 2, Letter::A, false));
    assert_eq!(embryo.summary().assessment, SummaryAssessment::Amended);
    assert_eq!(embryo.summary().comparison().unwrap().exp, None);
}

#[test]
fn of_many_reviews_the_newest_are_known_whatever_their_order() {
    let reviews: Vec<Review> = (0..150).map(|second| review(second, "a", 4, Letter::A, false)).collect();
    let of = |reviews: &mut dyn Iterator<Item = &Review>| {
        let mut embryo = embryo(&[event(1, 3, 112.0, 4, 4.0)]);
        for review in reviews {
            embryo.review(review);
        }
        embryo.summary()
    };
    let summary = of(&mut reviews.iter());
    assert_eq!(summary.reviews, review::MAX_REVIEWS);
    assert_eq!(summary.known_reviews.first().unwrap().id, reviews[50].id());
    assert_eq!(of(&mut reviews.iter().rev().chain(&reviews)), summary);
    let mut wrong = summary.clone();
    wrong.known_reviews.pop();
    assert!(Embryo::restore(window(), &wrong).is_err());
}

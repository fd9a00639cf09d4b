//! What is kept, what is due and what is forgotten.

use super::*;
use crate::domain::{Letter, ReviewReason, ReviewedSummary, SummaryAssessment};

fn keeper(max_embryos: usize) -> Keeper {
    let settings = SummariesSettings {
        topic: "summaries".into(),
        group_id: String::new(),
        publish_interval_ms: 1,
        grace_minutes: 60,
        max_embryos,
    };
    let mut keeper = Keeper::new(&settings, Window::new(110.0, 120.0));
    keeper.begin(0);
    keeper
}

fn event(embryo: &str) -> GradeEvent {
    let json = include_str!("../../schemas/examples/grade/graded.json");
    GradeEvent { embryo_id: embryo.to_owned(), ..serde_json::from_str(json).unwrap() }
}

#[test]
fn an_embryo_is_due_once_per_change_and_again_when_its_window_ends() {
    let mut keeper = keeper(10);
    for _ in 0..2 {
        keeper.receive(0, &event("a")).unwrap();
    }
    let due = keeper.due(|_| true);
    assert_eq!((due.len(), due[0].1.version), (1, 1));
    keeper.published(&due);
    assert!(keeper.due(|_| true).is_empty());
    keeper.tick("2026-01-31T16:00:00Z".parse().unwrap());
    assert!(keeper.due(|_| true).is_empty(), "within its window");
    keeper.tick("2026-01-31T18:00:00Z".parse().unwrap());
    let due = keeper.due(|_| true);
    assert_eq!((due[0].1.version, due[0].1.status), (2, SummaryStatus::Final));
    assert!(keeper.due(|partition| partition != 0).is_empty());
}

#[test]
fn finished_embryos_beyond_the_bound_are_forgotten_and_come_back_only_restored() {
    let mut keeper = keeper(1);
    for id in ["a", "b", "c"] {
        keeper.receive(0, &event(id)).unwrap();
    }
    keeper.tick("2026-02-01T00:00:00Z".parse().unwrap());
    let due = keeper.due(|_| true);
    keeper.published(&due);
    assert_eq!(keeper.embryos(), 1, "c was touched last");
    assert_eq!(keeper.receive(0, &event("a")), Ok(Received::Forgotten));
    let (_, summary) = due.iter().find(|(_, it)| it.embryo_id == "a").unwrap();
    keeper.recall(0, summary).unwrap();
    assert_eq!(keeper.receive(0, &event("a")), Ok(Received::Taken(Effect::Unchanged, vec![])));
}

fn review(embryo: &str, second: u32, expansion: u8) -> Review {
    Review {
        embryo_id: embryo.to_owned(),
        site_id: "north".to_owned(),
        reviewer: "r-1".to_owned(),
        reviewed_at: "2026-01-31T15:00:00Z".parse::<DateTime<Utc>>().unwrap()
            + TimeDelta::seconds(second.into()),
        blinded: true,
        exp: expansion.try_into().unwrap(),
        icm: (expansion > 2).then_some(Letter::A),
        te: (expansion > 2).then_some(Letter::B),
        reason: ReviewReason::Routine,
        summary: ReviewedSummary { version: 1, gardner: None, model_digest: "ab".repeat(32) },
    }
}

#[test]
fn a_review_that_comes_before_any_grade_waits_and_holds_the_offset_back() {
    let mut keeper = keeper(10);
    assert_eq!(keeper.review(0, 7, &review("a", 0, 4)), Reviewed::Waits);
    assert_eq!(keeper.review(0, 8, &review("b", 0, 4)), Reviewed::Waits);
    assert_eq!((keeper.waits_from(0), keeper.waiting()), (Some(7), 2));
    let Ok(Received::Taken(Effect::Changed, taken)) = keeper.receive(0, &event("a")) else { panic!() };
    assert_eq!(taken.len(), 1);
    assert_eq!((keeper.waits_from(0), keeper.waiting()), (Some(8), 1));
    // It lies before the committed offset, so it is read again after a restart.
    assert_eq!(keeper.review(0, 7, &review("a", 0, 4)), Reviewed::Known);
    let due = keeper.due(|_| true);
    assert_eq!((due.len(), due[0].1.reviews), (1, 1));
}

#[test]
fn only_so_many_reviews_may_wait_and_those_that_do_are_not_forgotten_for_others() {
    let mut keeper = keeper(10);
    for offset in 0..1_000 {
        assert_eq!(keeper.review(0, offset, &review("nobody", 0, 4)), Reviewed::Waits);
    }
    assert_eq!(keeper.review(0, 1_000, &review("a", 0, 4)), Reviewed::Refused);
    assert_eq!(keeper.review(0, 999, &review("nobody", 0, 4)), Reviewed::Waits, "read again");
    assert_eq!((keeper.waits_from(0), keeper.waiting()), (Some(0), 1_000));
}

#[test]
fn a_review_makes_a_summary_due_and_only_once() {
    let mut keeper = keeper(10);
    keeper.receive(0, &event("a")).unwrap();
    keeper.published(&keeper.due(|_| true));
    // The example is graded 4AB.
    let Reviewed::New(comparison) = keeper.review(0, 0, &review("a", 0, 4)) else { panic!() };
    assert_eq!((comparison.agreed, comparison.exp, comparison.icm), (true, Some((3, 3)), Some((0, 0))));
    let due = keeper.due(|_| true);
    assert_eq!((due[0].1.version, due[0].1.assessment), (2, SummaryAssessment::Final));
    keeper.published(&due);
    assert_eq!(keeper.review(0, 1, &review("a", 0, 4)), Reviewed::Known);
    assert!(keeper.due(|_| true).is_empty());
    let Reviewed::New(comparison) = keeper.review(0, 2, &review("a", 1, 2)) else { panic!() };
    assert_eq!((comparison.agreed, comparison.exp, comparison.te), (false, Some((3, 1)), None));
    assert_eq!(keeper.due(|_| true)[0].1.assessment, SummaryAssessment::Amended);
}

#[test]
fn a_forgotten_embryo_is_brought_back_for_a_review_too_from_where_its_summary_lies() {
    let mut keeper = keeper(10);
    keeper.receive(0, &event("a")).unwrap();
    keeper.tick("2026-02-01T00:00:00Z".parse().unwrap());
    let (_, summary) = keeper.due(|_| true).remove(0);
    let mut later = self::keeper(10);
    later.restore(0, &summary, 41).unwrap();
    assert_eq!(later.embryos(), 0);
    assert_eq!(later.review(0, 3, &review("a", 0, 4)), Reviewed::Forgotten);
    assert_eq!(later.last_summary(0, "a"), Some(41));
    later.recall(0, &summary).unwrap();
    assert!(matches!(later.review(0, 3, &review("a", 0, 4)), Reviewed::New(_)));
    assert_eq!(later.waiting(), 0);
}

#[test]
fn kappa_is_that_of_the_newest_review_of_each_embryo_and_absent_of_too_few() {
    let mut keeper = keeper(100);
    // All are graded 4AB. Of 40 reviewers' expansions, 30 are 4 and 10 are 2, and of 10 a first one was 6.
    for number in 0..40_u32 {
        let id = format!("e-{number}");
        keeper.receive(0, &event(&id)).unwrap();
        if number < 10 {
            keeper.review(0, i64::from(number), &review(&id, 0, 6));
        }
        keeper.review(0, i64::from(100 + number), &review(&id, 1, if number < 10 { 2 } else { 4 }));
        if number == 28 {
            keeper.published(&keeper.due(|_| true));
            assert_eq!(keeper.kappa(Head::Exp), None, "29 embryos");
        }
    }
    keeper.published(&keeper.due(|_| true));
    // One of the graders always says the same, so chance explains it all.
    assert_eq!(keeper.kappa(Head::Exp), Some(0.0));
    // Where both always say the same there is nothing to explain; 30 embryos have letters of both.
    assert_eq!((keeper.kappa(Head::Icm), keeper.kappa(Head::Te)), (None, None));
    keeper.revoke(0);
    assert_eq!(keeper.kappa(Head::Exp), None);
}

use super::*;

pub(in crate::board) fn event(embryo: &str, run: u64) -> GradeEvent {
    let json = include_str!("../../../schemas/examples/grade/graded.json");
    GradeEvent { embryo_id: embryo.to_owned(), run, ..serde_json::from_str(json).unwrap() }
}

pub(in crate::board) fn summary(embryo: &str, version: u64) -> EmbryoSummary {
    let json = include_str!("../../../schemas/examples/summary/final.json");
    EmbryoSummary { embryo_id: embryo.to_owned(), version, ..serde_json::from_str(json).unwrap() }
}

fn ids(changes: &Changes<'_>) -> Vec<String> {
    let mut ids: Vec<String> = changes.embryos.iter().map(|(id, _)| (*id).clone()).collect();
    ids.sort();
    ids
}

fn at() -> DateTime<Utc> {
    "2026-03-02T10:00:00Z".parse().unwrap()
}

#[test]
fn the_latest_run_is_shown_whatever_the_order_and_frames_are_bounded() {
    let mut wall = Wall::new(10, 3);
    for run in [5, 2, 9, 7, 9] {
        wall.grade(event("e", run), at());
    }
    let embryo = wall.embryo("e").unwrap();
    assert_eq!(embryo.latest().unwrap().run, 9);
    assert_eq!(embryo.frames.keys().map(|(run, _)| *run).collect::<Vec<_>>(), [5, 7, 9]);
}

#[test]
fn an_abstained_frame_has_no_confidence_though_its_heads_are_kept() {
    let json = include_str!("../../../schemas/examples/grade/abstained_low_confidence.json");
    let mut wall = Wall::new(10, 3);
    wall.grade(serde_json::from_str(json).unwrap(), at());
    let changes = wall.changes(0);
    let latest = changes.embryos[0].1.latest().unwrap();
    assert!(latest.confidence.is_none() && latest.gardner.is_none() && latest.heads.is_some());
}

#[test]
fn embryos_are_bounded_the_silent_one_goes_first_and_pages_are_told() {
    let mut wall = Wall::new(2, 3);
    let minute = |minute: i64| at() + chrono::TimeDelta::minutes(minute);
    wall.grade(event("a", 1), minute(1));
    wall.grade(event("b", 1), minute(2));
    let seen = wall.changes(0).sequence;
    wall.grade(event("a", 2), minute(3));
    wall.grade(event("c", 1), minute(4));
    assert_eq!((wall.len(), wall.by_age.len()), (2, 2));
    let changes = wall.changes(seen);
    assert_eq!((ids(&changes), changes.all), (vec!["a".into(), "c".into()], false));
    assert_eq!(changes.gone, ["b"]);
    assert!(wall.changes(changes.sequence).embryos.is_empty());
    wall.summary(summary("d", 1), minute(2));
    wall.grade(event("a", 1), minute(0));
    assert_eq!(ids(&wall.changes(0)), ["a", "c"], "what is read late is not what happens now");
    wall.summary(summary("d", 1), minute(4));
    assert_eq!(ids(&wall.changes(0)), ["c", "d"]);
}

#[test]
fn a_page_that_missed_too_much_begins_anew() {
    let mut wall = Wall::new(1, 1);
    wall.grade(event("first", 1), at());
    let seen = wall.changes(0).sequence;
    for number in 0..=GONE {
        wall.grade(event(&number.to_string(), 1), at());
    }
    assert!(wall.changes(seen).all);
    assert!(wall.gone.len() <= GONE);
    assert!(wall.changes(u64::MAX).all, "another process answered it before");
}

#[test]
fn only_a_newer_summary_counts_and_the_last_versions_can_be_reviewed() {
    let mut wall = Wall::new(1, 1);
    for version in 1..=100 {
        wall.summary(summary("e", version), at());
    }
    wall.summary(summary("e", 99), at());
    let embryo = wall.embryo("e").unwrap();
    let kept = embryo.summary.as_ref().unwrap();
    assert_eq!((kept.version, kept.contributions.len()), (100, 0));
    assert_eq!(embryo.on_the_table(100).unwrap().gardner.as_deref(), Some("4AB"));
    assert!(embryo.on_the_table(36).is_none() && embryo.on_the_table(37).is_some());
    assert_eq!(embryo.versions.len(), VERSIONS);
}

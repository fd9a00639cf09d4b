//! What is counted, and that it balances.

use super::*;

fn metrics() -> Metrics {
    Metrics::new(&["north".to_owned(), "south".to_owned()]).unwrap()
}

#[test]
fn an_unknown_site_is_counted_as_other_so_that_labels_stay_bounded() {
    let metrics = metrics();
    metrics.frame_received("north");
    for site in ["south-east", "x", ""] {
        metrics.frame_received(site);
    }
    let text = metrics.encode().unwrap();
    assert!(text.contains("memebg_frames_received_total{site=\"north\"} 1\n"), "{text}");
    assert!(text.contains("memebg_frames_received_total{site=\"south\"} 0\n"), "{text}");
    assert!(text.contains("memebg_frames_received_total{site=\"other\"} 3\n"), "{text}");
    assert_eq!(text.matches("memebg_frames_received_total{").count(), 3);
}

#[test]
fn totals_balance_when_every_frame_is_counted_once() {
    let metrics = metrics();
    for _ in 0..7 {
        metrics.frame_received("north");
    }
    metrics.grade_published(&[("exp", "4"), ("icm", "A"), ("te", "B")]);
    metrics.abstained("blurred");
    metrics.frame_skipped("too_early");
    metrics.frame_skipped("too_early");
    metrics.frame_skipped("duplicate");
    metrics.dead_lettered("VALIDATE", "clock_missing");
    metrics.set_frames_in_flight(0);
    let totals = metrics.totals();
    let skipped: u64 = totals.skipped.values().sum();
    assert_eq!(totals.received, 7);
    assert_eq!((totals.graded, totals.abstained, skipped), (1, 1, 2));
    assert_eq!((totals.duplicate, totals.dead_lettered, totals.in_flight), (1, 1, 0));
    assert_eq!(totals.skipped.get("too_early"), Some(&2));
    assert!(!totals.skipped.contains_key("duplicate"), "shown apart");
}

#[test]
fn two_instances_share_nothing() {
    let (one, other) = (metrics(), metrics());
    one.frame_received("north");
    assert_eq!((one.totals().received, other.totals().received), (1, 0));
    assert_eq!(one.clone().totals(), one.totals());
}

#[test]
fn a_new_model_replaces_the_one_named_before() {
    let metrics = metrics();
    metrics.set_model("demo", "1", "aa");
    metrics.set_model("demo", "2", "bb");
    let text = metrics.encode().unwrap();
    assert_eq!(text.matches("memebg_model_info{").count(), 1);
    assert!(text.contains(r#"version="2""#), "{text}");
}

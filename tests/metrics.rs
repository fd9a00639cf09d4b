//! The metrics are what Prometheus' own linter accepts, and all that the contract names are there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use memebg::domain::Head;
use memebg::telemetry::metrics::Metrics;

/// Every metric, with its type, that dashboards and alerts may rely on.
const CONTRACT: &[(&str, &str)] = &[
    ("frames_received_total", "counter"),
    ("frames_skipped_total", "counter"),
    ("frames_dead_lettered_total", "counter"),
    ("frames_abstained_total", "counter"),
    ("grades_published_total", "counter"),
    ("grade_total", "counter"),
    ("frames_in_flight", "gauge"),
    ("stage_duration_seconds", "histogram"),
    ("batch_size_frames", "histogram"),
    ("batch_wait_seconds", "histogram"),
    ("inference_duration_seconds", "histogram"),
    ("frame_age_at_publish_seconds", "histogram"),
    ("consumer_lag_frames", "gauge"),
    ("rebalances_total", "counter"),
    ("commit_failures_total", "counter"),
    ("backpressure_seconds_total", "counter"),
    ("ready", "gauge"),
    ("device_info", "gauge"),
    ("model_info", "gauge"),
    ("build_info", "gauge"),
    ("device_policy_info", "gauge"),
    ("site_last_frame_timestamp_seconds", "gauge"),
    ("instrument_frames_total", "counter"),
    ("grade_confidence_ratio", "histogram"),
    ("training_distance", "histogram"),
    ("drift_psi", "gauge"),
    ("drift_embedding_shift", "gauge"),
    ("drift_frames", "gauge"),
    ("model_reloads_total", "counter"),
    ("shadow_info", "gauge"),
    ("shadow_frames_total", "counter"),
    ("shadow_agreement_total", "counter"),
    ("summarised_frames_total", "counter"),
    ("summaries_published_total", "counter"),
    ("summaries_restored_total", "counter"),
    ("summaries_in_memory", "gauge"),
    ("emr_summaries_total", "counter"),
    ("emr_retries_total", "counter"),
    ("emr_waiting_summaries", "gauge"),
    ("emr_age_at_delivery_seconds", "histogram"),
    ("emr_last_delivery_timestamp_seconds", "gauge"),
    ("emr_lag_summaries", "gauge"),
    ("summaries_lag_events", "gauge"),
    ("summaries_dead_lettered_total", "counter"),
    ("reviews_total", "counter"),
    ("review_agreement_total", "counter"),
    ("review_kappa_ratio", "gauge"),
    ("reviews_waiting", "gauge"),
];

fn used() -> String {
    let metrics = Metrics::new(&["north".to_owned()]).unwrap();
    metrics.frame_received("north");
    metrics.batch_closed(4, Duration::from_millis(20));
    metrics.stage_seconds("decode", Duration::from_millis(1));
    metrics.inference_seconds("embedding", Duration::from_millis(90));
    metrics.frame_age_at_publish(Duration::from_secs(3));
    metrics.backpressure(Duration::from_millis(1_500));
    metrics.set_device("cpu", "cpu");
    metrics.set_model("demo", "0.1.0", &"ab".repeat(32));
    metrics.set_device_policy("auto");
    metrics.instrument_frame("invented", "T-1");
    metrics.opinion(&[(Head::Exp, 0.8)], Some(12.0));
    metrics.set_drift_psi("invented T-1", Head::Exp, 0.1);
    metrics.set_drift_embedding_shift("invented T-1", 0.2);
    metrics.set_drift_frames("invented T-1", 500);
    metrics.set_review_kappa(Head::Exp, Some(0.8));
    metrics.set_shadow("demo", "0.2.0", &"cd".repeat(32));
    metrics.encode().unwrap()
}

#[test]
fn every_metric_of_the_contract_is_exported_and_no_other() {
    let text = used();
    let mut exported: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE memebg_"))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let mut contract = CONTRACT.to_vec();
    exported.sort_unstable();
    contract.sort_unstable();
    assert_eq!(exported, contract);
    let own = text.contains("process_resident_memory_bytes");
    assert_eq!(own, cfg!(target_os = "linux"), "the process's own metrics");
}

#[test]
fn label_sets_that_are_enums_exist_before_the_first_event() {
    let text = Metrics::new(&["north".to_owned()]).unwrap().encode().unwrap();
    for series in [
        r#"frames_skipped_total{reason="duplicate"} 0"#,
        r#"frames_dead_lettered_total{code="clock_missing",stage="VALIDATE"} 0"#,
        r#"frames_abstained_total{reason="blurred"} 0"#,
        r#"grade_total{grade="6",head="exp"} 0"#,
        r#"stage_duration_seconds_count{stage="publish"} 0"#,
        r#"inference_duration_seconds_count{model="multitask"} 0"#,
        r#"summaries_dead_lettered_total{code="invalid_json",event="review"} 0"#,
        r#"reviews_total{result="changed"} 0"#,
        r#"review_agreement_total{agrees="false",head="te"} 0"#,
    ] {
        assert!(text.contains(&format!("memebg_{series}\n")), "{series} is missing in\n{text}");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not on PATH; Debian's package `prometheus` has it");
    promtool.stdin.take().unwrap().write_all(used().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "promtool: {} {said}", output.status);
}

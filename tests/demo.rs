//! The demo as a person runs it: the built program, alone, with an embedded broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use memebg::domain::Letter;
use memebg::incubator::{Embryo, Renderer};
use serde_json::Value;

const SIDE_PX: u32 = 256;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
    command.arg("demo").args(arguments);
    command.env("MEMEBG__TELEMETRY__LISTEN", "127.0.0.1:0").env("MEMEBG__BOARD__LISTEN", "127.0.0.1:0");
    command
}

/// The line of JSON at the end.
fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn count(summary: &Value, what: &str) -> u64 {
    summary[what].as_u64().unwrap()
}

/// received = graded + abstained + skipped + duplicate + dead-lettered, and nothing is left.
fn assert_balanced(summary: &Value) {
    let ends = ["graded", "abstained", "skipped", "duplicate", "dead_lettered"];
    let settled: u64 = ends.iter().map(|end| count(summary, end)).sum();
    assert_eq!(count(summary, "received"), settled, "{summary}");
    assert_eq!(count(summary, "sent"), settled, "{summary}");
    assert_eq!(count(summary, "in_flight"), 0, "{summary}");
}

#[test]
fn every_image_of_a_folder_gets_one_grade_event_and_the_demo_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut renderer = Renderer::new(SIDE_PX);
    for seed in 0..12 {
        let embryo = Embryo::with_quality(seed, Letter::A, Letter::B);
        renderer.render(&embryo, 116.0, 0.0).save(folder.path().join(format!("{seed}.png"))).unwrap();
    }
    // Black: looked at, not graded.
    image::GrayImage::new(SIDE_PX, SIDE_PX).save(folder.path().join("black.png")).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not an image").unwrap();

    let images = folder.path().to_str().unwrap();
    let output = demo(&["--images", images, "--seconds", "90", "--json"]).output().unwrap();
    let summary = summary(&output);
    assert_balanced(&summary);
    // The model may be unsure of an embryo; it is never asked about black.
    let (graded, abstained) = (count(&summary, "graded"), count(&summary, "abstained"));
    assert!(graded > 0 && abstained > 0 && graded + abstained == 13, "{summary}");
    for what in ["grade_events", "grade_ids", "embryos"] {
        assert_eq!(count(&summary, what), 13, "{what}");
    }
    assert_eq!(summary["untrained"], false);
}

#[test]
fn ctrl_c_stops_the_incubators_finishes_their_frames_and_says_what_became_of_them() {
    let mut demo = demo(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let grade = lines.find(|line| line.contains(" hpi ")).unwrap();
    assert!(!grade.contains("UNTRAINED"), "{grade}");
    let interrupted = Command::new("sh").arg("-c").arg(format!("kill -INT {}", demo.id())).status().unwrap();
    assert!(interrupted.success());
    let last = lines.last().unwrap();
    assert!(last.contains(" graded, ") && last.contains(" dead-lettered"), "{last}");
    assert!(demo.wait().unwrap().success());
}

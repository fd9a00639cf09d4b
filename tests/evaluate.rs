//! `memebg evaluate` as a person runs it: the built program, a labelled set of drawn embryos, the demo bundle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "common/bundle.rs"]
mod bundle;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use memebg::model::Bundle;
use serde_json::Value;

const PICTURES: usize = 24;

fn memebg(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap()
}

fn drawn_set(folder: &Path) {
    let (folder, pictures) = (folder.to_str().unwrap(), PICTURES.to_string());
    let drawn = memebg(&["incubate", "--out", folder, "--pictures", &pictures, "--seed", "7"]);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
}

/// Lines of a label file as its fields.
fn labels(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("labels.csv")).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn the_demo_bundle_is_measured_on_every_label_and_shown_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("drawn <7>");
    drawn_set(&set);
    let report = folder.path().join("report.html");
    let data = set.to_str().unwrap();
    let output = memebg(&["evaluate", "--data", data, "--json", "--report", report.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let evaluation: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(evaluation["data"]["images"], PICTURES);
    assert_eq!(evaluation["encoders"], "bundle");
    assert!(evaluation["protocol"].is_null());
    for (index, head) in ["exp", "icm", "te"].into_iter().enumerate() {
        let graded = labels(&set).iter().skip(1).filter(|line| !line[2 + index].is_empty()).count();
        assert!(graded > PICTURES / 4, "{graded} pictures with {head}");
        let measured = &evaluation["heads"][index];
        assert_eq!(
            (&measured["head"], &measured["multi"]["figures"]["images"]),
            (&head.into(), &graded.into())
        );
    }
    let notes = evaluation["notes"].to_string();
    assert!(notes.contains("quality gate") && !notes.contains("UNTRAINED"), "{notes}");
    let out_of_distribution = &evaluation["out_of_distribution"];
    let seen = |whose: &str| out_of_distribution[whose]["images"].as_u64().unwrap();
    assert_eq!(seen("graded") + seen("other_stages"), PICTURES as u64, "{out_of_distribution}");

    let html = fs::read_to_string(report).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && !html.contains("UNTRAINED"));
    assert!(html.contains("drawn &lt;7&gt;") && !html.contains("<7>"));

    let output = memebg(&["evaluate", "--data", data]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && table.contains("EXP 1 to 6") && !table.contains("UNTRAINED"),
        "{table}"
    );
}

#[test]
fn an_untrained_model_is_called_so_wherever_its_answers_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let [model, set] = ["model", "set"].map(|name| folder.path().join(name));
    fs::create_dir(&model).unwrap();
    bundle::copy_without_limits(&model);
    let path = model.join("manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(&path, manifest.replace("\"untrained\":false", "\"untrained\":true")).unwrap();
    drawn_set(&set);
    let image = set.join("images").join(&labels(&set)[1][0]);
    let report = folder.path().join("report.html");
    let [set, image, report] = [&set, &image, &report].map(|path| path.to_str().unwrap());
    let model = format!("model.bundle={}", model.to_str().unwrap());
    for arguments in [&["evaluate", "--data", set, "--report", report][..], &["grade", image]] {
        let output = memebg(&[&["--set", &model], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("UNTRAINED"), "{shown}");
    }
    assert!(fs::read_to_string(report).unwrap().contains("UNTRAINED"));
}

#[test]
fn everything_wrong_with_a_set_is_named_by_file_and_line_before_a_model_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    drawn_set(&set);
    let whole = labels(&set);
    let labels_path = set.join("labels.csv");
    let refused = || {
        // A model that does not exist: what looks for it says so.
        let data = set.to_str().unwrap();
        let output = memebg(&["--set", "model.bundle=no/such/bundle", "evaluate", "--data", data]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty() && !error.contains("no/such/bundle"), "{error}");
        error
    };
    let change = |change: &dyn Fn(&mut Vec<Vec<String>>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        let text: Vec<String> = lines.iter().map(|line| line.join(",")).collect();
        fs::write(&labels_path, text.join("\n")).unwrap();
    };
    let at = |line: usize, problem: &str| format!("{}:{line}: {problem}", labels_path.display());
    let graded: Vec<usize> = (1..whole.len()).filter(|line| !whole[*line][3].is_empty()).collect();
    let [first, second, ..] = graded[..] else { unreachable!("drawn with letters") };

    change(&|lines| {
        lines[first][2] = "9".to_owned();
        lines[second][3] = "D".to_owned();
    });
    let error = refused();
    assert!(error.contains(&at(first + 1, "EXP \"9\" is not one of 1 to 6")), "{error}");
    assert!(error.contains(&at(second + 1, "ICM \"D\" is not one of A, B and C")), "{error}");

    let images = set.join("images");
    change(&|lines| {
        lines[first][0] = "missing.jpg".to_owned();
        let mut again = lines[second].clone();
        again[0] = "again.jpg".to_owned();
        again[3] = if again[3] == "A" { "B" } else { "A" }.to_owned();
        lines.push(again);
    });
    fs::copy(images.join(&whole[second][0]), images.join("again.jpg")).unwrap();
    let error = refused();
    let missing = at(first + 1, &format!("{}: cannot be read: ", images.join("missing.jpg").display()));
    assert!(error.contains(&missing), "{error}");
    let again = format!("again.jpg is the picture of line {} with other grades", second + 1);
    assert!(error.contains(&at(whole.len() + 1, &again)), "{error}");

    fs::remove_file(&labels_path).unwrap();
    assert!(refused().contains("labels.csv: cannot be read"));
}

#[test]
fn a_report_that_could_not_be_written_is_refused_before_anything_is_done() {
    let output = memebg(&["evaluate", "--data", "no/such/set", "--report", "no/such/folder/report.html"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("not a file in a folder that exists") && !error.contains("no/such/set"),
        "{error}"
    );
}

#[cfg(not(feature = "train"))]
#[test]
fn a_protocol_without_the_training_stack_says_how_to_build_it() {
    let output = memebg(&["evaluate", "--data", "no/such/set", "--protocol", "kfold"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("cargo build --release --features train"), "{error}");
}

#[test]
fn a_population_is_kept_in_the_bundle_under_a_new_digest_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (set, kept) = (folder.path().join("drawn"), folder.path().join("bundle"));
    drawn_set(&set);
    fs::create_dir(&kept).unwrap();
    bundle::copy_without_limits(&kept);
    let before = Bundle::open(&kept).unwrap().identity().digest;
    let model = format!("model.bundle={}", kept.display());
    let output =
        memebg(&["evaluate", "--data", set.to_str().unwrap(), "--set-population", "--json", "--set", &model]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let after = Bundle::open(&kept).unwrap();
    assert_ne!(after.identity().digest, before);
    let graded = labels(&set).iter().skip(1).filter(|line| !line[2].is_empty()).count();
    let population = after.population().unwrap();
    assert_eq!(population.frames, graded as u64);
    assert!(population.about.contains("the labelled set drawn"), "{}", population.about);

    let path = kept.join("population.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replacen("0.", "1.", 1)).unwrap();
    let error = Bundle::open(&kept).unwrap_err().to_string();
    assert!(error.contains("population.json") && error.contains("sha256"), "{error}");
}

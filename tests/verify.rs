//! `memebg verify` on a grade that the real service has published, and on what was done to it afterwards.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::frames::{self, Record};
use common::service::TestService;
use serde_json::{Value, json};

/// A grade event of the photograph, by the bundle in `folder`, which is a copy that outlives the service.
fn published(folder: &Path) -> Value {
    let service = TestService::start(&[]);
    service.send(&Record::of(&frames::event("verified")));
    let (message, _) = service.grades_of("verified", 1).remove(0);
    for file in fs::read_dir(&service.config.model.bundle).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()
}

fn verify(folder: &Path, event: &Value, image: &[u8]) -> (Output, Value) {
    let [event_file, image_file] = ["event.json", "image.jpg"].map(|name| folder.join(name));
    fs::write(&event_file, event.to_string()).unwrap();
    fs::write(&image_file, image).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_memebg"))
        .args(["verify", "--json", "--set", "model.device=cpu", "--set"])
        .arg(format!("model.bundle={}", folder.display()))
        .args([event_file, image_file])
        .output()
        .unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, document)
}

/// What differs and must not.
fn wrong(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().unwrap().iter();
    let wrong = findings.filter(|finding| finding["binding"] == true && finding["same"] == false);
    wrong.map(|finding| finding["what"].as_str().unwrap()).collect()
}

#[test]
fn a_published_grade_is_made_again_and_one_that_was_changed_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let event = published(folder.path());
    let image = frames::photograph_jpeg();

    let (output, document) = verify(folder.path(), &event, image);
    assert!(output.status.success(), "{document}");
    assert_eq!((wrong(&document), &document["verified"]), (vec![], &json!(true)));
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["same"] == true), "to the last decimal: {document}");
    assert!(findings.iter().any(|finding| finding["what"] == "probabilities"), "{document}");

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = event.clone();
        change(&mut event);
        event
    };
    let other_grade = if event["exp"]["grade"] == 4 { 3 } else { 4 };
    for (event, differs) in [
        (changed(&|event| event["exp"]["grade"] = json!(other_grade)), "grade"),
        (changed(&|event| event["embryo_id"] = json!("another")), "id"),
        (changed(&|event| event["model"]["digest"] = json!("0".repeat(64))), "model"),
        (changed(&|event| event["status"] = json!("abstained")), "status"),
    ] {
        let (output, document) = verify(folder.path(), &event, image);
        assert_eq!(output.status.code(), Some(1), "{document}");
        assert!(wrong(&document).contains(&differs), "{differs}: {document}");
        assert_eq!(document["verified"], false);
    }

    let other = frames::jpeg(&image::GrayImage::from_pixel(300, 300, image::Luma([90])));
    let (output, document) = verify(folder.path(), &event, &other);
    assert_eq!((output.status.code(), wrong(&document)), (Some(1), vec!["image"]));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("models loaded"), "nothing was graded");
}

#[test]
fn what_is_no_grade_event_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("manifest.json"), "{}").unwrap();
    let (output, _) = verify(folder.path(), &json!({"id": "x"}), frames::photograph_jpeg());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("event.json is no grade event"), "{said}");
}

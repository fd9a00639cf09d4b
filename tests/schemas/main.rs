//! The schemas, their examples and the Rust types say the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod agreement;
mod grades;
mod manifests;
mod privacy;
mod reviews;
mod summaries;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use jsonschema::Validator;
use memebg::domain::{
    Clocks, FRAME_EVENT_TYPE, FrameEvent, GRADE_EVENT_TYPE, REVIEW_EVENT_TYPE, RejectionCode,
    SUMMARY_EVENT_TYPE, Stage,
};
use serde_json::Value;

static FRAME: LazyLock<Validator> = LazyLock::new(|| validator("frame.v1"));
static GRADE: LazyLock<Validator> = LazyLock::new(|| validator("grade.v1"));
static SUMMARY: LazyLock<Validator> = LazyLock::new(|| validator("summary.v1"));
static REVIEW: LazyLock<Validator> = LazyLock::new(|| validator("review.v1"));
static MANIFEST: LazyLock<Validator> = LazyLock::new(|| validator("manifest.v1"));

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(path)
}

fn validator(name: &str) -> Validator {
    let schema = std::fs::read_to_string(folder(&format!("{name}.schema.json"))).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap()
}

/// Name and text of every example in a folder.
fn examples(path: &str) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder("examples").join(path)).unwrap().map(|entry| entry.unwrap().path());
    let examples: BTreeMap<_, _> = files
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(!examples.is_empty(), "no examples in {path}");
    examples
}

fn complaints(schema: &Validator, value: &Value) -> Vec<String> {
    schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Later than every time that a frame event may carry, so that nothing lies in the future.
fn now() -> DateTime<Utc> {
    "2101-01-01T00:00:00Z".parse().unwrap()
}

fn read_frame(json: &str) -> Result<Clocks, RejectionCode> {
    let event = FrameEvent::from_json(json.as_bytes()).map_err(|rejection| rejection.code)?;
    event.validate(now(), 0).map_err(|rejection| rejection.code)
}

fn frame_examples() -> Vec<Value> {
    examples("frame").values().map(|text| serde_json::from_str(text).unwrap()).collect()
}

#[test]
fn valid_frame_examples_satisfy_the_schema_and_the_reader() {
    for (name, text) in examples("frame") {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(complaints(&FRAME, &value), Vec::<String>::new(), "{name}");
        let event = FrameEvent::from_json(text.as_bytes()).unwrap();
        event.validate("2026-04-01T00:00:00Z".parse().unwrap(), 0).unwrap_or_else(|e| panic!("{name}: {e}"));
        // What the reader writes again is valid too: nothing is lost, nothing appears.
        let again = serde_json::to_value(&event).unwrap();
        assert_eq!(complaints(&FRAME, &again), Vec::<String>::new(), "{name}");
        assert_eq!(again.as_object().unwrap().len(), value.as_object().unwrap().len(), "{name}");
    }
}

#[test]
fn invalid_frame_examples_are_refused_by_both() {
    for (name, text) in examples("invalid/frame") {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_ne!(complaints(&FRAME, &value), Vec::<String>::new(), "{name} satisfies the schema");
        let code = read_frame(&text).expect_err(&name);
        assert!(matches!(code, RejectionCode::SchemaInvalid | RejectionCode::ClockMissing), "{name}: {code}");
    }
}

#[test]
fn inline_images_of_the_examples_are_what_the_event_says() {
    use sha2::{Digest, Sha256};
    let mut seen = 0;
    for (name, text) in examples("frame") {
        let event: Value = serde_json::from_str(&text).unwrap();
        let Some(data) = event["image"]["data"].as_str() else { continue };
        let bytes = base64_simd::STANDARD.decode_to_vec(data).unwrap();
        assert_eq!(bytes.len() as u64, event["image"]["bytes"].as_u64().unwrap(), "{name}");
        assert_eq!(hex::encode(Sha256::digest(&bytes)), event["image"]["sha256"].as_str().unwrap(), "{name}");
        let picture = image::load_from_memory(&bytes).unwrap();
        assert_eq!(u64::from(picture.width()), event["image"]["width"].as_u64().unwrap(), "{name}");
        assert_eq!(u64::from(picture.height()), event["image"]["height"].as_u64().unwrap(), "{name}");
        seen += 1;
    }
    assert!(seen >= 2, "a JPEG and a PNG");
}

#[test]
fn the_asyncapi_document_names_what_the_code_names() {
    let text = std::fs::read_to_string(folder("asyncapi.yaml")).unwrap();
    for name in [
        FRAME_EVENT_TYPE,
        GRADE_EVENT_TYPE,
        SUMMARY_EVENT_TYPE,
        REVIEW_EVENT_TYPE,
        "embryo.reviews.v1",
        "embryo.summaries.v1",
        "incubator.frames.v1",
        "embryo.grades.v1",
        "embryo.frames.dlq.v1",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
    let listed = |label: &str| text.lines().any(|line| line.trim() == format!("- {label}"));
    for code in RejectionCode::ALL {
        assert!(listed(code.as_str()), "{code} is missing");
    }
    for stage in Stage::ALL {
        assert!(listed(stage.as_str()), "{stage} is missing");
    }
    for file in text.split(['\'', '"', ' ', '\n']).filter_map(|word| word.strip_prefix("./")) {
        assert!(folder(file).is_file(), "{file} is referred to and does not exist");
    }
}

#[test]
fn a_reversed_clock_is_found_by_the_reader_alone() {
    let reversed = examples("frame")["by_uri"].replace("2026-01-31T12", "2026-01-21T12");
    assert_eq!(complaints(&FRAME, &serde_json::from_str(&reversed).unwrap()), Vec::<String>::new());
    assert_eq!(read_frame(&reversed), Err(RejectionCode::ClockReversed));
}

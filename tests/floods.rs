//! Messages that are large or deep where a frame event is not: each ends where a small one would, and what is behind it
//! is graded. Letting go of the service checks the rest: see `common::service`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::sync::{Arc, Mutex, Weak};

use common::frames::{self, Record};
use common::service::{TestService, header, shared};
use memebg::domain::GradeStatus;
use memebg::pipeline::message::RawMessage;
use serde_json::json;

const MEGABYTE: usize = 1 << 20;

fn service() -> Arc<TestService> {
    static OPEN: Mutex<Weak<TestService>> = Mutex::new(Weak::new());
    // Room for a dead letter of a whole megabyte, and not of two.
    shared(&OPEN, || TestService::start(&["kafka.max_value_bytes=1500000", "kafka.max_send_bytes=1800000"]))
}

/// Sends what must be refused with this code. Returns its dead letter.
fn refuse(record: &Record, code: &str) -> RawMessage {
    let service = service();
    let letter = service.dead_letter_of(service.send(record));
    assert_eq!(header(&letter, "memebg.error.code"), Some(code));
    letter
}

/// Sends what must be graded. Returns its grade event.
fn grade(record: &Record) -> RawMessage {
    let service = service();
    service.send(record);
    let embryo_id = String::from_utf8(record.key.clone().expect("a key")).expect("text");
    let (message, grade) = service.grades_of(&embryo_id, 1).remove(0);
    assert_eq!(grade.status, GradeStatus::Graded);
    message
}

fn with_many_headers(mut record: Record) -> Record {
    record.headers.extend((0..10_000).map(|number| (format!("x-{number}"), vec![b'h'; 10])));
    record
}

#[test]
fn ten_thousand_headers_change_nothing_and_come_back_with_a_dead_letter() {
    grade(&with_many_headers(Record::of(&frames::event("many-headers"))));
    let bad = with_many_headers(Record::with_value("many-headers-bad", "{"));
    let letter = refuse(&bad, "invalid_json");
    assert_eq!(letter.headers.iter().filter(|(name, _)| name.starts_with("x-")).count(), 10_000);
}

#[test]
fn a_header_of_a_megabyte_changes_nothing_and_is_left_where_it_lies_when_it_does_not_fit() {
    let large = "h".repeat(MEGABYTE);
    grade(&Record::of(&frames::event("large-header")).header("x-large", &large));
    let bad = || Record::with_value("large-header-bad", "{").header("x-large", &large);
    let letter = refuse(&bad(), "invalid_json");
    assert_eq!(header(&letter, "x-large").map(str::len), Some(MEGABYTE));
    let letter = refuse(&bad().header("x-larger", &large), "invalid_json");
    assert_eq!(header(&letter, "x-larger"), None);
    assert_eq!(header(&letter, "memebg.value.omitted_bytes"), Some("1"));
}

#[test]
fn a_traceparent_of_a_megabyte_does_not_keep_a_frame_from_being_graded() {
    let record = Record::of(&frames::event("large-traceparent"));
    let message = grade(&record.header("traceparent", &"0".repeat(2 * MEGABYTE)));
    assert_eq!(header(&message, "traceparent"), None);
}

#[test]
fn an_embryo_id_of_a_megabyte_is_refused_by_its_length_and_not_repeated() {
    let mut event = frames::event("large-id");
    event["embryo_id"] = json!("E".repeat(MEGABYTE));
    let letter = refuse(&Record::with_value("large-id", event.to_string()), "schema_invalid");
    let said = header(&letter, "__connect.errors.exception.message").unwrap();
    assert!(said.contains("embryo_id") && said.contains("128") && said.len() < 200, "{said}");
}

#[test]
fn json_that_is_half_a_million_levels_deep_is_refused() {
    let deep = ["[", "]"].map(|bracket| bracket.repeat(500_000)).concat();
    refuse(&Record::with_value("deep", deep.clone()), "schema_invalid");
    let mut event = frames::event("deep-field");
    event["well"] = json!("HERE");
    let nested = event.to_string().replace(r#""HERE""#, &deep);
    assert!(nested.len() > deep.len());
    refuse(&Record::with_value("deep-field", nested), "schema_invalid");
    // Attributes of an envelope may be anything, and are passed over without recursion.
    let envelope = format!(r#"{{"extension":{deep},"specversion":"1.0","type":"another","data":{{}}}}"#);
    let mut structured = Record::with_value("deep-envelope", envelope);
    structured.headers = vec![("content-type".to_owned(), b"application/cloudevents+json".to_vec())];
    refuse(&structured, "unknown_event_type");
}

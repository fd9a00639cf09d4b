//! The schema of the frame event and its reader refuse the same events.

use memebg::domain::RejectionCode;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::{FRAME, complaints, frame_examples, read_frame};

/// Holds one event against the schema and against the Rust reader.
fn assert_agreement(event: &Value) {
    let index_within_run = match (event["focal_plane_index"].as_f64(), event["focal_plane_count"].as_f64()) {
        (Some(index), Some(count)) => index < count,
        _ => true,
    };
    let complaints = complaints(&FRAME, event);
    // Two fields compared is what a schema cannot say: a plane beyond its run, a reversed clock.
    let expected = complaints.is_empty() && index_within_run;
    let read = read_frame(&event.to_string());
    let accepted = matches!(read, Ok(_) | Err(RejectionCode::ClockReversed));
    assert_eq!(accepted, expected, "schema: {complaints:?}\nRust: {read:?}\nevent: {event}");
}

/// Values at and beyond the edge of what some field takes.
pub(super) fn edge_values() -> Vec<Value> {
    let mut values =
        vec![json!(null), json!(true), json!([]), json!({}), json!(["IVF"]), json!({ "IVF": null })];
    for number in [
        "0",
        "-0",
        "-0.0",
        "-1",
        "1",
        "1.0",
        "1e0",
        "1.5",
        "3",
        "6.0",
        "7",
        "999",
        "1000",
        "1000.0",
        "1001",
        "4294967295",
        "4294967296",
        "9007199254740991",
        "9007199254740991.0",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "1e15",
        "1e300",
        "-1e300",
        "5e-324",
        "1e-400",
        "0.1",
    ] {
        values.push(serde_json::from_str(number).unwrap());
    }
    for time in [
        "T12:00:00Z",
        "t12:00:00Z",
        " 12:00:00Z",
        "T12:00:00z",
        "T12:00:00",
        "T12:00Z",
        "T12:00:60Z",
        "T23:59:60Z",
        "T24:00:00Z",
        "T12:60:00Z",
        "T12:00:00.Z",
        "T12:00:00.1Z",
        "T12:00:00.123456789Z",
        "T12:00:00.1234567890Z",
        "T12:00:00,5Z",
        "T12:00:00+00:00",
        "T12:00:00-00:00",
        "T12:00:00+23:59",
        "T12:00:00+24:00",
        "T12:00:00+12:60",
        "T12:00:00+0530",
        "T12:00:00+05",
        "T12:00:00\u{2212}05:00",
        "T12:00:00Z\n",
        "T12:00:00 Z",
        "",
        "T",
    ] {
        values.push(json!(format!("2026-01-31{time}")));
    }
    for date in [
        "2026-02-29",
        "2028-02-29",
        "2026-13-01",
        "2026-00-10",
        "2026-01-00",
        "1999-12-31",
        "2000-01-01",
        "2099-12-31",
        "2100-01-01",
        "0000-01-01",
        "02026-01-31",
        "2026-1-31",
        "\u{0662}026-01-31",
    ] {
        values.push(json!(format!("{date}T00:00:00Z")));
    }
    let hex = "0123456789abcdef".repeat(4);
    let short: String = hex.chars().skip(1).collect();
    for text in [
        "",
        " ",
        "x",
        "!",
        "~",
        "\u{7f}",
        "\u{80}",
        "\u{0}",
        "a b",
        "a\n",
        "é",
        "IVF",
        "ICSI",
        "ivf",
        "incubator",
        "emr",
        "manual",
        "image/png",
        "image/jpeg",
        "image/bmp",
        "image/tiff",
        "image/gif",
        "IMAGE/PNG",
        "1",
        "NaN",
        &hex,
        &hex.to_uppercase(),
        &short,
        &format!("{hex}0"),
        &format!("{}g", &short),
        &"x".repeat(128),
        &"x".repeat(129),
        &"é".repeat(128),
        &"é".repeat(129),
        &"\u{1f600}".repeat(128),
        &"x".repeat(2_048),
        &"é".repeat(2_048),
        &"x".repeat(2_049),
        "\"quoted\\",
        "2026-01-31",
        "12:00:00Z",
    ] {
        values.push(json!(text));
    }
    values
}

/// JSON pointers to every field of an event and to fields it does not have.
fn fields(event: &Value) -> Vec<String> {
    let mut pointers: Vec<String> = Vec::new();
    for (name, value) in event.as_object().into_iter().flatten() {
        pointers.push(format!("/{name}"));
        pointers.extend(value.as_object().into_iter().flatten().map(|(inner, _)| format!("/{name}/{inner}")));
    }
    for absent in [
        "/slide_id",
        "/dish_id",
        "/image/uri",
        "/image/data",
        "/image/um_per_px",
        "/patient_name",
        "/image/path",
        "/instrument/owner",
    ] {
        if !pointers.iter().any(|pointer| pointer == absent) {
            pointers.push(absent.to_owned());
        }
    }
    pointers
}

/// Sets a field, or deletes it. Does nothing where the object around it is gone.
pub(super) fn change(event: &mut Value, pointer: &str, value: Option<&Value>) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let Some(Value::Object(object)) = event.pointer_mut(parent) else { return };
    match value {
        Some(value) => object.insert(name.to_owned(), value.clone()),
        None => object.remove(name),
    };
}

#[test]
fn schema_and_reader_agree_on_every_edge_of_every_field() {
    let (values, mut accepted, mut refused) = (edge_values(), 0, 0);
    for example in frame_examples() {
        for field in fields(&example) {
            for value in values.iter().map(Some).chain([None]) {
                let mut event = example.clone();
                change(&mut event, &field, value);
                assert_agreement(&event);
                if FRAME.is_valid(&event) { accepted += 1 } else { refused += 1 }
            }
        }
    }
    assert!(
        accepted > 500 && refused > 5_000,
        "{accepted} accepted, {refused} refused: the edges do not bite"
    );
}

#[test]
fn an_array_of_the_fields_in_order_is_not_the_object() {
    for example in frame_examples() {
        for pointer in ["", "/instrument", "/image"] {
            let mut event = example.clone();
            let object = event.pointer_mut(pointer).unwrap();
            *object = object.as_object().unwrap().values().cloned().collect();
            assert_agreement(&event);
        }
    }
}

/// Text that looks like a time, right or nearly so.
fn nearly_a_time() -> impl Strategy<Value = Value> {
    "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,11})?(Z|z|[+-][0-2][0-9]:?[0-6][0-9])?"
        .prop_map(Value::from)
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(edge_values()),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,140}".prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        nearly_a_time(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn schema_and_reader_agree_on_events_with_several_faults(
        example in select(frame_examples()),
        changes in prop::collection::vec((any::<Index>(), prop::option::weighted(0.8, anything())), 1..4),
    ) {
        let mut event = example;
        for (index, value) in changes {
            let fields = fields(&event);
            let field: &String = index.get(&fields);
            change(&mut event, field, value.as_ref());
        }
        assert_agreement(&event);
    }

    #[test]
    fn schema_and_reader_agree_on_whatever_looks_like_a_time(
        captured_at in nearly_a_time(),
        insemination_time in prop::option::of(nearly_a_time()),
    ) {
        let mut event = frame_examples().remove(0);
        change(&mut event, "/captured_at", Some(&captured_at));
        if let Some(time) = insemination_time {
            change(&mut event, "/insemination_time", Some(&time));
        }
        assert_agreement(&event);
    }
}

use super::*;

const NOW: &str = "2026-02-01T00:00:00Z";

fn by_uri() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../schemas/examples/frame/by_uri.json")).unwrap()
}

fn read(value: &serde_json::Value) -> Result<Frame, Rejection> {
    let json = serde_json::to_vec(value).unwrap();
    let event = FrameEvent::from_json(&json)?;
    let clocks = event.validate(NOW.parse().unwrap(), 300)?;
    Ok(event.to_frame(clocks))
}

fn with(field: &str, value: impl Into<serde_json::Value>) -> Result<Frame, Rejection> {
    let mut event = by_uri();
    event[field] = value.into();
    read(&event)
}

fn unreadable(text: &str) -> RejectionCode {
    FrameEvent::from_json(text.as_bytes()).unwrap_err().code
}

fn code(result: Result<Frame, Rejection>) -> RejectionCode {
    result.unwrap_err().code
}

#[test]
fn hpi_counts_from_insemination_across_time_zones() {
    let frame = with("captured_at", "2026-01-31T21:05:00+05:00").unwrap();
    assert_eq!(frame.clocks.captured_at, "2026-01-31T16:05:00Z".parse::<DateTime<Utc>>().unwrap());
    assert!((frame.clocks.hpi - 120.0).abs() < 1e-9, "{}", frame.clocks.hpi);
}

#[test]
fn each_fault_of_a_clock_has_a_code_of_its_own() {
    let mut event = by_uri();
    event.as_object_mut().unwrap().remove("insemination_time");
    assert_eq!(code(read(&event)), RejectionCode::ClockMissing);
    assert_eq!(code(with("captured_at", serde_json::Value::Null)), RejectionCode::ClockMissing);
    assert_eq!(code(with("captured_at", "2026-01-26T16:04:59Z")), RejectionCode::ClockReversed);
    assert_eq!(code(with("captured_at", "2026-02-01T00:05:01Z")), RejectionCode::ClockInFuture);
    assert!(with("captured_at", "2026-02-01T00:05:00Z").is_ok(), "within the tolerance");
    assert_eq!(code(with("captured_at", "31/01/2026 12:10")), RejectionCode::SchemaInvalid);
}

#[test]
fn a_clock_that_was_never_set_is_refused_rather_than_called_too_late() {
    for time in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1904-01-01T00:00:00Z"] {
        assert_eq!(code(with("insemination_time", time)), RejectionCode::SchemaInvalid, "{time}");
    }
}

#[test]
fn times_are_plain_rfc3339_and_nothing_looser() {
    let date = "2026-01-31";
    for time in ["T12:10:00Z", "T12:10:00.5Z", "T12:10:00.123456789+05:30", "T12:10:00-00:00"] {
        assert!(with("captured_at", format!("{date}{time}")).is_ok(), "{time}");
    }
    for time in [
        " 12:10:00Z",
        "t12:10:00Z",
        "T12:10:00z",
        "T12:10:00",
        "T12:10Z",
        "T12:10:00.Z",
        "T12:10:00.1234567890Z",
        "T12:10:60Z",
        "T24:00:00Z",
        "T12:10:00+24:00",
        "T12:10:00+0530",
        "T12:10:00\u{2212}05:00",
        "T12:10:00Z ",
        "",
    ] {
        let found = code(with("captured_at", format!("{date}{time}")));
        assert_eq!(found, RejectionCode::SchemaInvalid, "{time}");
    }
}

#[test]
fn a_whole_number_may_be_written_as_a_float_but_must_be_whole() {
    assert_eq!(with("run", 412.0).unwrap().id.run, 412);
    assert_eq!(with("run", 9_007_199_254_740_991_u64).unwrap().id.run, 9_007_199_254_740_991);
    for run in ["412.5", "-1", "1e300", "9007199254740992", "18446744073709551616", "true", "\"412\""] {
        let run: serde_json::Value = serde_json::from_str(run).unwrap();
        assert_eq!(code(with("run", run.clone())), RejectionCode::SchemaInvalid, "{run}");
    }
}

#[test]
fn an_unknown_field_is_refused_without_repeating_its_value() {
    let rejection = with("patient_name", "Invented Person").unwrap_err();
    assert_eq!(rejection.code, RejectionCode::SchemaInvalid);
    assert!(!rejection.message.contains("Invented Person"), "{rejection}");
}

#[test]
fn an_identifier_that_may_be_a_name_is_refused_without_repeating_it() {
    let rejection = with("embryo_id", "Invented Person").unwrap_err();
    assert!(rejection.message.starts_with("embryo_id"), "{rejection}");
    assert!(!rejection.message.contains("Invented"), "{rejection}");
}

#[test]
fn a_wrong_value_of_a_known_field_is_not_repeated_either() {
    for (field, value) in [("well", "Invented Person"), ("insemination_method", "Invented Person")] {
        let rejection = with(field, value).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::SchemaInvalid);
        assert!(!rejection.message.contains("Invented"), "{rejection}");
    }
}

#[test]
fn the_focal_plane_lies_within_its_run() {
    assert_eq!(code(with("focal_plane_index", 7)), RejectionCode::SchemaInvalid);
    assert_eq!(with("focal_plane_index", 6).unwrap().plane.index, 6);
}

#[test]
fn text_that_is_not_json_is_told_apart_from_json_that_is_no_frame_event() {
    for text in ["", "{", "{\"well\":1e999}", "\u{0}"] {
        assert_eq!(unreadable(text), RejectionCode::InvalidJson, "{text}");
    }
    for text in ["{}", "[]", "null", "\"frame\""] {
        assert_eq!(unreadable(text), RejectionCode::SchemaInvalid, "{text}");
    }
    let twice = serde_json::to_string(&by_uri()).unwrap().repeat(2);
    assert_eq!(unreadable(&twice), RejectionCode::InvalidJson);
}

#[test]
fn a_frame_event_without_escapes_is_read_without_a_copy() {
    let json = serde_json::to_vec(&by_uri()).unwrap();
    let event = FrameEvent::from_json(&json).unwrap();
    assert!(matches!(event.embryo_id, Cow::Borrowed(_)));
    assert!(matches!(event.image.sha256, Cow::Borrowed(_)));
    assert!(matches!(event.image.uri, Some(Text(Cow::Borrowed(_)))));
    assert!(matches!(event.captured_at, Some(Text(Cow::Borrowed(_)))));
}

#[test]
fn a_key_that_stands_there_twice_is_refused_whichever_value_was_meant() {
    let json = serde_json::to_string(&by_uri()).unwrap();
    for (once, twice) in [
        (r#""run":"#, r#""run":1,"run":"#),
        (r#""sha256":"#, r#""sha256":"","sha256":"#),
        (r#""embryo_id":"#, r#""embryo\u005fid":"E-1","embryo_id":"#),
    ] {
        let json = json.replace(once, twice);
        let rejection = FrameEvent::from_json(json.as_bytes()).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::SchemaInvalid);
        assert!(rejection.message.contains("duplicate field"), "{rejection}");
    }
}

#[test]
fn numbers_that_json_does_not_have_or_that_nobody_can_hold_are_refused() {
    let json = serde_json::to_string(&with_run(0)).unwrap();
    let run = |value: &str| unreadable(&json.replace(r#""run":0"#, &format!(r#""run":{value}"#)));
    for value in ["NaN", "Infinity", "-Infinity", "1e999", "0x1", "01", "+1", "1."] {
        assert_eq!(run(value), RejectionCode::InvalidJson, "{value}");
    }
    let digits = "9".repeat(300);
    for value in [digits.as_str(), &format!("-{digits}"), "-0.5"] {
        assert_eq!(run(value), RejectionCode::SchemaInvalid, "{value}");
    }
}

fn with_run(run: u64) -> serde_json::Value {
    let mut event = by_uri();
    event["run"] = run.into();
    event
}

#[test]
fn an_identifier_with_a_character_that_cannot_be_seen_is_refused() {
    for hidden in ["\u{0}", "\n", "\u{1b}", "\u{7f}", "\u{202e}", "\u{feff}"] {
        for field in ["embryo_id", "site_id", "slide_id"] {
            let found = with(field, format!("E-1{hidden}"));
            assert_eq!(code(found), RejectionCode::SchemaInvalid, "{field} {hidden:?}");
        }
    }
}

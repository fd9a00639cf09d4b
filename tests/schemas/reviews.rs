//! Reviews: the schema, the examples and the reader say the same.

use chrono::{DateTime, TimeDelta};
use memebg::domain::{Expansion, Letter, RejectionCode, Review, ReviewReason, ReviewedSummary};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::agreement::edge_values;
use super::{REVIEW, complaints, examples};

#[test]
fn review_examples_satisfy_the_schema_and_the_reader_and_keep_their_ids() {
    for (name, text) in examples("review") {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(complaints(&REVIEW, &value), Vec::<String>::new(), "{name}");
        let review = Review::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The examples' ids were worked out by other means: an id of version 1 never changes.
        assert_eq!(review.id(), value["id"], "{name}");
        let again: Value = serde_json::from_slice(&review.to_json().unwrap()).unwrap();
        assert_eq!(again, value, "{name}");
    }
}

#[test]
fn invalid_review_examples_are_refused_by_both() {
    for (name, text) in examples("invalid/review") {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_ne!(complaints(&REVIEW, &value), Vec::<String>::new(), "{name} satisfies the schema");
        let refused = Review::parse(text.as_bytes()).expect_err(&name);
        assert_eq!(refused.code, RejectionCode::SchemaInvalid, "{name}");
        assert!(!refused.message.contains("Jane") && !refused.message.contains("INVENTED"), "{refused}");
    }
}

#[test]
fn what_a_schema_cannot_say_is_found_by_the_reader() {
    let example = &examples("review")["blinded_agrees"];
    let other = example.replace("embryologist-07", "embryologist-08");
    assert_eq!(complaints(&REVIEW, &serde_json::from_str(&other).unwrap()), Vec::<String>::new());
    assert!(Review::parse(other.as_bytes()).unwrap_err().message.contains("id is not"));
    let review = Review::parse(example.as_bytes()).unwrap();
    let now = review.reviewed_at - TimeDelta::seconds(60);
    assert_eq!(review.check_clock(now, 60), Ok(()));
    assert_eq!(review.check_clock(now, 59).unwrap_err().code, RejectionCode::ClockInFuture);
    for text in ["", "{", "[]", "null", "3"] {
        assert!(Review::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Review::parse(format!("{example}{example}").as_bytes()).is_err());
}

prop_compose! {
    fn any_review()(
        exp in select(vec![Expansion::E1, Expansion::E2, Expansion::E3, Expansion::E5, Expansion::E6]),
        letters in prop::array::uniform2(select(Letter::ALL)),
        reason in select(ReviewReason::ALL),
        reviewer in "[A-Za-z0-9._-]{1,64}",
        embryo_id in "[!-~]{1,128}",
        nanoseconds in 946_684_800_000_000_000i64..4_102_444_800_000_000_000,
        blinded in any::<bool>(),
        gardner in prop::option::of(select(vec!["3", "4AB", "1"])),
        version in 1u64..1 << 53,
        model_digest in "[0-9a-f]{64}",
    ) -> Review {
        let letter = |letter| exp.has_letters().then_some(letter);
        Review {
            embryo_id,
            site_id: "north".into(),
            reviewer,
            reviewed_at: DateTime::from_timestamp_nanos(nanoseconds),
            blinded,
            exp,
            icm: letter(letters[0]),
            te: letter(letters[1]),
            reason,
            summary: ReviewedSummary { version, gardner: gardner.map(str::to_owned), model_digest },
        }
    }
}

/// Every field, by its path.
const FIELDS: [&str; 15] = [
    "/id",
    "/embryo_id",
    "/site_id",
    "/reviewer",
    "/reviewed_at",
    "/blinded",
    "/exp",
    "/icm",
    "/te",
    "/gardner",
    "/reason",
    "/summary",
    "/summary/version",
    "/summary/gardner",
    "/summary/model_digest",
];

proptest! {
    #[test]
    fn every_review_satisfies_the_schema_and_survives_json(review in any_review()) {
        let json = review.to_json().unwrap();
        let complaints = complaints(&REVIEW, &serde_json::from_slice(&json).unwrap());
        prop_assert_eq!(complaints, Vec::<String>::new());
        prop_assert_eq!(Review::parse(&json), Ok(review));
    }

    /// What the schema refuses, the reader refuses, and the other way round where only the id does not fit any more.
    #[test]
    fn schema_and_reader_refuse_the_same_reviews(
        review in any_review(),
        path in select(&FIELDS[..]),
        value in select(edge_values()),
        removed in prop::bool::weighted(0.2),
    ) {
        let mut event: Value = serde_json::from_slice(&review.to_json().unwrap()).unwrap();
        let (parent, field) = path.rsplit_once('/').unwrap();
        let object = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if removed { object.remove(field); } else { object.insert(field.to_owned(), value); }
        let sound = complaints(&REVIEW, &event).is_empty();
        let read = Review::parse(event.to_string().as_bytes());
        let only_the_id = read.as_ref().is_err_and(|error| error.message.ends_with("that of its content"));
        // An id that could be one of another review.
        let is_digest = |id: &str| id.len() == 64 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        let only_the_id = only_the_id && event["id"].as_str().is_some_and(is_digest);
        prop_assert_eq!(read.is_ok() || only_the_id, sound, "{:?} of {}", read, event);
    }
}

#[test]
fn a_number_written_as_a_float_is_a_whole_number() {
    let mut event: Value = serde_json::from_str(&examples("review")["blinded_agrees"]).unwrap();
    event["exp"] = json!(4.0);
    event["summary"]["version"] = json!(7.0);
    assert_eq!(complaints(&REVIEW, &event), Vec::<String>::new());
    Review::parse(event.to_string().as_bytes()).unwrap();
}

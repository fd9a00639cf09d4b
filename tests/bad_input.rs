//! Whatever a message holds, it ends as exactly one dead letter that says why and carries the original unchanged, and
//! the frame behind it is graded. Letting go of the service checks the rest: see `common::service`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use common::frames::{self, Record, SENT_AT_MS};
use common::image_server::{Answer, ImageServer};
use common::service::{TestService, header, shared};
use memebg::domain::{GradeStatus, RejectionCode, Stage};
use memebg::pipeline::message::RawMessage;
use serde_json::{Value, json};

const MAX_VALUE_BYTES: usize = 200_000;
const MAX_SEND_BYTES: usize = 300_000;
const ATTEMPTS: usize = 3;
const BACKOFF: Duration = Duration::from_millis(20);

struct Laboratory {
    service: TestService,
    images: ImageServer,
}

impl Laboratory {
    fn open() -> Arc<Self> {
        static OPEN: Mutex<Weak<Laboratory>> = Mutex::new(Weak::new());
        shared(&OPEN, || {
            let images = ImageServer::start();
            let service = TestService::start(&[
                r#"select.sites=["north"]"#,
                &format!("kafka.max_value_bytes={MAX_VALUE_BYTES}"),
                &format!("kafka.max_send_bytes={MAX_SEND_BYTES}"),
                &format!(r#"fetch.allowed_uri_prefixes=["{}"]"#, images.uri("/frames")),
                &format!("fetch.attempts={ATTEMPTS}"),
                &format!("fetch.backoff_ms={}", BACKOFF.as_millis()),
            ]);
            Self { service, images }
        })
    }

    /// Sends `record`, which must end as a dead letter of this kind, and a good frame right behind it. Returns the
    /// dead letter, checked but for its value.
    fn refuse_value(&self, embryo_id: &str, record: Record, stage: Stage, code: RejectionCode) -> RawMessage {
        // Whatever else it carries must come back too, in order: text or not, and a name that is there twice.
        let more = [("x-lab", b"\xff\x00".as_slice()), ("x-lab", b""), ("traceparent", b"00-1-2-01")];
        let mut record = record;
        record.headers.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let position = self.service.send(&record);
        let mut next = frames::event(embryo_id);
        next["run"] = json!(1_000);
        let behind = Record { partition: Some(position.partition), ..Record::of(&next) };
        assert!(self.service.send(&behind).offset > position.offset);

        let letter = self.service.dead_letter_of(position);
        assert_eq!(header(&letter, "memebg.error.code"), Some(code.as_str()), "{:?}", reason(&letter));
        assert_eq!(header(&letter, "__connect.errors.stage"), Some(stage.as_str()));
        let topic = self.service.config.kafka.frames_topic.as_str();
        assert_eq!(header(&letter, "__connect.errors.topic"), Some(topic));
        assert_eq!(
            header(&letter, "__connect.errors.exception.class.name"),
            Some("memebg::domain::Rejection")
        );
        assert!(!reason(&letter).is_empty());
        assert_eq!(letter.key, record.key);
        assert_eq!(letter.timestamp_ms, Some(SENT_AT_MS));
        let is_ours = |name: &str| name.starts_with("__connect.errors.") || name.starts_with("memebg.");
        let (ours, original): (Vec<_>, Vec<_>) =
            letter.headers.iter().cloned().partition(|(name, _)| is_ours(name));
        let sent = record.headers.into_iter().filter(|(name, _)| !is_ours(name));
        assert_eq!(original, Vec::from_iter(sent.map(|(name, value)| (name, Some(value)))));
        let mut names: Vec<_> = ours.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ours.len(), "an error header is there twice: {ours:?}");

        let (_, grade) = self.service.grades_of(embryo_id, 1).remove(0);
        assert_eq!((grade.status, grade.run), (GradeStatus::Graded, 1_000), "the frame behind is graded");
        letter
    }

    /// The same for a record whose value must come back too. Returns what the dead letter says.
    fn refuse_record(&self, embryo_id: &str, record: Record, stage: Stage, code: RejectionCode) -> String {
        let value = record.value.clone();
        let letter = self.refuse_value(embryo_id, record, stage, code);
        assert!(letter.value == value, "the value came back changed");
        reason(&letter).to_owned()
    }

    fn refuse(&self, event: &Value, stage: Stage, code: RejectionCode) -> String {
        let embryo_id = event["embryo_id"].as_str().expect("an embryo id");
        self.refuse_record(embryo_id, Record::of(event), stage, code)
    }
}

fn reason(letter: &RawMessage) -> &str {
    header(letter, "__connect.errors.exception.message").unwrap_or_default()
}

// The image.

#[test]
fn a_truncated_jpeg_is_undecodable() {
    let mut event = frames::event("truncated");
    let half = frames::photograph_jpeg().len() / 2;
    let image = &frames::photograph_jpeg()[..half];
    frames::set_image(&mut event, image, "image/jpeg", frames::SIDE_PX, frames::SIDE_PX);
    Laboratory::open().refuse(&event, Stage::Preprocess, RejectionCode::ImageUndecodable);
}

#[test]
fn a_bomb_of_100_megapixels_is_refused_by_its_header() {
    let mut event = frames::event("bomb");
    frames::set_image(&mut event, &png_that_says(10_000, 10_000), "image/png", 10_000, 10_000);
    let said = Laboratory::open().refuse(&event, Stage::Preprocess, RejectionCode::ImageTooManyPixels);
    assert!(said.contains("10000 x 10000"), "{said}");
}

#[test]
fn an_image_with_another_sha256_is_not_graded() {
    let mut event = frames::event("other-digest");
    event["image"]["sha256"] = json!("ab".repeat(32));
    Laboratory::open().refuse(&event, Stage::Fetch, RejectionCode::ImageDigestMismatch);
}

#[test]
fn text_in_the_place_of_an_image_is_undecodable() {
    let mut event = frames::event("text");
    frames::set_image(&mut event, b"this is no photograph", "image/jpeg", 320, 320);
    Laboratory::open().refuse(&event, Stage::Preprocess, RejectionCode::ImageUndecodable);
}

#[test]
fn an_image_that_is_not_base64_is_refused() {
    let mut event = frames::event("no-base64");
    event["image"]["data"] = json!("####");
    Laboratory::open().refuse(&event, Stage::Fetch, RejectionCode::ImageBadBase64);
}

#[test]
fn an_image_of_another_size_than_the_event_says_is_refused() {
    let mut event = frames::event("other-size");
    event["image"]["width"] = json!(640);
    Laboratory::open().refuse(&event, Stage::Preprocess, RejectionCode::ImageSizeMismatch);
}

// The value.

#[test]
fn empty_and_null_values_are_refused() {
    let laboratory = Laboratory::open();
    let empty = Record::with_value("empty", "");
    laboratory.refuse_record("empty", empty, Stage::Decode, RejectionCode::EmptyValue);
    let null = Record { value: None, ..Record::with_value("null", "") };
    laboratory.refuse_record("null", null, Stage::Decode, RejectionCode::EmptyValue);
    let keyless = Record { key: None, value: None, partition: Some(1), headers: Vec::new() };
    laboratory.refuse_record("keyless", keyless, Stage::Decode, RejectionCode::EmptyValue);
}

#[test]
fn a_value_over_the_limit_is_refused_and_comes_back_whole() {
    let value = vec![b'x'; MAX_VALUE_BYTES + 1];
    let record = Record::with_value("large", value);
    let said = Laboratory::open().refuse_record("large", record, Stage::Decode, RejectionCode::ValueTooLarge);
    assert!(said.contains("200001") && said.contains("200000"), "{said}");
}

#[test]
fn a_value_too_large_to_be_sent_on_is_left_where_it_lies_and_the_dead_letter_says_so() {
    let record = Record::with_value("huge", vec![b'x'; MAX_SEND_BYTES + 1]);
    let letter = Laboratory::open().refuse_value("huge", record, Stage::Decode, RejectionCode::ValueTooLarge);
    assert_eq!(letter.value, None);
    assert_eq!(header(&letter, "memebg.value.omitted_bytes"), Some("300001"));
}

#[test]
fn what_is_not_json_is_refused() {
    let laboratory = Laboratory::open();
    let whole = frames::event("half-an-event").to_string().into_bytes();
    for (embryo_id, value) in [
        ("half-an-event", &whole[..whole.len() / 2]),
        ("a-bare-photograph", frames::photograph_jpeg()),
        ("two-events", &[&whole[..], b" {}"].concat()),
    ] {
        let record = Record::with_value(embryo_id, value);
        laboratory.refuse_record(embryo_id, record, Stage::Decode, RejectionCode::InvalidJson);
    }
}

#[test]
fn event_types_and_versions_of_another_time_are_not_guessed_at() {
    let (laboratory, unknown) = (Laboratory::open(), RejectionCode::UnknownEventType);
    let refuse = |embryo_id, record| laboratory.refuse_record(embryo_id, record, Stage::Decode, unknown);
    let next_version = "org.memebg.incubator.frame.v2";
    let binary = Record::of(&frames::event("binary-v2")).header("ce_type", next_version);
    let said = refuse("binary-v2", binary);
    assert!(said.contains(next_version), "{said}");
    let cloud_events_2 = Record::of(&frames::event("cloudevents-2")).header("ce_specversion", "2.0");
    refuse("cloudevents-2", cloud_events_2);
    let event = json!({
        "specversion": "1.0", "type": next_version, "source": "/tests", "id": "1",
        "data": frames::event("structured-v2"),
    });
    let mut structured = Record::with_value("structured-v2", event.to_string());
    structured.headers = vec![("content-type".to_owned(), b"application/cloudevents+json".to_vec())];
    refuse("structured-v2", structured);
}

#[test]
fn a_dead_letter_that_is_sent_again_and_fails_again_says_why_once() {
    let record = Record::with_value("again", "{")
        .header("__connect.errors.stage", "FETCH")
        .header("memebg.error.code", "image_unreachable");
    Laboratory::open().refuse_record("again", record, Stage::Decode, RejectionCode::InvalidJson);
}

// What the event says.

#[test]
fn clocks_that_are_missing_reversed_or_ahead_are_refused_and_not_skipped() {
    let laboratory = Laboratory::open();
    for (embryo_id, field, value, code) in [
        ("no-capture-time", "captured_at", Value::Null, RejectionCode::ClockMissing),
        ("no-time-zero", "insemination_time", Value::Null, RejectionCode::ClockMissing),
        ("reversed", "captured_at", json!("2025-02-27T11:00:00Z"), RejectionCode::ClockReversed),
        ("ahead", "captured_at", json!("2099-12-31T23:59:59Z"), RejectionCode::ClockInFuture),
        ("never-set", "captured_at", json!("1970-01-01T00:00:00Z"), RejectionCode::SchemaInvalid),
    ] {
        let mut event = frames::event(embryo_id);
        event[field] = value;
        laboratory.refuse(&event, Stage::Validate, code);
    }
}

#[test]
fn an_unknown_site_is_refused() {
    let mut event = frames::event("elsewhere");
    event["site_id"] = json!("south");
    Laboratory::open().refuse(&event, Stage::Validate, RejectionCode::UnknownSite);
}

#[test]
fn a_persons_name_is_refused_wherever_it_stands_and_not_repeated_in_the_reason() {
    const NAME: &str = "Ada Invented";
    let laboratory = Laboratory::open();
    let refuse = |embryo_id: &str, record| {
        let said = laboratory.refuse_record(embryo_id, record, Stage::Validate, RejectionCode::SchemaInvalid);
        assert!(!said.contains("Ada") && !said.contains("Invented"), "{said}");
        said
    };
    let mut added = frames::event("name-added");
    added["patient_name"] = json!(NAME);
    let said = refuse("name-added", Record::of(&added));
    assert!(said.contains("patient_name"), "it says which field: {said}");

    for (embryo_id, field) in [
        ("name-as-well", "/well"),
        ("name-as-run", "/run"),
        ("name-as-slide", "/slide_id"),
        ("name-as-method", "/insemination_method"),
        ("name-as-clock", "/captured_at"),
        ("name-as-digest", "/image/sha256"),
        ("name-as-instrument", "/instrument"),
        ("name-as-image", "/image"),
    ] {
        let mut event = frames::event(embryo_id);
        *event.pointer_mut(field).expect("a field") = json!(NAME);
        refuse(embryo_id, Record::of(&event));
    }

    // In the envelope, and with a character escaped, as many JSON writers do with names.
    for (embryo_id, envelope) in [
        ("name-as-specversion", r#"{"specversion":["Ada Invented"],"type":"t","data":{}}"#),
        ("name-in-the-place-of-the-envelope", r#""Ada \u0049nvented""#),
    ] {
        let mut record = Record::with_value(embryo_id, envelope);
        record.headers = vec![("content-type".to_owned(), b"application/cloudevents+json".to_vec())];
        refuse(embryo_id, record);
    }
}

// Where the image lies.

#[test]
fn an_image_outside_the_allowed_places_is_not_asked_for() {
    let laboratory = Laboratory::open();
    let secret = laboratory.images.put("/secrets/image.jpg", Answer::Image(frames::photograph_jpeg().into()));
    let around = laboratory.images.uri("/frames/../secrets/image.jpg");
    for (embryo_id, uri) in [
        ("beside", secret.as_str()),
        ("around", &around),
        ("local-file", "file:///etc/hostname"),
        ("other-host", "https://images.invalid/frames/image.jpg"),
    ] {
        let mut event = frames::event(embryo_id);
        frames::set_uri(&mut event, uri);
        let said = laboratory.refuse(&event, Stage::Fetch, RejectionCode::ImageUriNotAllowed);
        assert!(!said.contains(uri), "{said}");
    }
    assert_eq!(laboratory.images.requests("/secrets/image.jpg").len(), 0);
}

#[test]
fn an_image_that_cannot_be_had_is_asked_for_again_at_growing_intervals_and_then_given_up() {
    let laboratory = Laboratory::open();
    let path = "/frames/busy.jpg";
    let uri = laboratory.images.put(path, Answer::Busy);
    let missing = laboratory.images.uri("/frames/missing.jpg");
    for (embryo_id, uri, code) in
        [("busy", &uri, RejectionCode::ImageUnreachable), ("missing", &missing, RejectionCode::ImageNotFound)]
    {
        let mut event = frames::event(embryo_id);
        frames::set_uri(&mut event, uri);
        let said = laboratory.refuse(&event, Stage::Fetch, code);
        assert!(said.contains("3 attempts"), "{said}");
    }
    assert_eq!(laboratory.images.requests("/frames/missing.jpg").len(), ATTEMPTS);
    let asked = laboratory.images.requests(path);
    let [first, second, third] = asked[..] else { panic!("asked {} times", asked.len()) };
    assert!(second - first >= BACKOFF && third - second >= 2 * BACKOFF, "{asked:?}");
}

#[test]
fn an_image_that_arrives_after_its_event_is_graded() {
    let laboratory = Laboratory::open();
    let path = "/frames/late.jpg";
    let uri = laboratory.images.put(path, Answer::BusyAtFirst(1, frames::photograph_jpeg().into()));
    let mut event = frames::event("late");
    frames::set_uri(&mut event, &uri);
    laboratory.service.send(&Record::of(&event));
    let (_, grade) = laboratory.service.grades_of("late", 1).remove(0);
    assert_eq!(grade.status, GradeStatus::Graded);
    assert_eq!(laboratory.images.requests(path).len(), 2);
}

#[test]
fn a_frame_that_is_sent_again_after_its_dead_letter_is_graded_and_no_duplicate() {
    let laboratory = Laboratory::open();
    let path = "/frames/repaired.jpg";
    let uri = laboratory.images.put(path, Answer::Busy);
    let mut event = frames::event("repaired");
    frames::set_uri(&mut event, &uri);
    let position = laboratory.service.send(&Record::of(&event));
    laboratory.service.dead_letter_of(position);
    laboratory.service.wait_until_committed(position);

    laboratory.images.put(path, Answer::Image(frames::photograph_jpeg().into()));
    laboratory.service.send(&Record::of(&event));
    let (_, grade) = laboratory.service.grades_of("repaired", 1).remove(0);
    assert_eq!(grade.status, GradeStatus::Graded);
}

/// A whole PNG whose header promises more pixels than it holds.
fn png_that_says(width: u32, height: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(1, 1).write_to(&mut png, image::ImageFormat::Png).expect("a PNG");
    let mut png = png.into_inner();
    // Signature and length take 12 bytes; the checksum covers the 17 from there, name and header.
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    png
}

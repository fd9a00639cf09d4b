//! What the real service does with good frames: which it grades, which it leaves, and what it says of each. Letting go
//! of a service checks the rest, and every grade event read is held against its schema: see `common::service`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use common::frames::{self, PHOTOGRAPH, Record};
use common::service::{TestService, config, get, header, shared};
use image::GrayImage;
use memebg::domain::{
    AbstainReason, FRAME_EVENT_TYPE, FrameId, GRADE_EVENT_TYPE, GradeEvent, GradeId, GradeStatus,
};
use memebg::pipeline::PIPELINE_VERSION;
use memebg::pipeline::message::Position;
use memebg::service::Service;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Each policy has a service of its own, which the tests of that policy share.
fn service(policy: &str) -> Arc<TestService> {
    static CENTRAL: Mutex<Weak<TestService>> = Mutex::new(Weak::new());
    static ALL: Mutex<Weak<TestService>> = Mutex::new(Weak::new());
    static SHARPEST: Mutex<Weak<TestService>> = Mutex::new(Weak::new());
    match policy {
        "central" => shared(&CENTRAL, || {
            let frames = format!(r#"fetch.allowed_uri_prefixes=["{}"]"#, folder());
            TestService::start(&[&frames, "fetch.attempts=1"])
        }),
        "all" => shared(&ALL, || TestService::start(&["select.focal_planes=all", "model.graders=2"])),
        "sharpest" => shared(&SHARPEST, || {
            TestService::start(&["select.focal_planes=sharpest", &format!("focus.max_wait_ms={MAX_WAIT_MS}")])
        }),
        other => panic!("no service for {other}"),
    }
}

/// Long enough for the planes of a run to come together on a busy machine.
const MAX_WAIT_MS: u64 = 4_000;

/// Where images lie that are fetched.
fn folder() -> String {
    url::Url::from_directory_path(env!("CARGO_TARGET_TMPDIR")).expect("an absolute path").to_string()
}

fn send(service: &TestService, event: &Value) -> Position {
    service.send(&Record::of(event))
}

/// The same event for another plane, with another picture.
fn plane(event: &Value, index: u32, picture: &GrayImage) -> Value {
    let mut event = event.clone();
    event["focal_plane_index"] = json!(index);
    event["focal_offset_um"] = json!(15.0 * (f64::from(index) - 1.0));
    frames::set_image(&mut event, &frames::jpeg(picture), "image/jpeg", picture.width(), picture.height());
    event
}

fn graded_planes(grades: &[(impl Sized, GradeEvent)]) -> BTreeSet<u32> {
    grades.iter().map(|(_, event)| event.focal_plane.index).collect()
}

#[test]
fn a_day_5_frame_is_graded_and_its_event_says_of_what_and_by_whom() {
    let service = service("central");
    let event = frames::event("graded");
    service.send(&Record::of(&event).header("traceparent", TRACEPARENT));

    let (message, grade) = service.grades_of("graded", 1).remove(0);
    assert_eq!((grade.status, &grade.reasons[..]), (GradeStatus::Graded, &[][..]));
    let heads = grade.heads.as_ref().expect("heads");
    assert_eq!(grade.gardner, Some(heads.gardner()));
    assert!((grade.hpi - 116.0).abs() < 1e-9, "{}", grade.hpi);
    assert_eq!((grade.run, grade.focal_plane.index, grade.focal_plane.count), (1, 1, 3));
    assert_eq!((grade.site_id.as_str(), grade.slide_id.as_deref(), grade.well), ("north", Some("S1"), 1));

    assert_eq!(grade.model, service.identity.model);
    assert!(!grade.model.untrained);
    let manifest = std::fs::read(service.config.model.bundle.join("manifest.json")).expect("a manifest");
    assert_eq!(grade.model.digest, sha256(&manifest), "the digest is that of the bundle's manifest");
    assert_eq!(grade.image_sha256, sha256(frames::photograph_jpeg()));
    assert_eq!((grade.pipeline_version.as_str(), grade.device.as_str()), (PIPELINE_VERSION, "cpu"));
    let frame = FrameId { embryo_id: "graded".into(), run: 1, focal_plane_index: 1 };
    let id = GradeId::new(&frame, &grade.image_sha256, &grade.model.digest, PIPELINE_VERSION);
    assert_eq!(grade.id, id, "anyone who knows the parts can tell the id");

    assert_eq!(message.key.as_deref(), Some(b"graded".as_slice()));
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_type", GRADE_EVENT_TYPE),
        ("ce_source", "/memebg"),
        ("ce_id", id.as_str()),
        ("content-type", "application/json"),
        ("traceparent", TRACEPARENT),
    ] {
        assert_eq!(header(&message, name), Some(value), "{name}");
    }
}

#[test]
fn a_frame_is_read_as_a_structured_event_and_as_plain_json_too() {
    let service = service("central");
    let structured = json!({
        "specversion": "1.0", "type": FRAME_EVENT_TYPE, "source": "/tests", "id": "1",
        "data": frames::event("structured"),
    });
    let mut record = Record::with_value("structured", structured.to_string());
    record.headers =
        vec![("content-type".to_owned(), b"application/cloudevents+json; charset=utf-8".to_vec())];
    service.send(&record);
    service.send(&Record { headers: Vec::new(), ..Record::of(&frames::event("plain")) });
    for embryo_id in ["structured", "plain"] {
        let (message, grade) = service.grades_of(embryo_id, 1).remove(0);
        assert_eq!(grade.status, GradeStatus::Graded);
        assert_eq!(header(&message, "traceparent"), None);
    }
}

#[test]
fn frames_that_are_not_wanted_are_skipped_by_reason_and_their_images_never_looked_at() {
    // Its own service, because it counts.
    let service = TestService::start(&[]);
    let unwanted = |embryo_id: &str, captured_at: &str, plane: u32| {
        let mut event = frames::event(embryo_id);
        event["captured_at"] = json!(captured_at);
        event["focal_plane_index"] = json!(plane);
        // Whoever looked at it would find no base64, no digest and no photograph.
        event["image"]["data"] = json!("no photograph");
        event
    };
    for event in [
        unwanted("early", "2025-03-05T04:59:59Z", 1),
        unwanted("late", "2025-03-05T15:00:00Z", 1),
        unwanted("later", "2025-03-09T11:00:00Z", 1),
        unwanted("low", "2025-03-05T11:00:00Z", 0),
        unwanted("high", "2025-03-05T11:00:00Z", 2),
        unwanted("higher", "2025-03-05T11:00:00Z", 2),
    ] {
        send(&service, &event);
    }
    // The window begins with its first moment.
    for (embryo_id, captured_at) in [("first", "2025-03-05T05:00:00Z"), ("last", "2025-03-05T14:59:59Z")] {
        let mut event = frames::event(embryo_id);
        event["captured_at"] = json!(captured_at);
        send(&service, &event);
        service.grades_of(embryo_id, 1);
    }
    service.wait_until("everything settled", || {
        let totals = service.totals();
        totals.received == 8 && totals.in_flight == 0
    });
    let totals = service.totals();
    let skipped: Vec<_> = totals.skipped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let expected =
        [("other_focal_plane", 3), ("reassigned", 0), ("spaced_out", 0), ("too_early", 1), ("too_late", 2)];
    assert_eq!(skipped, expected);
    assert_eq!((totals.graded, totals.dead_lettered), (2, 0), "{totals:?}");
}

#[test]
fn a_frame_that_is_sent_twice_is_graded_once_and_counted_as_a_duplicate() {
    let service = service("central");
    let before = service.totals().duplicate;
    let event = frames::event("twice");
    send(&service, &event);
    let again = send(&service, &event);
    // Another image of the same frame is no duplicate: a new id for what was really looked at.
    let retaken = plane(&event, 1, &image::imageops::flip_horizontal(&*PHOTOGRAPH));
    send(&service, &retaken);
    let grades = service.grades_of("twice", 2);
    assert_ne!(grades[0].1.id, grades[1].1.id);
    service.wait_until_committed(again);
    assert_eq!(service.totals().duplicate - before, 1);
}

#[test]
fn of_the_planes_of_a_run_exactly_the_sharpest_is_graded() {
    let service = service("sharpest");
    let before = skipped_planes(&service);
    let event = frames::event("in-focus");
    let blurred = |sigma| image::imageops::blur(&*PHOTOGRAPH, sigma);
    // The sharp one is not the central one, so that the other policy would be noticed.
    for (index, picture) in [(1, blurred(2.0)), (2, PHOTOGRAPH.clone()), (0, blurred(4.0))] {
        send(&service, &plane(&event, index, &picture));
    }
    let grades = service.grades_of("in-focus", 1);
    assert_eq!(graded_planes(&grades), BTreeSet::from([2]));
    assert_eq!(grades[0].1.image_sha256, sha256(frames::photograph_jpeg()));
    service.wait_until("two planes skipped", || skipped_planes(&service) >= before + 2);

    // A plane that comes after its run was decided is not wanted, however sharp.
    let late = plane(&event, 1, &image::imageops::flip_horizontal(&*PHOTOGRAPH));
    let position = send(&service, &late);
    service.wait_until_committed(position);
    assert_eq!(service.count_grades_of("in-focus"), 1);
}

#[test]
fn a_run_with_a_missing_plane_is_decided_when_it_has_waited_long_enough() {
    let service = service("sharpest");
    // A run of one plane waits for nobody: once it is graded, the service is at work.
    let mut single = frames::event("single-plane");
    (single["focal_plane_index"], single["focal_plane_count"]) = (json!(0), json!(1));
    send(&service, &single);
    service.grades_of("single-plane", 1);

    let event = frames::event("incomplete");
    let sent_at = Instant::now();
    send(&service, &plane(&event, 0, &PHOTOGRAPH));
    send(&service, &plane(&event, 1, &image::imageops::blur(&*PHOTOGRAPH, 3.0)));
    let grades = service.grades_of("incomplete", 1);
    assert!(sent_at.elapsed() >= Duration::from_millis(MAX_WAIT_MS), "{:?}", sent_at.elapsed());
    assert_eq!(graded_planes(&grades), BTreeSet::from([0]));
}

fn skipped_planes(service: &TestService) -> u64 {
    service.totals().skipped.get("other_focal_plane").copied().unwrap_or_default()
}

#[test]
fn every_plane_is_graded_where_all_are_wanted_and_several_graders_share_the_work() {
    let service = service("all");
    let shifted = |by: u32| image::imageops::crop_imm(&*PHOTOGRAPH, by, by, 300, 300).to_image();
    let embryos: Vec<_> = (0..4).map(|number| format!("all-{number}")).collect();
    for embryo_id in &embryos {
        for index in 0..3 {
            send(&service, &plane(&frames::event(embryo_id), index, &shifted(4 * index)));
        }
    }
    for embryo_id in &embryos {
        let grades = service.grades_of(embryo_id, 3);
        assert_eq!(graded_planes(&grades), BTreeSet::from([0, 1, 2]));
        assert_eq!(grades.iter().map(|(_, event)| &event.id).collect::<BTreeSet<_>>().len(), 3);
    }
    // The same picture gets the same grade, whichever grader and batch it went to.
    let [first, rest @ ..] = &embryos[..] else { unreachable!("four") };
    let expansions = |embryo_id: &str| {
        let mut grades = service.grades_of(embryo_id, 3);
        grades.sort_by_key(|(_, event)| event.focal_plane.index);
        grades.into_iter().map(|(_, event)| event.heads.expect("heads").exp.grade).collect::<Vec<_>>()
    };
    for embryo_id in rest {
        assert_eq!(expansions(embryo_id), expansions(first));
    }
}

#[test]
fn an_image_in_an_allowed_folder_is_fetched_and_graded() {
    let service = service("central");
    let file = tempfile::Builder::new()
        .suffix(".jpeg")
        .tempfile_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a temporary file");
    std::fs::write(file.path(), frames::photograph_jpeg()).expect("written");
    let mut event = frames::event("fetched");
    frames::set_uri(&mut event, url::Url::from_file_path(file.path()).expect("absolute").as_str());
    send(&service, &event);
    let (_, grade) = service.grades_of("fetched", 1).remove(0);
    assert_eq!(grade.status, GradeStatus::Graded);
    assert_eq!(grade.image_sha256, sha256(frames::photograph_jpeg()));
}

#[test]
fn a_black_frame_is_abstained_from_with_its_reasons_and_without_a_grade() {
    let service = service("central");
    let before = service.totals().abstained;
    send(&service, &plane(&frames::event("black"), 1, &GrayImage::new(320, 320)));
    let (message, grade) = service.grades_of("black", 1).remove(0);
    assert_eq!(grade.status, GradeStatus::Abstained);
    use AbstainReason::{Blurred, LowContrast, Underexposed};
    assert_eq!(grade.reasons, [Underexposed, LowContrast, Blurred]);
    let value: Value = serde_json::from_slice(message.value.as_deref().expect("a value")).expect("JSON");
    for absent in ["gardner", "exp", "icm", "te"] {
        assert!(value.get(absent).is_none(), "{absent} in {value}");
    }
    service.wait_until("counted", || service.totals().abstained == before + 1);
}

#[test]
fn a_frame_counts_as_graded_only_once_the_broker_has_its_grade() {
    // The producer holds events back for a second, so that a claim made too early is seen.
    let service = TestService::start(&["kafka.producer_properties.linger_ms=1000"]);
    let position = send(&service, &frames::event("confirmed"));
    service.wait_until("graded", || service.totals().graded == 1);
    assert_eq!(service.grades_in_the_log(), 1, "the frame was settled before its grade was there");
    service.wait_until_committed(position);
}

#[test]
fn metrics_and_probes_tell_what_the_service_does() {
    let service = TestService::start(&[r#"select.sites=["north"]"#]);
    service.wait_until("ready", || get(service.address, "/readyz").0 == 200);
    assert_eq!(get(service.address, "/livez"), (200, "ok\n".to_owned()));
    let mut early = frames::event("too-early");
    early["captured_at"] = json!("2025-03-03T11:00:00Z");
    send(&service, &early);
    let position = send(&service, &frames::event("E-4242"));
    service.wait_until_committed(position);
    service.wait_until("everything settled", || {
        service.totals().received == 2 && service.totals().in_flight == 0
    });

    let (status, text) = get(service.address, "/metrics");
    assert_eq!(status, 200);
    let digest = &service.identity.model.digest;
    for series in [
        r#"memebg_frames_received_total{site="north"} 2"#,
        r#"memebg_frames_skipped_total{reason="too_early"} 1"#,
        "memebg_grades_published_total 1",
        "memebg_frames_in_flight 0",
        "memebg_batch_size_frames_count 1",
        r#"memebg_stage_duration_seconds_count{stage="publish"} 1"#,
        r#"memebg_inference_duration_seconds_count{model="multitask"} 1"#,
        r#"memebg_device_info{device="cpu",provider="cpu"} 1"#,
    ] {
        assert!(text.lines().any(|line| line == series), "{series} is missing in\n{text}");
    }
    assert!(text.contains(digest), "model_info names the bundle");
    assert!(!text.contains("E-4242"), "an embryo is no label");
}

#[test]
fn a_service_without_a_broker_is_alive_and_not_ready_and_can_be_stopped() {
    let mut config = config(&["kafka.drain_timeout_ms=6000"]);
    // Connections are taken and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    config.kafka.brokers = silent.local_addr().expect("an address").to_string();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stop = CancellationToken::new();
    let service = runtime.block_on(Service::start(config, stop.clone())).expect("a service");
    let address = service.address;
    let running = runtime.spawn(service.run());

    let (status, reason) = get(address, "/readyz");
    assert_eq!(status, 503);
    assert!(["no broker answers\n", "the consumer has not polled\n"].contains(&reason.as_str()), "{reason}");
    assert_eq!(get(address, "/livez").0, 200);
    stop.cancel();
    let end = runtime.block_on(running).expect("no panic").expect("a clean end");
    assert_eq!(end.unfinished_frames, 0);
    assert!(std::net::TcpStream::connect(address).is_err(), "the port is free again");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

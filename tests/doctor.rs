//! `memebg doctor` against a real broker: a set-up that works is all green, each fault is named with what to do, and
//! looking changes nothing.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

#[path = "doctor/beside.rs"]
mod beside;
#[path = "doctor/board.rs"]
mod board;
mod common;
#[path = "common/diagnosis.rs"]
mod diagnosis;
#[path = "doctor/emr.rs"]
mod emr;
#[path = "common/process.rs"]
mod process;
#[path = "common/scripted_fhir.rs"]
mod scripted;
#[path = "common/secured.rs"]
mod secured;
#[path = "common/stream.rs"]
mod stream;
#[path = "doctor/summarize.rs"]
mod summarize;

use std::net::TcpListener;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use common::bundle::copy_without_limits;
use common::frames::event;
use common::kafka::{Kafka, free_ports};
use diagnosis::{Diagnosis, run, server};
use process::{Memebg, get, metric, wait_for};
use secured::Operation::{Describe, Read, Write};
use secured::Resource::{Group, Topic, TransactionalId};
use secured::{PASSWORD, Secured};
use stream::{Stream, day_5_frames};

const PATIENCE: Duration = Duration::from_secs(90);
/// What a dead letter of the largest frame event needs, by default.
const LETTER_BYTES: &str = "8454144";
const WRONG_PASSWORD: &str = "Wrong-Horse";

/// Topics as the README asks for them.
async fn laboratory<'a>(kafka: &'a Kafka, name: &str) -> Stream<'a> {
    let stream = Stream { kafka, name: name.to_owned(), partitions: 2 };
    kafka.create_topic(&stream.frames(), 2, &[]).await;
    kafka.create_topic(&stream.grades(), 2, &[]).await;
    kafka.create_topic(&stream.dead_letters(), 2, &[("max.message.bytes", LETTER_BYTES)]).await;
    stream
}

/// The doctor with the options of a stream, on the CPU, and others over them.
fn look(stream: &Stream<'_>, others: &[(&str, &str)]) -> Diagnosis {
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.push(("model.device", "cpu"));
    options.extend(others);
    Diagnosis::of(&options)
}

fn list(entries: &[&str]) -> String {
    format!("{entries:?}")
}

#[tokio::test]
async fn a_set_up_that_works_is_all_green_in_both_delivery_modes() {
    let stream = laboratory(Kafka::shared(), "green").await;
    stream.send(day_5_frames(3, 0..2));
    let images = tempfile::tempdir().expect("a folder");
    let web = server("404 Not Found", Utc::now().to_rfc2822());
    let places = list(&[&format!("file://{}", images.path().display()), &web]);
    for delivery in ["at_least_once", "exactly_once"] {
        let options = [("fetch.allowed_uri_prefixes", places.as_str()), ("kafka.delivery", delivery)];
        let found = look(&stream, &options);
        assert_eq!((found.code, found.healthy), (0, true), "{}", found.text);
        for status in ["warn", "fail", "skipped"] {
            assert_eq!(found.with_status(status), [""; 0], "{}", found.text);
        }
        found.says("kafka.brokers", "ok", &["1 up in cluster "]);
        found.says("kafka.frames_topic", "ok", &["green.frames", "2 partitions", "1 replicas"]);
        found.says("kafka.lag", "ok", &["24 frames to read", "starts at earliest"]);
        found.says("clock.frames", "ok", &["frames is from the future"]);
        found.says("onnx_runtime", "ok", &["version 1.", "for cpu"]);
        found.says("device", "ok", &["cpu graded a frame in "]);
        found.says("machine.cores", "ok", &["1 graders will start"]);
    }
}

#[tokio::test]
async fn a_shadow_is_looked_at_only_where_there_is_one() {
    let stream = laboratory(Kafka::shared(), "shadowed").await;
    let bundle = common::bundle::demo();
    let bundle = ("shadow.bundle", bundle.to_str().expect("UTF-8"));
    let found = look(&stream, &[("shadow.topic", "no-such-topic")]);
    assert!(found.healthy, "{}", found.text);
    let found = look(&stream, &[bundle, ("shadow.topic", "no-such-topic")]);
    found.only_fails(&["shadow.topic"], 1);
    found.says("shadow.bundle", "ok", &["demo "]);
    found.says("shadow.topic", "fail", &["no-such-topic"]);
    let found = look(&stream, &[("shadow.bundle", "no/such/bundle"), ("shadow.topic", &stream.grades())]);
    found.only_fails(&["shadow.bundle"], 1);
    found.says("shadow.bundle", "fail", &["no/such/bundle/manifest.json"]);
}

#[tokio::test]
async fn the_lines_for_a_person_are_as_many_as_the_checks_and_have_no_colour_in_a_file() {
    let [port] = free_ports();
    let brokers = format!("127.0.0.1:{port}");
    let output =
        run(&["--timeout-seconds", "5"], &[("kafka.brokers", &brokers), ("telemetry.listen", "127.0.0.1:0")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let line =
        text.lines().position(|line| line.starts_with("fail     kafka.brokers ")).expect("a failed check");
    let next = text.lines().nth(line + 1).unwrap_or_default();
    assert!(next.starts_with("    ") && next.contains("-> check kafka.brokers"), "{text}");
    assert!(text.lines().last().is_some_and(|last| last.contains(" failed, ")), "{text}");
}

#[tokio::test]
async fn a_broker_that_is_down_is_told_from_what_has_to_be_mended_and_hides_nothing() {
    let stream = Stream { kafka: Kafka::shared(), name: "nobody".to_owned(), partitions: 2 };
    let [port] = free_ports();
    let brokers = format!("127.0.0.1:{port}");
    let down = ("kafka.brokers", brokers.as_str());
    let found = look(&stream, &[down]);
    found.only_fails(&["kafka.brokers"], 3);
    found.says("kafka.brokers", "fail", &[&brokers, "Connection refused", "kafka.brokers"]);
    found.says("device", "ok", &["graded a frame"]);
    let found = look(&stream, &[down, ("model.bundle", "no/such/bundle")]);
    found.only_fails(&["bundle", "kafka.brokers"], 1);
    found.says("bundle", "fail", &["no/such/bundle/manifest.json", "model.bundle"]);
}

#[tokio::test]
async fn a_topic_that_is_missing_is_named_with_its_option() {
    let stream = laboratory(Kafka::shared(), "half").await;
    for (option, check) in [
        ("kafka.frames_topic", "kafka.frames_topic"),
        ("kafka.grades_topic", "kafka.grades_topic"),
        ("kafka.dead_letters_topic", "kafka.dead_letters_topic"),
    ] {
        let found = look(&stream, &[(option, "half.misspelt")]);
        found.only_fails(&[check], 1);
        found.says(check, "fail", &["half.misspelt", option, "does not exist", "create it"]);
    }
}

#[tokio::test]
async fn a_dead_letter_topic_that_is_too_small_is_named_with_what_it_needs() {
    let stream = Stream::create(Kafka::shared(), "small", 1).await;
    let found = look(&stream, &[]);
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("kafka.dead_letter_size", "warn", &["1048588", "small.dead", LETTER_BYTES]);
}

#[tokio::test]
async fn a_bundle_that_was_changed_a_gpu_that_is_not_there_and_a_bad_property_are_named() {
    let stream = laboratory(Kafka::shared(), "models").await;
    let folder = tempfile::tempdir().expect("a folder");
    copy_without_limits(folder.path());
    let bundle = folder.path().to_str().expect("UTF-8").to_owned();
    let found = look(&stream, &[("model.bundle", &bundle)]);
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("bundle.card", "warn", &["CARD.md"]);
    found.says("bundle.limit", "warn", &["out_of_distribution"]);

    let network = folder.path().join("multitask.onnx");
    let mut bytes = std::fs::read(&network).expect("the network");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&network, bytes).expect("written");
    let found = look(&stream, &[("model.bundle", &bundle)]);
    found.only_fails(&["bundle"], 1);
    found.says(
        "bundle",
        "fail",
        &["multitask.onnx", "has sha256", "the manifest says", "copy the bundle anew"],
    );
    assert_eq!(found.with_status("skipped"), ["clock.frames", "device", "images"], "{}", found.text);

    let found = look(&stream, &[("model.device", "cuda")]);
    found.only_fails(&["device"], 1);
    found.says("device", "fail", &["cuda:0", "without CUDA", "nvidia-smi", "onnxruntime-gpu"]);
    let found = look(&stream, &[("model.device", "auto")]);
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("device", "warn", &["cpu graded a frame", "no GPU is used", "without CUDA"]);

    let found = look(&stream, &[("model.runtime.library", "no/such/library.so")]);
    found.only_fails(&["onnx_runtime"], 1);
    found.says("onnx_runtime", "fail", &["no/such/library.so", "model.runtime.library"]);

    let found = look(&stream, &[("kafka.properties.sasl_pasword", "Hidden-Horse")]);
    found.only_fails(&["kafka.brokers"], 2);
    found.says("kafka.brokers", "fail", &["sasl.pasword does not exist", "kafka.properties"]);
    assert!(!found.text.contains("Hidden-Horse"), "{}", found.text);
}

#[tokio::test]
async fn an_image_store_that_cannot_be_read_is_named() {
    let stream = laboratory(Kafka::shared(), "stores").await;
    let now = || Utc::now().to_rfc2822();
    let places = |entries: &[&str]| list(entries);
    let found = look(&stream, &[("fetch.allowed_uri_prefixes", &places(&["file:///no/such/mount"]))]);
    found.only_fails(&["images.0"], 2);
    found.says("images.0", "fail", &["file:///no/such/mount", "No such file", "fetch.allowed_uri_prefixes"]);

    let refusing = server("403 Forbidden", now());
    let everything = server("200 OK", now());
    let found = look(&stream, &[("fetch.allowed_uri_prefixes", &places(&[&refusing, &everything]))]);
    found.only_fails(&["images.0", "images.1"], 1);
    found.says("images.0", "fail", &[&refusing, "access is refused (403)", "credentials"]);
    found.says("images.1", "fail", &["proxy"]);

    let [port] = free_ports();
    let away = format!("http://127.0.0.1:{port}/frames");
    let ill = server("503 Service Unavailable", now());
    let found = look(&stream, &[("fetch.allowed_uri_prefixes", &places(&[&away, &ill]))]);
    found.only_fails(&["images.0", "images.1"], 3);
    found.says("images.0", "fail", &[&away, "cannot be reached", "refused", "image_unreachable"]);
    found.says("images.1", "fail", &["503"]);

    let secret = list(&["https://me:Hidden-Horse@images.example/frames"]);
    let found = look(&stream, &[("fetch.allowed_uri_prefixes", &secret)]);
    found.says("images.0", "fail", &["<redacted>", "user info"]);
    assert!(!found.text.contains("Hidden-Horse"), "{}", found.text);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named_whoever_tells_it() {
    let stream = laboratory(Kafka::shared(), "clocks").await;
    stream.send(day_5_frames(3, 0..2));
    let hours_ago = Utc::now() - TimeDelta::hours(2);
    let late = list(&[&server("404 Not Found", hours_ago.to_rfc2822())]);
    let found = look(&stream, &[("fetch.allowed_uri_prefixes", &late)]);
    found.only_fails(&["clock.images"], 1);
    found.says("clock.images", "fail", &["images.0", "behind this machine", "clock_tolerance_seconds = 300"]);

    let mut from_the_future = event("D2026.02.03_S00001_I0001_P-1");
    from_the_future["captured_at"] = (Utc::now() + TimeDelta::hours(2)).format("%FT%TZ").to_string().into();
    stream.send([("a".to_owned(), from_the_future.to_string().into_bytes())]);
    let found = look(&stream, &[]);
    found.only_fails(&["clock.frames"], 1);
    found.says("clock.frames", "fail", &["s in the future", "an incubator's is ahead", "clock_in_future"]);
    let found = look(&stream, &[("select.clock_tolerance_seconds", "7201")]);
    found.says("clock.frames", "ok", &["ahead of this machine"]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_from_a_running_memebg_which_does_not_notice_the_look() {
    let stream = laboratory(Kafka::shared(), "beside").await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address").to_string();
    let found = look(&stream, &[("telemetry.listen", &listen)]);
    found.only_fails(&["telemetry.listen"], 1);
    found.says("telemetry.listen", "fail", &[&listen, "another program", "ss -ltnp"]);

    stream.send(day_5_frames(2, 0..2));
    let usual = stream.options();
    let options: Vec<(&str, &str)> = usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    let mut service = Memebg::start(&["serve"], &options);
    let address = service.address(PATIENCE);
    stream.await_committed(PATIENCE);
    wait_for("readiness", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 200));
    let rebalances = metric(address, "memebg_rebalances_total").expect("a metric");
    let (committed, published) = (stream.committed(), stream.published());
    for delivery in ["at_least_once", "exactly_once"] {
        let found =
            look(&stream, &[("telemetry.listen", &address.to_string()), ("kafka.delivery", delivery)]);
        assert_eq!(found.code, 0, "{}", found.text);
        found.says("telemetry.listen", "warn", &["running memebg"]);
        found.says("kafka.group", "ok", &["may be joined"]);
        found.says("kafka.lag", "ok", &["0 frames behind"]);
    }
    // A member that came or went would have been noticed with the next heartbeat, every 3 s.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(metric(address, "memebg_rebalances_total"), Some(rebalances));
    assert_eq!((stream.committed(), stream.published()), (committed, published));
    service.stop_in_peace(PATIENCE);
}

/// Grants the table of the README on a stream, but for what a test leaves out.
fn allow_all_but(broker: &Secured, stream: &Stream<'_>, left_out: &str) {
    for (resource, name, operations) in [
        (Topic, &stream.frames(), &[Read, Describe][..]),
        (Group, &stream.name, &[Read]),
        (Topic, &stream.grades(), &[Write, Describe]),
        (Topic, &stream.dead_letters(), &[Write, Describe]),
    ] {
        if name != left_out {
            broker.allow(resource, name, operations);
        }
    }
}

fn look_secured(broker: &Secured, stream: &Stream<'_>, others: &[(&str, &str)]) -> Diagnosis {
    let usual = broker.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend(others);
    let found = look(stream, &options);
    assert!(!found.text.contains(PASSWORD) && !found.text.contains(WRONG_PASSWORD), "{}", found.text);
    found
}

#[tokio::test]
async fn the_acls_of_the_readme_are_enough_to_look_and_what_cannot_be_asked_is_said() {
    let broker = Secured::shared();
    let stream = laboratory(&broker.kafka, "let-in").await;
    allow_all_but(broker, &stream, "");
    let found = look_secured(broker, &stream, &[]);
    assert_eq!((found.code, found.with_status("fail")), (0, vec![]), "{}", found.text);
    found.says("kafka.read", "ok", &["READ on let-in.frames"]);
    found.says("kafka.group", "ok", &["READ on group let-in"]);
    found.says("kafka.write", "ok", &["a producer id is granted", "WRITE on each was not asked"]);
    found.says("kafka.dead_letter_size", "skipped", &["are not shown", "grant DESCRIBE_CONFIGS"]);

    let found = look_secured(broker, &stream, &[("kafka.delivery", "exactly_once")]);
    found.only_fails(&["kafka.write"], 1);
    found.says("kafka.write", "fail", &["transactional ids", "grant WRITE and DESCRIBE on that prefix"]);
    broker.allow(TransactionalId, "let-in-*", &[Write, Describe]);
    let found = look_secured(broker, &stream, &[("kafka.delivery", "exactly_once")]);
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("kafka.write", "ok", &["a transactional id is granted"]);
}

#[tokio::test]
async fn a_wrong_password_and_a_strange_certificate_are_named_and_no_outage() {
    let broker = Secured::shared();
    let stream = Stream { kafka: &broker.kafka, name: "locked-out".to_owned(), partitions: 1 };
    let wrong = broker.secret(WRONG_PASSWORD);
    let found = look_secured(broker, &stream, &[("kafka.property_files.sasl_password", &wrong)]);
    found.only_fails(&["kafka.brokers"], 1);
    found.says(
        "kafka.brokers",
        "fail",
        &["refuses the credentials", "sasl.password", "kafka.property_files"],
    );

    let foreign = broker.foreign_authority();
    let found = look_secured(broker, &stream, &[("kafka.properties.ssl_ca_location", &foreign)]);
    found.only_fails(&["kafka.brokers"], 1);
    found.says(
        "kafka.brokers",
        "fail",
        &["no TLS connection", "certificate verify failed", "ssl.ca.location"],
    );
}

#[tokio::test]
async fn an_acl_that_is_missing_is_named_with_what_to_grant() {
    let broker = Secured::shared();
    let stream = laboratory(&broker.kafka, "acl-frames").await;
    allow_all_but(broker, &stream, &stream.frames());
    look_secured(broker, &stream, &[]).says(
        "kafka.frames_topic",
        "fail",
        &["acl-frames.frames", "grant READ"],
    );
    // Now it is seen, and still not read.
    broker.allow(Topic, &stream.frames(), &[Describe]);
    let found = look_secured(broker, &stream, &[]);
    found.only_fails(&["kafka.read"], 1);
    found.says("kafka.read", "fail", &["acl-frames.frames", "kafka.frames_topic", "grant READ"]);

    let stream = laboratory(&broker.kafka, "acl-group").await;
    allow_all_but(broker, &stream, &stream.name);
    let found = look_secured(broker, &stream, &[]);
    found.only_fails(&["kafka.group"], 1);
    found.says("kafka.group", "fail", &["group acl-group", "grant READ"]);
    // Now its offsets are seen, and it still cannot be joined.
    broker.allow(Group, "acl-group", &[Describe]);
    let found = look_secured(broker, &stream, &[]);
    found.only_fails(&["kafka.group"], 1);
    found.says("kafka.group", "fail", &["group acl-group", "kafka.group_id", "grant READ"]);

    let stream = laboratory(&broker.kafka, "acl-grades").await;
    allow_all_but(broker, &stream, &stream.grades());
    let found = look_secured(broker, &stream, &[]);
    found.only_fails(&["kafka.grades_topic"], 1);
    found.says("kafka.grades_topic", "fail", &["acl-grades.grades", "kafka.grades_topic", "grant WRITE"]);
}

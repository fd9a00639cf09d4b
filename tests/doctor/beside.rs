//! The processes beside the service: their topics, rights and options, and all of them at once.

use std::net::TcpListener;
use std::time::Duration;

use chrono::Utc;

use crate::common::kafka::{Kafka, free_ports};
use crate::diagnosis::{Diagnosis, run, server};
use crate::scripted::{Script, ScriptedFhir};
use crate::secured::{PASSWORD, Secured};
use crate::stream::{Stream, day_5_frames};
use crate::{LETTER_BYTES, list};

/// What a server says of itself that does all that is needed.
pub const CAPABLE: &str = r#"{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1",
    "rest":[{"mode":"server","interaction":[{"code":"transaction"}]}]}"#;
/// Reviews stay for ever.
pub const FOR_EVER: (&str, &str) = ("retention.ms", "-1");
pub const COMPACT: (&str, &str) = ("cleanup.policy", "compact");

/// Topics for everything.
pub struct Clinic<'a> {
    pub stream: Stream<'a>,
}

impl<'a> Clinic<'a> {
    /// Topics as the README asks for them, but for those of a test.
    pub async fn open_but(kafka: &'a Kafka, name: &str, left_out: &[&str]) -> Self {
        let clinic = Self { stream: Stream { kafka, name: name.to_owned(), partitions: 2 } };
        let letters = [("max.message.bytes", LETTER_BYTES)];
        let topics: [(&str, &[(&str, &str)]); 6] = [
            ("frames", &[]),
            ("grades", &[]),
            ("dead", &letters),
            ("summaries", &[COMPACT]),
            ("reviews", &[FOR_EVER]),
            ("bundles", &[COMPACT]),
        ];
        for (topic, settings) in topics.into_iter().filter(|(topic, _)| !left_out.contains(topic)) {
            kafka.create_topic(&clinic.topic(topic), 2, settings).await;
        }
        clinic
    }

    pub async fn open(kafka: &'a Kafka, name: &str) -> Self {
        Self::open_but(kafka, name, &[]).await
    }

    pub fn topic(&self, of: &str) -> String {
        format!("{}.{of}", self.stream.name)
    }

    /// The doctor of these processes, with these options over the usual ones.
    pub fn look(&self, processes: &str, others: &[(&str, &str)]) -> Diagnosis {
        let mut usual = self.stream.options();
        usual.push(("summaries.topic", self.topic("summaries")));
        usual.push(("reviews.topic", self.topic("reviews")));
        let mut options: Vec<(&str, &str)> =
            usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
        options.extend([("model.device", "cpu"), ("board.listen", "127.0.0.1:0")]);
        options.extend(others);
        Diagnosis::of_processes(processes, &options)
    }

    /// The same with a password.
    pub fn look_secured(&self, broker: &Secured, processes: &str, others: &[(&str, &str)]) -> Diagnosis {
        let usual = broker.options();
        let mut options: Vec<(&str, &str)> =
            usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
        options.extend(others);
        let found = self.look(processes, &options);
        assert!(!found.text.contains(PASSWORD), "{}", found.text);
        found
    }
}

/// An address at which nobody listens.
pub fn nobody() -> String {
    let [port] = free_ports();
    format!("127.0.0.1:{port}")
}

#[tokio::test]
async fn unless_others_are_asked_for_the_service_is_looked_at_and_nothing_else() {
    let clinic = Clinic::open_but(Kafka::shared(), "plain", &["summaries", "reviews", "bundles"]).await;
    let usual = clinic.stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.push(("model.device", "cpu"));
    let names = [
        "bundle",
        "bundle.card",
        "bundle.limit",
        "clock.frames",
        "configuration",
        "device",
        "images",
        "kafka.brokers",
        "kafka.dead_letter_size",
        "kafka.dead_letters_topic",
        "kafka.frames_topic",
        "kafka.grades_topic",
        "kafka.group",
        "kafka.lag",
        "kafka.read",
        "kafka.write",
        "machine.cores",
        "machine.memory",
        "onnx_runtime",
        "telemetry.listen",
    ];
    for found in [Diagnosis::of(&options), Diagnosis::of_processes("serve", &options)] {
        assert_eq!((found.code, found.names()), (0, names.to_vec()), "{}", found.text);
    }
    // In the same way where nobody can be asked.
    let away = nobody();
    options.push(("kafka.brokers", &away));
    let found = Diagnosis::of(&options);
    assert_eq!((found.code, found.names()), (3, names.to_vec()), "{}", found.text);
}

#[tokio::test]
async fn all_of_them_are_green_together_and_looking_changes_nothing() {
    let clinic = Clinic::open(Kafka::shared(), "hospital").await;
    clinic.stream.send(day_5_frames(3, 0..2));
    let images = tempfile::tempdir().expect("a folder");
    let places = list(&[&format!("file://{}", images.path().display())]);
    let fhir = ScriptedFhir::start(Script::Say(200, "", CAPABLE.into()));
    let (base, bundles, collector) =
        (fhir.base(), clinic.topic("bundles"), server("200 OK", Utc::now().to_rfc2822()));
    let options = [
        ("fetch.allowed_uri_prefixes", places.as_str()),
        ("emr.server", &base),
        ("emr.topic", &bundles),
        ("board.heat_maps", "true"),
        ("telemetry.traces.endpoint", &collector),
    ];
    let before = (clinic.stream.committed(), clinic.stream.published());
    let found = clinic.look("serve,summarize,emr,board", &options);
    assert_eq!((found.code, found.healthy), (0, true), "{}", found.text);
    for status in ["warn", "fail"] {
        assert_eq!(found.with_status(status), [""; 0], "{}", found.text);
    }
    // There is no review yet.
    assert_eq!(found.with_status("skipped"), ["clock.reviews"], "{}", found.text);
    found.says("summaries.partitions", "ok", &["hospital.grades 2", "hospital.reviews 2"]);
    found.says("summaries.cleanup", "ok", &["is compacted"]);
    found.says("reviews.retention", "ok", &["keeps every review"]);
    found.says(
        "summarize.read",
        "ok",
        &["READ on hospital.grades, hospital.summaries, hospital.reviews: 6 part"],
    );
    found.says("summarize.group", "ok", &["READ on group hospital-summaries"]);
    found.says("summarize.lag", "ok", &["0 grade events to read"]);
    found.says("summarize.write", "ok", &["a transactional id is granted", "both topics"]);
    found.says("emr.read", "ok", &["READ on hospital.summaries"]);
    found.says("emr.group", "ok", &["READ on group hospital-emr"]);
    found.says("emr.write", "ok", &["a producer id is granted", "both topics"]);
    found.says("emr.server", "ok", &["version 4.0.1", "does transactions", "no token was shown"]);
    found.says("board.read", "ok", &["hospital.frames", "hospital.dead"]);
    found.says("board.lag", "ok", &["24 frames to read", "group hospital "]);
    found.says("board.write", "ok", &["topic hospital.reviews is visible"]);
    found.says("board.access", "ok", &["everybody on this machine"]);
    found.says("board.heat_maps", "ok", &["where it looked"]);
    found.says("telemetry.traces.endpoint", "ok", &[&collector, "without a span"]);
    assert!(!found.names().contains(&"board.group"), "the board is in no group: {}", found.text);

    let heads: Vec<String> = fhir.requests().into_iter().map(|(_, head)| head).collect();
    assert!(heads.len() == 1 && heads[0].starts_with("get /fhir/metadata "), "{heads:?}");
    assert_eq!((clinic.stream.committed(), clinic.stream.published()), before);
    // In several words as well as in one.
    let arguments = ["--json", "--of", "emr", "--of", "board"];
    let output = run(&arguments, &[("kafka.brokers", &nobody())]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\"emr.group\"") && text.contains("\"board.read\""), "{text}");
    assert!(!text.contains("\"kafka.group\"") && !text.contains("\"onnx_runtime\""), "{text}");
}

#[tokio::test]
async fn a_process_that_there_is_not_is_refused_and_a_broker_that_is_down_is_said_once() {
    let output = run(&["--of", "incubate"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let clinic = Clinic { stream: Stream { kafka: Kafka::shared(), name: "away".into(), partitions: 2 } };
    let found = clinic.look("summarize,board", &[("kafka.brokers", &nobody())]);
    found.only_fails(&["kafka.brokers"], 3);
    assert_eq!(
        found.with_status("skipped"),
        [
            "board.lag",
            "board.read",
            "board.write",
            "clock.frames",
            "clock.reviews",
            "images",
            "kafka.dead_letters_topic",
            "kafka.frames_topic",
            "kafka.grades_topic",
            "reviews.retention",
            "reviews.topic",
            "summaries.cleanup",
            "summaries.partitions",
            "summaries.topic",
            "summarize.group",
            "summarize.lag",
            "summarize.read",
            "summarize.write",
        ],
        "{}",
        found.text
    );
}

#[tokio::test]
async fn a_collector_that_takes_no_traces_is_a_warning_because_no_frame_waits_for_it() {
    let clinic = Clinic::open(Kafka::shared(), "traced").await;
    let wrong = server("404 Not Found", Utc::now().to_rfc2822());
    let found = clinic.look("serve", &[("telemetry.traces.endpoint", &wrong)]);
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("telemetry.traces.endpoint", "warn", &[&wrong, "404", "/v1/traces"]);

    let away = format!("http://{}/v1/traces?key=Hidden-Horse", nobody());
    let found = clinic.look("serve", &[("telemetry.traces.endpoint", &away)]);
    found.says("telemetry.traces.endpoint", "warn", &["<redacted>", "network error"]);
    assert!(!found.text.contains("Hidden-Horse"), "{}", found.text);

    // One that takes the connection and says nothing is not waited for beyond its time.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = format!("http://{}/v1/traces", silent.local_addr().expect("an address"));
    let began = std::time::Instant::now();
    let found = clinic.look("serve", &[("telemetry.traces.endpoint", &silent)]);
    found.says("telemetry.traces.endpoint", "warn", &["takes no traces"]);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

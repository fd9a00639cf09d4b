//! `memebg adapt` on a real Kafka: whatever comes into the export folder, and whenever the process is killed, the event
//! of every image is on the topic, and nothing of a patient is.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{frames::photograph_jpeg, kafka::Kafka, published::Published};
use memebg::pipeline::message::RawMessage;
use process::{Memebg, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const SLIDE: &str = "D2026.01.31_S00001_I0001";
const PLANES: usize = 3;
const OFFSETS_UM: [i32; PLANES] = [-15, 0, 15];
/// Of a patient, in whatever lies beside the images.
const PATIENT: [&str; 3] = ["Jane Doe", "1985-03-01", "12345678"];

/// An EmbryoScope-style export and an adapter that watches it.
struct Export {
    folder: TempDir,
    state: TempDir,
    topic: String,
    brokers: String,
}

impl Export {
    async fn create(kafka: &Kafka, topic: &str) -> Self {
        kafka.create_topic(topic, 3, &[]).await;
        let [folder, state] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        let export = Self { folder, state, topic: topic.to_owned(), brokers: kafka.bootstrap() };
        for offset in OFFSETS_UM {
            fs::create_dir(export.folder.path().join(format!("F{offset}"))).expect("a folder");
        }
        let slide = json!({
            "patient_name": PATIENT[0], "birth_date": PATIENT[1], "patient_id": PATIENT[2],
            "insemination_time": "2025-02-28T15:00:00Z", "insemination_method": "ICSI", "time_zero_source": "emr",
            "captures": (1..=200).map(|run| (run.to_string(), json!("2025-03-05T11:00:00Z")))
                .collect::<BTreeMap<_, _>>(),
        });
        fs::write(export.folder.path().join(format!("{SLIDE}.json")), slide.to_string()).expect("a file");
        export
    }

    fn adapt(&self, more: &[&str]) -> Memebg {
        let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let options = [
            ("kafka.brokers", self.brokers.clone()),
            ("kafka.frames_topic", self.topic.clone()),
            ("telemetry.log_format", "json".to_owned()),
            ("adapter.folder", path(self.folder.path())),
            ("adapter.state_file", path(&self.state_file())),
            ("adapter.layout", "embryoscope".to_owned()),
            ("adapter.site_id", "north".to_owned()),
            ("adapter.instrument_vendor", "Invented".to_owned()),
            ("adapter.instrument_model", "Lapse 3".to_owned()),
            ("adapter.focal_offsets_um", format!("{OFFSETS_UM:?}")),
            ("adapter.poll_seconds", "1".to_owned()),
            ("adapter.settle_seconds", "1".to_owned()),
            ("adapter.report_after_seconds", "2".to_owned()),
        ];
        let options = options.each_ref().map(|(option, value)| (*option, value.as_str()));
        Memebg::start(&[&["adapt"], more].concat(), &options)
    }

    fn state_file(&self) -> PathBuf {
        self.state.path().join("state")
    }

    /// Frames that the state says are published.
    fn remembered(&self) -> usize {
        fs::read_to_string(self.state_file()).map_or(0, |text| text.lines().count().saturating_sub(1))
    }

    /// All planes of a capture, written in two halves, as over a slow share.
    fn photograph(&self, well: u32, run: u32) {
        let path = |offset| {
            let name = format!("{SLIDE}_P-{well}_WELL{well}_RUN{run}.jpeg");
            self.folder.path().join(format!("F{offset}")).join(name)
        };
        let (half, whole) = (&photograph_jpeg()[..500], photograph_jpeg());
        for content in [half, whole] {
            OFFSETS_UM.map(path).iter().for_each(|path| fs::write(path, content).expect("a file"));
        }
    }

    fn published(&self, kafka: &Kafka) -> Published {
        Published::follow(&kafka.client(), &[&self.topic])
    }
}

/// How often each frame was published, after its event was held against the schema.
fn checked(messages: &[RawMessage]) -> BTreeMap<(String, u64, u64), usize> {
    let schema: Value =
        serde_json::from_str(include_str!("../schemas/frame.v1.schema.json")).expect("the schema is JSON");
    let schema =
        jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema");
    let mut counts = BTreeMap::new();
    for message in messages {
        let event: Value = serde_json::from_slice(message.value.as_deref().expect("a value")).expect("JSON");
        let complaints: Vec<String> = schema.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(complaints.is_empty(), "{complaints:?} {event}");
        let embryo = event["embryo_id"].as_str().expect("an id").to_owned();
        assert_eq!(message.key.as_deref(), Some(embryo.as_bytes()));
        let number = |field: &str| event[field].as_u64().expect("a number");
        let (run, plane) = (number("run"), number("focal_plane_index"));
        let header = |name: &str| {
            let found =
                message.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
            String::from_utf8(found.expect("a header")).expect("text")
        };
        assert_eq!(header("ce_id"), format!("{embryo}/{run}/{plane}"));
        assert_eq!(header("ce_source"), "/memebg/adapter");
        assert_eq!(event["image"]["bytes"], photograph_jpeg().len(), "a file was sent before it was whole");
        *counts.entry((embryo, run, plane)).or_default() += 1;
    }
    counts
}

fn free_of_patients(text: &str) {
    for word in PATIENT {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn every_image_is_on_the_topic_although_the_adapter_is_killed_and_nothing_comes_again_after_a_clean_stop()
 {
    let kafka = Kafka::shared();
    let export = Export::create(kafka, "adapter-killed").await;
    let mut logs = String::new();
    let published = export.published(kafka);
    // Images come while it runs; it is killed when the first of them is on the topic, or when it is remembered.
    for run in 1..=6 {
        let adapter = export.adapt(&[]);
        adapter.logged("export folder", PATIENCE);
        let (on_topic, remembered) = (published.messages().len(), export.remembered());
        (1..=8).for_each(|well| export.photograph(well, run));
        if run % 2 == 0 {
            wait_for("some frames remembered", PATIENCE, || (export.remembered() > remembered).then_some(()));
        } else {
            let more = published.wait_for(PATIENCE, |read| (read.len() > on_topic).then_some(()));
            more.expect("a frame on the topic");
        }
        adapter.signal("KILL");
        logs += &adapter.log();
    }
    let expected = 6 * 8 * PLANES;
    let mut adapter = export.adapt(&[]);
    adapter.logged("export folder", PATIENCE);
    wait_for("every frame remembered", PATIENCE, || (export.remembered() >= expected).then_some(()));
    adapter.signal("TERM");
    assert_eq!(adapter.end(PATIENCE).code(), Some(0), "{}", adapter.log());
    logs += &adapter.log();

    let all: BTreeSet<(String, u64, u64)> = (1..=8_u64)
        .flat_map(|well| (1..=6).map(move |run| (well, run)))
        .flat_map(|(well, run)| {
            (0..PLANES as u64).map(move |plane| (format!("{SLIDE}_P-{well}"), run, plane))
        })
        .collect();
    let complete = published.wait_for(PATIENCE, |messages| (messages.len() >= expected).then_some(()));
    complete.expect("as many messages as images");
    // A moment for what should not be there.
    std::thread::sleep(Duration::from_secs(1));
    let counts = checked(&published.messages());
    assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), all);
    let messages = published.messages().len();
    println!("{messages} messages for {expected} images after six kills");

    // Clean stops bring nothing again, and what comes new comes once.
    let run_once = |code| {
        let mut adapter = export.adapt(&["--once"]);
        assert_eq!(adapter.end(PATIENCE).code(), Some(code), "{}", adapter.log());
        adapter.log()
    };
    logs += &run_once(0);
    export.photograph(1, 7);
    logs += &run_once(0);
    logs += &run_once(0);
    let more = published.wait_for(PATIENCE, |read| (read.len() >= messages + PLANES).then_some(()));
    more.expect("the new capture");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(published.messages().len(), messages + PLANES);

    // What fits nothing is an error, stays where it is, and is never repeated.
    let odd = export.folder.path().join("F0").join(format!("{} {}.jpeg", PATIENT[0], PATIENT[2]));
    fs::write(&odd, photograph_jpeg()).expect("a file");
    let log = run_once(1);
    assert!(odd.exists() && log.contains("not published"), "{log}");
    logs += &log;
    free_of_patients(&logs);
    free_of_patients(&fs::read_to_string(export.state_file()).expect("the state"));
    for message in published.messages().iter() {
        free_of_patients(&String::from_utf8_lossy(message.value.as_deref().expect("a value")));
    }
}

#[tokio::test]
async fn a_missing_option_is_a_mistake_in_the_usage_and_a_lost_broker_is_not() {
    let mut adapter = Memebg::start(&["adapt", "--once"], &[]);
    assert_eq!(adapter.end(PATIENCE).code(), Some(2), "{}", adapter.log());
    assert!(adapter.log().contains("adapter.folder"), "{}", adapter.log());

    let mut export = Export::create(Kafka::shared(), "adapter-lost").await;
    export.brokers = "127.0.0.1:1".to_owned();
    export.photograph(1, 1);
    let mut adapter = export.adapt(&["--once", "--set", "kafka.delivery_timeout_ms=2000"]);
    assert_eq!(adapter.end(PATIENCE).code(), Some(3), "{}", adapter.log());
    assert_eq!(export.remembered(), 0);
}

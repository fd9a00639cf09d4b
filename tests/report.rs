//! `memebg report` against a real Kafka, of what the real service and the real summarizer have published; and the same
//! from files.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use common::bundle;
use common::kafka::Kafka;
use memebg::domain::{
    EmbryoSummary, Expansion, Picture, Review, ReviewReason, ReviewedSummary, SummaryAssessment,
};
use memebg::incubator::{Embryo, Renderer};
use memebg::report::file_name;
use memebg::training::LabelledImages;
use process::{Memebg, wait_for};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 2;
const SIDE_PX: u32 = 320;
/// Every 20 minutes over ten hours.
const CAPTURES: usize = 29;
const GRADED: &str = "D2026.01.26_S00001_I0001_P-1";
/// An id that the schema allows.
const HOSTILE: &str = "../<script>alert('1')</script>&\"";

fn topic(name: &str) -> String {
    format!("report.{name}")
}

/// What an incubator would send of an embryo, and the images; two of them are empty wells. The images of the second
/// half lie in `store`.
fn frames(embryo_id: &str, seed: u64, captures: usize, store: &Path) -> Vec<Vec<u8>> {
    let mut renderer = Renderer::new(SIDE_PX);
    let insemination = DateTime::<Utc>::from_timestamp(1_769_000_000, 0).expect("a time");
    let frame = |capture: usize| {
        let hpi = 110.2 + capture as f64 / 3.0;
        let mut picture = renderer.render(&Embryo::new(seed), hpi, 0.0);
        if capture % 10 == 7 {
            picture.pixels_mut().for_each(|pixel| pixel.0 = [110]);
        }
        let jpeg = Renderer::jpeg(&picture).expect("a JPEG");
        let sha256 = hex::encode(Sha256::digest(&jpeg));
        let file = store.join(format!("{sha256}.jpg"));
        fs::write(&file, &jpeg).expect("an image");
        let mut image = json!({"sha256": sha256, "media_type": "image/jpeg", "bytes": jpeg.len(),
            "width": SIDE_PX, "height": SIDE_PX});
        if capture < captures / 2 {
            image["data"] = json!(base64_simd::STANDARD.encode_to_string(&jpeg));
        } else {
            image["uri"] = json!(format!("file://{}", file.display()));
        }
        let event = json!({
            "site_id": "north", "instrument": {"vendor": "Invented", "model": "TL-12", "serial": "SN-0042"},
            "slide_id": "D2026.01.26_S00001_I0001", "well": seed + 1, "embryo_id": embryo_id, "run": 400 + capture,
            "focal_plane_index": 1, "focal_offset_um": 0.0, "focal_plane_count": 3,
            "captured_at": insemination + TimeDelta::milliseconds((hpi * 3_600_000.0) as i64),
            "insemination_time": insemination, "insemination_method": "ICSI", "time_zero_source": "incubator",
            "image": image,
        });
        event.to_string().into_bytes()
    };
    (0..captures).map(frame).collect()
}

fn producer(kafka: &Kafka) -> BaseProducer {
    kafka.client().set("partitioner", "murmur2_random").create().expect("a producer")
}

fn send(producer: &BaseProducer, name: &str, key: &str, value: &[u8]) {
    let topic = topic(name);
    producer.send(BaseRecord::to(&topic).key(key).payload(value)).map_err(|(error, _)| error).expect("room");
    producer.flush(PATIENCE).expect("confirmed");
}

/// Every value of a topic, committed or not.
fn values(kafka: &Kafka, name: &str) -> Vec<Vec<u8>> {
    let mut client = kafka.client();
    client.set("group.id", "reads").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&topic(name), partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("an assignment");
    let (mut values, mut ended) = (Vec::new(), 0);
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_secs(10)).expect("a broker that answers") {
            Ok(message) => values.push(message.payload().unwrap_or_default().to_vec()),
            Err(_) => ended += 1,
        }
    }
    values
}

fn summary(kafka: &Kafka, embryo: &str, holds: impl Fn(&EmbryoSummary) -> bool) -> EmbryoSummary {
    wait_for(&format!("the summary of {embryo}"), PATIENCE, || {
        let all = values(kafka, "summaries");
        let all = all.iter().filter_map(|value| serde_json::from_slice::<EmbryoSummary>(value).ok());
        all.filter(|it| it.embryo_id == embryo).max_by_key(|it| it.version).filter(&holds)
    })
}

struct Place {
    options: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Place {
    fn new(kafka: &Kafka) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = [
            ("kafka.brokers", kafka.bootstrap()),
            ("kafka.group_id", "report".to_owned()),
            ("kafka.frames_topic", topic("frames")),
            ("kafka.grades_topic", topic("grades")),
            ("kafka.dead_letters_topic", topic("dead")),
            ("summaries.topic", topic("summaries")),
            ("reviews.topic", topic("reviews")),
            ("summaries.publish_interval_ms", "200".to_owned()),
            ("summaries.grace_minutes", "10000000".to_owned()),
            ("model.device", "cpu".to_owned()),
            ("fetch.allowed_uri_prefixes", format!(r#"["file://{}/"]"#, folder.path().display())),
            ("telemetry.listen", "127.0.0.1:0".to_owned()),
        ];
        let options = options.map(|(option, value)| (option.to_owned(), value)).into();
        Self { options, folder }
    }

    fn start(&self, command: &str) -> Memebg {
        let options: Vec<(&str, &str)> =
            self.options.iter().map(|(option, value)| (option.as_str(), value.as_str())).collect();
        Memebg::start(&[command], &options)
    }

    fn report(&self, arguments: &[&str]) -> Output {
        self.run("report", arguments)
    }

    fn run(&self, command_name: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
        for (option, value) in &self.options {
            command.arg("--set").arg(format!("{option}={value}"));
        }
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.arg(command_name).args(arguments).output().expect("memebg")
    }
}

/// The reports in a folder, which holds nothing else.
fn written(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

fn is_of(path: &Path, embryo: &str) -> String {
    assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(file_name(embryo).as_str()));
    fs::read_to_string(path).expect("a report")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_shows_what_was_published_of_an_embryo_and_of_no_other() {
    let kafka = Kafka::shared();
    for name in ["frames", "grades", "dead", "reviews"] {
        kafka.create_topic(&topic(name), PARTITIONS as usize, &[]).await;
    }
    kafka.create_topic(&topic("summaries"), PARTITIONS as usize, &[("cleanup.policy", "compact")]).await;
    let place = Place::new(kafka);
    let producer = producer(kafka);
    let first = frames(GRADED, 3, CAPTURES, place.folder.path());
    let second = frames(HOSTILE, 5, 4, place.folder.path());
    let (serve, summarize) = (place.start("serve"), place.start("summarize"));
    first.iter().for_each(|frame| send(&producer, "frames", GRADED, frame));
    second.iter().for_each(|frame| send(&producer, "frames", HOSTILE, frame));
    let seen = summary(kafka, GRADED, |summary| summary.frames.total == CAPTURES);
    summary(kafka, HOSTILE, |summary| summary.frames.total == 4);
    let review = Review {
        embryo_id: GRADED.into(),
        site_id: "north".into(),
        reviewer: "rev-7".into(),
        reviewed_at: "2026-01-31T15:04:00Z".parse().expect("a time"),
        blinded: true,
        exp: Expansion::E2,
        icm: None,
        te: None,
        reason: ReviewReason::WrongExpansion,
        summary: ReviewedSummary {
            version: seen.version,
            gardner: seen.gardner.clone(),
            model_digest: "ab".repeat(32),
        },
    };
    let json = review.to_json().expect("JSON");
    send(&producer, "reviews", GRADED, json.as_slice());
    let reviewed = summary(kafka, GRADED, |summary| summary.assessment == SummaryAssessment::Amended);
    drop((serve, summarize));
    abort(kafka, GRADED, &EmbryoSummary { version: 999, site_id: "aborted".into(), ..reviewed.clone() });

    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().join("reports");
    let folder_text = folder.to_str().expect("UTF-8");
    let output = place.report(&["--out", folder_text, GRADED, HOSTILE, "nobody"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no report of \"nobody\": there is no summary on report.summaries"), "{said}");
    assert!(!said.contains(GRADED), "{said}");

    let files = written(&folder);
    assert_eq!(files.len(), 2, "{files:?}");
    let hostile = is_of(&files[0], HOSTILE);
    assert!(!hostile.contains("<script") && hostile.contains("&lt;script&gt;"));
    let graded = is_of(&files[1], GRADED);
    for fact in ["amended", "rev-7", "SN-0042", "the machine’s expansion was wrong", "hardly any contrast"]
    {
        assert!(graded.contains(fact), "{fact} is missing");
    }
    // All photographs, inline or fetched; and the last graded one, alone and with the map of each head.
    let (photographs, looked) = graded.split_once("Where the model looked").expect("a section");
    assert_eq!((photographs.matches("<img ").count(), looked.matches("<img ").count()), (24, 4));
    assert!(!graded.contains("class=\"missing\""));
    assert!(graded.len() < 1_500_000, "{} bytes", graded.len());

    assert!(!graded.contains("aborted"));

    from_files(kafka, &place, &reviewed, &graded);
    check(&place, &graded);
    export(&place);

    let late = place.report(&["--out", folder_text, "--timeout-seconds", "0", GRADED]);
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert_eq!(late.status.code(), Some(1), "{said}");
    assert!(said.contains("report.summaries was not read to its end within 0 s"), "{said}");
}

/// Writes a summary that is never committed.
fn abort(kafka: &Kafka, embryo: &str, summary: &EmbryoSummary) {
    let mut client = kafka.client();
    client.set("transactional.id", "report").set("partitioner", "murmur2_random");
    let producer: BaseProducer = client.create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("a broker");
    producer.begin_transaction().expect("a transaction");
    send(&producer, "summaries", embryo, &serde_json::to_vec(summary).expect("JSON"));
    producer.abort_transaction(PATIENCE).expect("aborted");
}

/// Does what the report says about how to check it.
fn check(place: &Place, report: &str) {
    assert!(report.contains("memebg verify --set model.bundle=BUNDLE grade.json IMAGE"));
    let link =
        report.split("href=\"data:application/json;base64,").nth(1).and_then(|rest| rest.split('"').next());
    let event = base64_simd::STANDARD.decode_to_vec(link.expect("a link")).expect("base64");
    let json: serde_json::Value = serde_json::from_slice(&event).expect("a grade event");
    let grade = place.folder.path().join("grade.json");
    fs::write(&grade, &event).expect("a file");
    let image = place.folder.path().join(format!("{}.jpg", json["image_sha256"].as_str().expect("a digest")));
    let verified = Command::new(env!("CARGO_BIN_EXE_memebg"))
        .args(["verify", "--set", "model.bundle=models/demo", "--set", "model.device=cpu"])
        .args([&grade, &image])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("memebg");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// What the reviewer said, as a labelled set: the last graded photograph before the review, which lies in the store.
fn export(place: &Place) {
    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().join("set");
    let arguments = |more: &[&'static str]| -> Vec<String> {
        let out = folder.to_str().expect("UTF-8");
        ["export", "--out", out].iter().chain(more).map(|it| (*it).to_owned()).collect()
    };
    let run = |more: &[&'static str]| {
        let arguments = arguments(more);
        place.run("reviews", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let output = run(&["--blinded"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 of 1 reviewed embryos"));
    let read = |path: &Path| {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        assert!(path.file_stem().is_some_and(|stem| stem == sha256.as_str()), "{}", path.display());
        let original = place.folder.path().join(format!("{sha256}.jpg"));
        assert_eq!(Some(bytes), fs::read(original).ok(), "it is one of the images that were sent");
        Picture::new(1, vec![7]).ok_or_else(String::new)
    };
    let set = LabelledImages::read(&folder, read).expect("a labelled set");
    let [sample] = &set.samples[..] else { panic!("{} samples", set.samples.len()) };
    let truth = (sample.truth.exp, sample.truth.icm, sample.truth.te);
    assert_eq!(truth, (Some(Expansion::E2), None, None));
    let group = sample.group.as_deref().expect("a group");
    assert!(group.len() == 16 && !GRADED.contains(group), "{group}");

    let again = run(&[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "no label is mixed in");
    fs::remove_dir_all(&folder).expect("removed");
    fs::remove_file(place.folder.path().join(sample.name.replace(".jpeg", ".jpg"))).expect("removed");
    let lacking = run(&[]);
    let said = String::from_utf8_lossy(&lacking.stderr).into_owned();
    assert_eq!(lacking.status.code(), Some(1), "{said}");
    assert!(said.contains("the set lacks 1 embryos"), "{said}");
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(run(&["--allow-missing"]).status.code(), Some(0));
}

/// The same events from files give the same report, but for the time.
fn from_files(kafka: &Kafka, place: &Place, summary: &EmbryoSummary, expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let [summary_file, grades_file, out] =
        ["summary.json", "grades.jsonl", "out"].map(|it| folder.path().join(it));
    fs::write(&summary_file, serde_json::to_vec(summary).expect("JSON")).expect("a file");
    fs::write(&grades_file, values(kafka, "grades").join(&b'\n')).expect("a file");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let arguments = [
        "--summary",
        &text(&summary_file),
        "--grades",
        &text(&grades_file),
        "--images",
        &text(place.folder.path()),
        "--out",
        &text(&out),
    ];
    let output = place.report(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = is_of(&written(&out)[0], GRADED);
    let without_time = |html: &str| html.split("Made on ").next().map(str::to_owned);
    assert!(without_time(&report) == without_time(expected), "the report from files is another one");

    // Another model looks elsewhere, and without one there is a report all the same.
    let other = tempfile::tempdir().expect("a folder");
    bundle::copy_without_limits(other.path());
    for (bundle, why) in
        [(text(other.path()), "is another one than the one"), ("no/such".into(), "cannot be loaded")]
    {
        let set = format!("model.bundle={bundle}");
        let output = place.report(&[&arguments[..], &["--set", &set]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report = is_of(&written(&out)[0], GRADED);
        let (photographs, looked) = report.split_once("Where the model looked").expect("a section");
        assert_eq!((photographs.matches("<img ").count(), looked.matches("<img ").count()), (24, 0));
        assert!(looked.contains("Not shown: ") && looked.contains(why), "{why}");
    }
}

//! `memebg dlq` of the built program against a real Kafka: what it lists, what it does not show, and that a replay
//! sends each frame once, unchanged.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;
#[path = "common/letters.rs"]
mod letters;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::{Child, Command, Stdio};

use chrono::DateTime;
use common::kafka::Kafka;
use letters::{
    PATIENCE, REPLAYED_FROM, Raw, SENT_AT_MS, command, dlq, enqueue, event, letter, ls, producer, put, read,
    serve_to_the_end,
};
use process::wait_for;
use rdkafka::producer::Producer;
use serde_json::json;
use stream::{Stream, day_5_frames};

#[tokio::test]
async fn refused_frames_are_graded_after_a_replay_and_a_second_replay_sends_nothing() {
    let stream = Stream::create(Kafka::shared(), "served", 2).await;
    stream.send(day_5_frames(2, 0..1));
    stream.send([("broken".to_owned(), b"{".to_vec())]);
    serve_to_the_end(&stream, &[("select.sites", r#"["south"]"#)]);

    let (letters, counts) = ls(&stream, &[]);
    assert_eq!(counts, BTreeMap::from([("unknown_site".to_owned(), 8), ("invalid_json".to_owned(), 1)]));
    assert!(letters.len() == 9 && letters.iter().all(|it| it["replayed"] == false), "{letters:?}");
    assert_eq!(ls(&stream, &["--site", "north"]).0.len(), 8);

    let sent = read(&stream, &stream.frames());
    let said = dlq(&stream, &["replay", "--code", "unknown_site", "--dry-run"]).ok();
    assert!(said.ends_with("8 would be replayed, 0 replayed before, 0 not replayable\n"), "{said}");
    assert_eq!(read(&stream, &stream.frames()), sent, "a dry run sends nothing");
    assert_eq!(read(&stream, &stream.dead_letters()).len(), 9);

    let said = dlq(&stream, &["replay", "--code", "unknown_site"]).ok();
    assert!(said.ends_with("8 replayed, 0 replayed before, 0 not replayable\n"), "{said}");
    let said = dlq(&stream, &["replay", "--stage", "validate"]).ok();
    assert_eq!(said, "0 replayed, 8 replayed before, 0 not replayable\n");
    let again: Vec<Raw> =
        read(&stream, &stream.frames()).into_iter().filter(|it| !sent.contains(it)).collect();
    assert_eq!(again.len(), 8, "each was sent once");
    assert_eq!(
        ls(&stream, &["--code", "unknown_site"]).0.iter().filter(|it| it["replayed"] == true).count(),
        8
    );
    for frame in &again {
        let from = frame.header(REPLAYED_FROM).expect("where it came from");
        assert!(from.starts_with(&format!("{}/", stream.dead_letters())), "{from}");
        assert_eq!(frame.headers.len(), 1, "no error header is left");
        let same = |it: &&Raw| {
            (&it.key, &it.value, it.timestamp_ms) == (&frame.key, &frame.value, frame.timestamp_ms)
        };
        assert!(sent.iter().any(|it| same(&it)), "it came back changed");
    }

    serve_to_the_end(&stream, &[]);
    assert_eq!(read(&stream, &stream.grades()).len(), 2, "the wanted ones are graded");

    // What fails again is a new letter, and not sent again by the same replay.
    let said = dlq(&stream, &["replay", "--code", "invalid_json"]).ok();
    assert!(said.ends_with("1 replayed, 0 replayed before, 0 not replayable\n"), "{said}");
    serve_to_the_end(&stream, &[]);
    let (broken, _) = ls(&stream, &["--code", "invalid_json"]);
    let replayed: Vec<_> = broken.iter().map(|it| it["replayed"] == true).collect();
    assert!(replayed.len() == 2 && replayed.contains(&true) && replayed.contains(&false), "{broken:?}");
    let raw = read(&stream, &stream.dead_letters());
    let of_broken = raw.iter().filter(|it| it.header("memebg.error.code") == Some("invalid_json"));
    assert!(of_broken.clone().all(|it| it.header(REPLAYED_FROM).is_none()), "a letter is no marker");

    let said = dlq(&stream, &["replay", "--code", "unknown_site", "--again"]).ok();
    assert!(said.ends_with("8 replayed, 0 replayed before, 0 not replayable\n"), "{said}");
}

#[tokio::test]
async fn letters_are_found_by_what_they_say_and_shown_without_their_image() {
    let stream = Stream::create(Kafka::shared(), "listed", 1).await;
    let letter = |n, stage, code, value: &str| letter(&stream.frames(), n, stage, code, value);
    put(
        &stream,
        &stream.dead_letters(),
        &[
            letter(0, "FETCH", "image_unreachable", &event("north")),
            letter(1, "FETCH", "image_not_found", &event("south")),
            letter(2, "DECODE", "invalid_json", "\u{1b}no JSON"),
            letter(3, "TASK_PUT", "of_another_version", &event("north")),
        ],
    );
    let offsets = |arguments: &[&str]| -> Vec<i64> {
        ls(&stream, arguments).0.iter().map(|it| it["offset"].as_i64().expect("an offset")).collect()
    };
    let at = |n: i64| DateTime::from_timestamp_millis(*SENT_AT_MS + n * 1_000).expect("a time").to_rfc3339();
    assert_eq!(offsets(&[]), [0, 1, 2, 3]);
    assert_eq!(offsets(&["--limit", "2"]), [2, 3]);
    assert_eq!(offsets(&["--stage", "FETCH"]), [0, 1]);
    assert_eq!(offsets(&["--code", "invalid_json"]), [2]);
    assert_eq!(offsets(&["--site", "north"]), [0, 3]);
    assert_eq!(offsets(&["--site", "north", "--stage", "FETCH"]), [0]);
    assert_eq!(offsets(&["--since", &at(1)]), [1, 2, 3]);
    assert_eq!(offsets(&["--since", &at(1), "--until", &at(3)]), [1, 2]);
    assert_eq!(offsets(&["--since", "1h"]), [0_i64; 0]);

    let text = dlq(&stream, &["ls", "--stage", "FETCH"]).ok();
    assert!(text.contains("0:1 ") && text.contains("image_not_found") && text.contains("south"), "{text}");
    assert!(text.contains(&format!("{}/0/1", stream.frames())) && text.contains("2 letters"), "{text}");

    let shown = dlq(&stream, &["show", "0:0"]).ok();
    for part in
        ["E-0", "\"site_id\": \"north\"", "4 bytes, base64, sha256", "memebg.error.code: image_unreachable"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("Ada") && !shown.contains('\u{1b}') && !shown.contains("AAAA"), "{shown}");
    assert!(!dlq(&stream, &["show", "0:2"]).ok().contains("no JSON\""));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    let file = file.to_str().unwrap();
    dlq(&stream, &["show", "0:0", "--value", file]).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap(), event("north"));
    dlq(&stream, &["show", "0:1", "--value", file]).failed(1);
    assert_eq!(std::fs::read_to_string(file).unwrap(), event("north"), "no file is written over");

    assert!(dlq(&stream, &["show", "0:99"]).failed(1).contains("0:99"));
    assert!(dlq(&stream, &["show", "7:0"]).failed(1).contains("7:0"));
    assert!(dlq(&stream, &["ls", "--code", "nonsense"]).failed(2).contains("image_unreachable"));
    dlq(&stream, &["replay"]).failed(2);
    dlq(&stream, &["replay", "--all", "--stage", "FETCH"]).failed(2);
    let elsewhere = ["ls", "--set", "kafka.dead_letters_topic=listed.mistyped"];
    assert!(dlq(&stream, &elsewhere).failed(2).contains("listed.mistyped"));
    let nobody = ["ls", "--set", "kafka.brokers=127.0.0.1:1"];
    dlq(&stream, &nobody).failed(3);
}

#[tokio::test]
async fn a_value_that_was_left_behind_is_sent_from_where_it_lies_and_what_cannot_be_sent_keeps_nothing_back()
{
    let stream = Stream::create(Kafka::shared(), "left", 1).await;
    let (frames, dead) = (stream.frames(), stream.dead_letters());
    let original = Raw {
        key: Some("E-0".into()),
        value: Some(vec![b'x'; 500_000]),
        headers: vec![("traceparent".into(), b"00-1-2-01".into())],
        timestamp_ms: Some(*SENT_AT_MS),
        ..Raw::default()
    };
    put(&stream, &frames, std::slice::from_ref(&original));
    let without_value = |n, place: &str, bytes: &str| {
        let mut letter = letter(&frames, n, "DECODE", "value_too_large", "");
        letter.value = None;
        letter.headers.retain(|(name, _)| name != "__connect.errors.offset");
        letter.headers.push(("__connect.errors.offset".into(), place.into()));
        letter.headers.push(("memebg.value.omitted_bytes".into(), bytes.into()));
        letter
    };
    let mut too_large = letter(&frames, 4, "DECODE", "value_too_large", common::frames::noise(1_500_000));
    too_large.partition = 0;
    // The dead-letter topic takes more than the frames topic.
    let large = format!("{dead}.large");
    stream.kafka.create_topic(&large, 1, &[("max.message.bytes", "4194304")]).await;
    put(
        &stream,
        &large,
        &[
            without_value(0, "0", "500000"),
            without_value(1, "0", "499999"),
            without_value(2, "77", "500000"),
            letter("another.topic", 3, "DECODE", "invalid_json", "{"),
            too_large,
            letter(&frames, 5, "DECODE", "invalid_json", "{"),
        ],
    );
    let topic = format!("kafka.dead_letters_topic={large}");
    let said = dlq(&stream, &["replay", "--all", "--set", &topic]).failed(1);
    for part in [
        "0:0  replayed\n",
        "0:1  not replayable: its value was left at left.frames/0/0, where another message lies now\n",
        "0:2  not replayable: its value was left at left.frames/0/77, and is not there any more\n",
        "0:3  not replayable: it came from topic \"another.topic\", and kafka.frames_topic is \"left.frames\"\n",
        "0:4  not replayable: the broker refuses the frame",
        "0:5  replayed\n",
        "2 replayed, 0 replayed before, 4 not replayable\n",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let [_, first, second] = &read(&stream, &frames)[..] else { panic!("two frames were to be sent") };
    assert!(first.value == original.value, "it came back changed");
    assert_eq!((&first.key, first.timestamp_ms), (&original.key, original.timestamp_ms));
    assert_eq!(first.header("traceparent"), Some("00-1-2-01"));
    assert_eq!(first.header(REPLAYED_FROM), Some(format!("{large}/0/0").as_str()));
    assert_eq!((second.key.as_deref(), second.value.as_deref()), (Some(&b"E-5"[..]), Some(&b"{"[..])));
    assert_eq!(second.header("x-lab"), Some("\u{1b}[2J"), "the frame's own header");

    let said = dlq(&stream, &["replay", "0:5", "0:0", "0:88", "--set", &topic]).failed(1);
    assert!(said.contains("0:88  not replayable: there is no dead letter"), "{said}");
    assert!(said.contains("0 replayed, 2 replayed before, 1 not replayable"), "{said}");
    let records = read(&stream, &large);
    let marker = records.iter().find(|it| it.header(REPLAYED_FROM).is_some()).expect("a marker");
    let marker = dlq(&stream, &["show", &format!("0:{}", marker.offset), "--set", &topic]).ok();
    assert!(marker.contains("has been replayed"), "{marker}");
}

#[tokio::test]
async fn a_marker_behind_an_open_transaction_is_waited_for() {
    let stream = Stream::create(Kafka::shared(), "hidden", 1).await;
    let (frames, dead) = (stream.frames(), stream.dead_letters());
    put(&stream, &dead, &[letter(&frames, 0, "DECODE", "invalid_json", "{")]);
    // Nobody ends it: the broker does, seconds later.
    let open = producer(
        &stream,
        &[
            ("transactional.id", "somebody-else"),
            ("transaction.timeout.ms", "6000"),
            ("message.timeout.ms", "6000"),
        ],
    );
    open.init_transactions(PATIENCE).expect("transactions");
    open.begin_transaction().expect("a transaction");
    enqueue(&open, &dead, &letter(&frames, 1, "DECODE", "invalid_json", "{"));
    open.flush(PATIENCE).expect("confirmed");
    let marker =
        Raw { headers: vec![(REPLAYED_FROM.into(), format!("{dead}/0/0").into())], ..Raw::default() };
    put(&stream, &dead, &[marker]);

    let said = dlq(&stream, &["replay", "--all"]).ok();
    assert_eq!(said, "0 replayed, 1 replayed before, 0 not replayable\n");
    assert_eq!(read(&stream, &frames), []);
}

/// A replay in the middle of 6000 letters: it goes on only when its lines are taken from it, which fill the pipe.
fn half_way(stream: &Stream<'_>) -> Child {
    let records: Vec<Raw> =
        (0..6_000).map(|n| letter(&stream.frames(), n, "DECODE", "invalid_json", "{")).collect();
    put(stream, &stream.dead_letters(), &records);
    start(stream, &["replay", "--all"])
}

/// Returns once it has said something.
fn start(stream: &Stream<'_>, arguments: &[&str]) -> Child {
    let mut replay = command(stream, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("memebg can be started");
    replay.stdout.as_mut().expect("a pipe").read_exact(&mut [0; 1]).expect("a first line");
    replay
}

/// Checks that what another replay sends now and what the first has sent are all letters, each once.
fn check_the_rest(stream: &Stream<'_>) {
    let said = dlq(stream, &["replay", "--all"]).ok();
    let last = said.lines().last().expect("a summary");
    let counts: Vec<usize> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(counts[0] > 0 && counts[1] > 0 && counts[0] + counts[1] == 6_000 && counts[2] == 0, "{last}");
}

fn check_each_was_sent_once(stream: &Stream<'_>) {
    let frames = read(stream, &stream.frames());
    let letters: BTreeSet<&str> =
        frames.iter().map(|it| it.header(REPLAYED_FROM).expect("a letter")).collect();
    assert_eq!((letters.len(), frames.len()), (6_000, 6_000));
}

#[tokio::test]
async fn a_replay_that_is_interrupted_ends_with_what_it_has_begun_and_the_next_one_sends_the_rest() {
    let stream = Stream::create(Kafka::shared(), "interrupted", 1).await;
    let first = half_way(&stream);
    assert!(
        Command::new("sh").args(["-c", &format!("kill -s INT {}", first.id())]).status().unwrap().success()
    );
    let ended = first.wait_with_output().expect("its end");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("stopped before the end"));
    let reported = ended.stdout.split(|byte| *byte == b'\n').count() - 1;
    let sent = read(&stream, &stream.frames()).len();
    assert_eq!(reported, sent, "it reports what it has sent");
    check_the_rest(&stream);
    check_each_was_sent_once(&stream);
}

#[tokio::test]
async fn a_replay_that_is_killed_or_overtaken_by_another_sends_nothing_twice() {
    let stream = Stream::create(Kafka::shared(), "killed", 1).await;
    let mut first = half_way(&stream);
    first.kill().expect("it still runs");
    first.wait().expect("its end");
    check_the_rest(&stream);
    check_each_was_sent_once(&stream);

    let stream = Stream::create(Kafka::shared(), "overtaken", 1).await;
    let first = half_way(&stream);
    check_the_rest(&stream);
    let ended = first.wait_with_output().expect("its end");
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
    check_each_was_sent_once(&stream);
}

#[tokio::test]
async fn a_replay_that_cuts_off_the_one_that_had_overtaken_it_stops() {
    let stream = Stream::create(Kafka::shared(), "cut-off", 1).await;
    let mut records: Vec<Raw> =
        (0..6_000).map(|n| letter(&stream.frames(), n, "DECODE", "invalid_json", "{")).collect();
    // The first of a transaction behind 4000 lines, which do not fit into the pipe. It is refused before the broker
    // has heard of it, so the broker does not say that this replay is over.
    records[4_000].value = Some(common::frames::noise(200_000));
    put(&stream, &stream.dead_letters(), &records);
    let small =
        ["replay", "--all", "--set", "kafka.max_value_bytes=1000", "--set", "kafka.max_send_bytes=100000"];
    let first = start(&stream, &small);
    wait_for("4000 frames", PATIENCE, || (read(&stream, &stream.frames()).len() >= 4_000).then_some(()));
    assert!(dlq(&stream, &small).failed(1).contains("1 not replayable"));
    let ended = first.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("another replay has begun"), "{said}");
    let frames = read(&stream, &stream.frames());
    let letters: BTreeSet<&str> =
        frames.iter().map(|it| it.header(REPLAYED_FROM).expect("a letter")).collect();
    assert_eq!((letters.len(), frames.len()), (5_999, 5_999));
}

#[tokio::test]
async fn listing_half_a_gigabyte_of_letters_holds_no_images_in_memory() {
    const LETTERS: i64 = 5_000;
    const MOST_KB: u64 = 100_000;
    let stream = Stream::create(Kafka::shared(), "many", 1).await;
    let image = base64_simd::STANDARD.encode_to_string(common::frames::noise(75_000));
    let value = json!({ "image": { "data": image }, "site_id": "north" }).to_string();
    let (frames, sending) = (stream.frames(), producer(&stream, &[]));
    for n in 0..LETTERS {
        enqueue(
            &sending,
            &stream.dead_letters(),
            &letter(&frames, n, "FETCH", "image_unreachable", value.as_str()),
        );
    }
    sending.flush(PATIENCE).expect("confirmed");

    let arguments = ["ls", "--json", "--site", "north", "--limit", "5000"];
    let mut child =
        command(&stream, &arguments).stdout(Stdio::piped()).spawn().expect("memebg can be started");
    let mut out = child.stdout.take().expect("a pipe");
    // It writes when it has read everything, and cannot end before a megabyte of lines has been taken from it.
    let mut first = [0; 1];
    out.read_exact(&mut first).expect("a first line");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it still runs");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert!(child.wait().expect("its end").success());
    assert_eq!(rest.lines().count(), 5_001);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak").trim();
    let peak_kb: u64 = peak.trim_end_matches(" kB").parse().expect("a number");
    eprintln!("peak of resident memory: {peak_kb} kB");
    assert!(peak_kb < MOST_KB, "{peak_kb} kB for {} kB of letters", LETTERS as usize * value.len() / 1_000);
}

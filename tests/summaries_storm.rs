//! Several `memebg summarize` of one group, killed at random moments while grades and reviews come shuffled and twice:
//! at the end every last summary is the one that the whole set makes, as far as the readers of committed events see.
//!
//! What is done to whom follows from a seed; `STORM_SEED` sets another one.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/summarized.rs"]
mod summarized;

use std::{
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use memebg::{
    domain::{GradeEvent, Review},
    random::Random,
};
use process::{Memebg, wait_for};
use serde_json::{Value, json};
use summarized::{PATIENCE, Stream, end_in_peace, grades, review, shuffle};

const PARTITIONS: usize = 6;
const PROCESSES: usize = 3;
const EMBRYOS: u64 = 30;
const RUNS: u64 = 48;
/// Parts in which everything is sent, each beside one kill.
const ROUNDS: usize = 12;
const BY_HAND: &str = "E-by-hand";

fn summarize(stream: &Stream<'_>) -> Memebg {
    // As often as it can, so that most kills hit an open transaction.
    stream.summarize(&[
        ("summaries.publish_interval_ms", "10"),
        // Some are forgotten and brought back in between.
        ("summaries.max_embryos", "12"),
    ])
}

/// Two frames of one embryo whose summary is worked out below by hand.
fn by_hand() -> [GradeEvent; 2] {
    let frame = |run: u64, hpi: f64, heads: Value| {
        let mut event: Value =
            serde_json::from_str(include_str!("../schemas/examples/grade/graded.json")).expect("JSON");
        let object = event.as_object_mut().expect("an object");
        object.extend(heads.as_object().expect("an object").clone());
        object.insert("embryo_id".into(), BY_HAND.into());
        object.insert("run".into(), run.into());
        object.insert("hpi".into(), hpi.into());
        serde_json::from_value(event).expect("a grade event")
    };
    let letters = |grade: &str, [a, b, c]: [f64; 3], confidence: f64| json!({ "grade": grade, "probabilities": { "A": a, "B": b, "C": c }, "confidence": confidence });
    let exp = |grade: u8, three: f64, four: f64, confidence: f64| {
        let probabilities = json!({ "1": 0, "2": 0, "3": three, "4": four, "5": 0, "6": 0 });
        json!({ "grade": grade, "probabilities": probabilities, "confidence": confidence })
    };
    [
        frame(
            1,
            112.0,
            json!({
                "gardner": "4AB", "exp": exp(4, 0.2, 0.8, 0.8),
                "icm": letters("A", [0.7, 0.2, 0.1], 0.7), "te": letters("B", [0.1, 0.9, 0.0], 0.9),
            }),
        ),
        frame(
            2,
            116.0,
            json!({
                "gardner": "3AC", "exp": exp(3, 0.6, 0.4, 0.6),
                "icm": letters("A", [0.5, 0.3, 0.2], 0.5), "te": letters("C", [0.0, 0.2, 0.8], 0.8),
            }),
        ),
    ]
}

/// Expansion 4: (0.8 x 0.8 + 0.6 x 0.4) / 1.4 = 0.6286. Inner cell mass A: (0.7 x 0.7 + 0.5 x 0.5) / 1.2 = 0.6167.
/// Trophectoderm B: (0.9 x 0.9 + 0.8 x 0.2) / 1.7 = 0.5706, C: (0.8 x 0.8) / 1.7 = 0.3765. The reviewer said 2 first
/// and 4AB then.
fn assert_by_hand(stream: &Stream<'_>) {
    let summary = serde_json::to_value(stream.last(BY_HAND).expect("a summary")).expect("JSON");
    for (path, expected) in [
        ("/gardner", json!("4AB")),
        ("/confidence", json!(0.5706)),
        ("/exp/probabilities/3", json!(0.3714)),
        ("/exp/probabilities/4", json!(0.6286)),
        ("/icm/confidence", json!(0.6167)),
        ("/te/probabilities/A", json!(0.0529)),
        ("/te/probabilities/C", json!(0.3765)),
        ("/disagreement", json!({ "exp": 0.5, "icm": 0.0, "te": 0.5 })),
        ("/trajectory/0", json!({ "hpi": 112.0, "expansion": 3.8, "frames": 1 })),
        ("/trajectory/1", json!({ "hpi": 116.0, "expansion": 3.4, "frames": 1 })),
        ("/frames/total", json!(2)),
        ("/status", json!("final")),
        ("/assessment", json!("final")),
        ("/reviews", json!(2)),
        ("/review/reviewed_at", json!("2026-01-31T15:00:07Z")),
        ("/review/gardner", json!("4AB")),
    ] {
        assert_eq!(summary.pointer(path), Some(&expected), "{path} of {summary:#}");
    }
}

#[derive(Clone)]
enum Event {
    Grade(Box<GradeEvent>),
    Review(Review),
}

/// Everything, shuffled, and a quarter of it a second time somewhere.
fn events(random: &mut Random) -> Vec<Event> {
    let grades = grades(EMBRYOS, 0..RUNS, 11).into_iter().chain(by_hand());
    let reviews = (0..EMBRYOS).flat_map(|number| {
        let id = format!("E-{number:04}");
        (0..number as u32 % 4).map(move |second| review(&id, second * 3, second == 1))
    });
    let reviews = reviews.chain([review(BY_HAND, 3, true), review(BY_HAND, 7, false)]);
    let grades = grades.map(|event| Event::Grade(Box::new(event)));
    let mut events: Vec<Event> = grades.chain(reviews.map(Event::Review)).collect();
    shuffle(&mut events, random);
    events.extend_from_within(..events.len() / 4);
    shuffle(&mut events, random);
    events
}

#[tokio::test]
async fn no_kill_changes_what_the_last_summaries_say() {
    let seed = std::env::var("STORM_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let (began, mut random) = (Instant::now(), Random::new(seed));
    let stream = Stream::create("summaries-storm", PARTITIONS).await;
    let events = events(&mut random);
    let mut processes: Vec<Memebg> = (0..PROCESSES).map(|_| summarize(&stream)).collect();
    for (round, part) in events.chunks(events.len().div_ceil(ROUNDS)).enumerate() {
        let before = stream.written();
        thread::scope(|scope| {
            scope.spawn(|| {
                let topics = (stream.grades(), stream.reviews());
                let records = part.iter().map(|event| match event {
                    Event::Grade(event) => {
                        (&*topics.0, &*event.embryo_id, serde_json::to_vec(event).expect("JSON"))
                    }
                    Event::Review(it) => (&*topics.1, &*it.embryo_id, it.to_json().expect("JSON")),
                });
                stream.put_slowly(records, Duration::from_millis(50));
            });
            // In the middle of publishing, or, every third time, most likely in a rebalance.
            if round % 3 != 2 {
                wait_for("something published", PATIENCE, || (stream.written() > before).then_some(()));
            }
            thread::sleep(Duration::from_millis(random.next_u64() % 1_000));
            let process = &mut processes[(random.next_u64() % PROCESSES as u64) as usize];
            process.signal("KILL");
            assert_eq!(process.end(PATIENCE).signal(), Some(9), "{}", process.log());
            *process = summarize(&stream);
        });
    }
    let (mut grades, mut reviews) = (Vec::new(), Vec::new());
    for event in &events {
        match event {
            Event::Grade(event) => grades.push((**event).clone()),
            Event::Review(review) => reviews.push(review.clone()),
        }
    }
    stream.await_summaries_of(&grades, &reviews);
    assert_by_hand(&stream);
    processes.iter_mut().for_each(end_in_peace);
    let published: usize = stream.published().values().map(Vec::len).sum();
    let aborted = stream.written() - published;
    let seconds = began.elapsed().as_secs();
    eprintln!(
        "storm of summaries, seed {seed}: {} grades, {} reviews, {ROUNDS} killed, {published} summaries, {aborted} written \
         in transactions that came to nothing, {seconds} s",
        grades.len(),
        reviews.len()
    );
    assert!(aborted > 0, "no kill hit an open transaction");
    assert!(stream.letters().is_empty());
}

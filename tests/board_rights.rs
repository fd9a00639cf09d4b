//! `memebg board` against a broker that allows it less than it needs, and against one that stops answering.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/secured.rs"]
mod secured;

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::kafka::Kafka;
use memebg::domain::EmbryoSummary;
use process::{Memebg, get, wait_for};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use reqwest::StatusCode;
use secured::Operation::{Describe, Read, Write};
use secured::Resource::{Group, Topic};
use secured::{PASSWORD, Secured};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
const EMBRYO: &str = "E";
/// What a reviewer of it sends.
const FORM: &str = r#"{"embryo_id": "E", "reviewer": "rev-7", "exp": 3, "icm": "B", "te": "B", "reason": "routine",
    "blinded": true, "summary_version": 2}"#;

/// Topics of a test, by the options that name them.
fn topics(test: &str) -> [(&'static str, String); 5] {
    [
        ("kafka.frames_topic", format!("{test}.frames")),
        ("kafka.grades_topic", format!("{test}.grades")),
        ("kafka.dead_letters_topic", format!("{test}.dead")),
        ("summaries.topic", format!("{test}.summaries")),
        ("reviews.topic", format!("{test}.reviews")),
    ]
}

/// Creates the topics, one embryo on them, and starts a board that nobody has to sign in to.
async fn board(kafka: &Kafka, test: &str, options: &[(&str, &str)]) -> (Memebg, SocketAddr) {
    let topics = topics(test);
    for (_, topic) in &topics {
        kafka.create_topic(topic, 1, &[]).await;
    }
    let summary: EmbryoSummary =
        serde_json::from_str(include_str!("../schemas/examples/summary/final.json")).expect("an example");
    let summary =
        serde_json::to_vec(&EmbryoSummary { embryo_id: EMBRYO.to_owned(), ..summary }).expect("JSON");
    let producer: BaseProducer = kafka.client().create().expect("a producer");
    let record = BaseRecord::to(&topics[3].1).key(EMBRYO).payload(&summary);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(PATIENCE).expect("confirmed");

    let mut all: Vec<(&str, &str)> = topics.iter().map(|(option, topic)| (*option, topic.as_str())).collect();
    all.extend([
        ("kafka.group_id", test),
        ("board.listen", "127.0.0.1:0"),
        ("telemetry.listen", "127.0.0.1:0"),
        ("telemetry.log_format", "json"),
    ]);
    all.extend(options);
    let board = Memebg::start(&["board"], &all);
    let line = board.logged("board", PATIENCE);
    let address = line["address"].as_str().and_then(|it| it.parse().ok()).expect("an address");
    (board, address)
}

/// What becomes of a review.
async fn review(address: SocketAddr) -> (StatusCode, Value) {
    let post = reqwest::Client::new().post(format!("http://{address}/api/reviews"));
    let answer = post.header("content-type", "application/json").body(FORM).send().await;
    let answer = answer.expect("an answer");
    (answer.status(), serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default())
}

async fn until_shown(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    let shown =
        async || reqwest::get(format!("http://{address}/api/embryos/{EMBRYO}")).await.expect("an answer");
    while shown().await.status() != StatusCode::OK {
        assert!(Instant::now() < deadline, "the embryo is not shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_the_board_may_not_read_or_write_is_named_and_used_once_it_may() {
    let broker = Secured::shared();
    let [frames, grades, dead, summaries, reviews] = topics("rights").map(|(_, topic)| topic);
    for topic in [&frames, &dead, &summaries] {
        broker.allow(Topic, topic, &[Read, Describe]);
    }
    for topic in [&grades, &reviews] {
        broker.allow(Topic, topic, &[Describe]);
    }
    broker.allow(Group, "rights", &[Describe]);
    let usual = broker.options();
    let options: Vec<(&str, &str)> = usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    let (mut board, address) = board(&broker.kafka, "rights", &options).await;
    let probes = board.address(PATIENCE);
    wait_for("the refused topic in the readiness probe", PATIENCE, || {
        let (status, text) = get(probes, "/readyz")?;
        let named = text.contains("read topic rights.grades (kafka.grades_topic): grant READ");
        (status == 503 && named).then_some(())
    });
    broker.allow(Topic, &grades, &[Read]);
    wait_for("readiness", PATIENCE, || get(probes, "/readyz").filter(|(status, _)| *status == 200));

    until_shown(address).await;
    let (status, said) = review(address).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    let log = board.log();
    assert!(log.contains("not allowed to write to topic rights.reviews"), "{log}");
    broker.allow(Topic, &reviews, &[Write]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, said) = review(address).await;
        if status == StatusCode::CREATED {
            break;
        }
        assert!(Instant::now() < deadline, "{said}\n{}", board.log());
    }
    assert!(!board.log().contains(PASSWORD), "a password is in the log");
    board.signal("TERM");
    assert_eq!(board.end(PATIENCE).code(), Some(0), "{}", board.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_is_on_its_way_when_the_board_ends_is_recorded_and_its_reviewer_told() {
    let (mut board, address) =
        board(Kafka::shared(), "leaving", &[("kafka.brokers", &Kafka::shared().bootstrap())]).await;
    until_shown(address).await;
    let (first, rest) = FORM.split_at(20);
    let mut reviewer = TcpStream::connect(address).expect("it listens");
    reviewer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    write!(
        reviewer,
        "POST /api/reviews HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n{first}",
        FORM.len()
    )
    .expect("it reads");
    let mut lines = BufReader::new(reviewer.try_clone().expect("a second handle")).lines();
    let mut next = || lines.next().expect("an answer").expect("text");
    assert_eq!((next().as_str(), next().as_str()), ("HTTP/1.1 100 Continue", ""));
    board.signal("TERM");
    wait_for("a closed door", PATIENCE, || TcpStream::connect(address).is_err().then_some(()));
    reviewer.write_all(rest.as_bytes()).expect("it still reads");
    assert_eq!(next(), "HTTP/1.1 201 Created");
    assert_eq!(board.end(PATIENCE).code(), Some(0), "{}", board.log());
}

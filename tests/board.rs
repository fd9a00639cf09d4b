//! `memebg board` against a real Kafka: what it shows of the topics, and what a review becomes there.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use common::kafka::Kafka;
use memebg::domain::{EmbryoSummary, FrameEvent, GradeEvent, REVIEW_EVENT_TYPE, Review};
use process::{Memebg, get, wait_for};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const TOPICS: [&str; 4] = ["board.frames", "board.grades", "board.dead", "board.reviews"];
const SUMMARIES: &str = "board.summaries";

/// A running board and whoever knows its token.
struct Board {
    memebg: Memebg,
    address: SocketAddr,
    client: Client,
    _token: tempfile::NamedTempFile,
}

impl Board {
    fn start(kafka: &Kafka) -> Self {
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), TOKEN).expect("a token");
        let brokers = kafka.bootstrap();
        let options = [
            ("kafka.brokers", brokers.as_str()),
            ("kafka.group_id", "board-graders"),
            ("kafka.frames_topic", TOPICS[0]),
            ("kafka.grades_topic", TOPICS[1]),
            ("kafka.dead_letters_topic", TOPICS[2]),
            ("reviews.topic", TOPICS[3]),
            ("summaries.topic", SUMMARIES),
            ("board.listen", "127.0.0.1:0"),
            ("board.auth", "token"),
            ("board.token_file", token.path().to_str().expect("UTF-8")),
            ("telemetry.listen", "127.0.0.1:0"),
            ("telemetry.log_format", "json"),
        ];
        let memebg = Memebg::start(&["board"], &options);
        let line = memebg.logged("board", PATIENCE);
        let address = line["address"].as_str().and_then(|it| it.parse().ok()).expect("an address");
        Self { memebg, address, client: Client::new(), _token: token }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn ask(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).bearer_auth(TOKEN).send().await.expect("an answer")
    }

    /// What the board knows of an embryo, once that is what `holds` wants.
    async fn embryo(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(&format!("/api/embryos/{id}")).await;
            let known = body(answer).await;
            if holds(&known) {
                return known;
            }
            assert!(Instant::now() < deadline, "{known}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn body(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

fn producer(kafka: &Kafka) -> BaseProducer {
    kafka.client().set("partitioner", "murmur2_random").create().expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, key: &str, value: &[u8], age: TimeDelta) {
    let at = (Utc::now() - age).timestamp_millis();
    let record = BaseRecord::to(topic).key(key).payload(value).timestamp(at);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(PATIENCE).expect("confirmed");
}

fn grade(embryo: &str, image_sha256: &str) -> Vec<u8> {
    let example: GradeEvent =
        serde_json::from_str(include_str!("../schemas/examples/grade/graded.json")).expect("an example");
    let event = GradeEvent { embryo_id: embryo.to_owned(), image_sha256: image_sha256.to_owned(), ..example };
    serde_json::to_vec(&event).expect("JSON")
}

fn summary(embryo: &str) -> Vec<u8> {
    let example: EmbryoSummary =
        serde_json::from_str(include_str!("../schemas/examples/summary/final.json")).expect("an example");
    serde_json::to_vec(&EmbryoSummary { embryo_id: embryo.to_owned(), ..example }).expect("JSON")
}

/// The only review on the topic, and the headers of its event.
fn only_review(kafka: &Kafka) -> (Review, Vec<(String, String)>) {
    let mut client = kafka.client();
    client.set("group.id", "reads-reviews").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..2 {
        all.add_partition_offset(TOPICS[3], partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("an assignment");
    let message = wait_for("a review", PATIENCE, || consumer.poll(Duration::from_millis(200))?.ok());
    let review = Review::parse(message.payload().expect("a value")).expect("a review");
    assert_eq!(message.key(), Some(review.embryo_id.as_bytes()));
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message.headers().expect("headers").iter();
    let headers = headers.map(|it| (it.key.to_owned(), text(it.value))).collect();
    assert!(consumer.poll(Duration::from_secs(2)).is_none(), "a second review");
    (review, headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_shows_what_the_topics_hold_and_a_review_is_on_its_topic_when_it_is_said_to_be() {
    let kafka = Kafka::shared();
    for topic in TOPICS {
        kafka.create_topic(topic, 2, &[]).await;
    }
    let board = Board::start(kafka);
    let probes = board.memebg.address(PATIENCE);
    let named = |text: &str| text.contains(SUMMARIES) && text.contains("create it");
    wait_for("a word on the missing topic", PATIENCE, || {
        get(probes, "/readyz").filter(|(status, text)| *status == 503 && named(text))
    });
    kafka.create_topic(SUMMARIES, 2, &[("cleanup.policy", "compact")]).await;
    wait_for("ready", PATIENCE, || get(probes, "/readyz").filter(|(status, _)| *status == 200));

    let frames = stream::day_5_frames(1, 0..1);
    let (key, frame) = frames.iter().rfind(|(_, value)| is_wanted(value)).expect("a wanted frame");
    let sha256 = FrameEvent::from_json(frame).expect("a frame").image.sha256.into_owned();
    let producer = producer(kafka);
    send(&producer, TOPICS[0], key, frame, TimeDelta::zero());
    send(&producer, TOPICS[1], "E", &grade("E", &sha256), TimeDelta::zero());
    send(&producer, SUMMARIES, "E", &summary("E"), TimeDelta::hours(71));
    send(&producer, SUMMARIES, "other", b"{", TimeDelta::zero());
    let letter = BaseRecord::to(TOPICS[2]).key("E").payload("x").headers(
        OwnedHeaders::new().insert(Header { key: "memebg.error.code", value: Some("image_undecodable") }),
    );
    producer.send(letter).map_err(|(error, _)| error).expect("there is room");
    producer.flush(PATIENCE).expect("confirmed");

    let known = board
        .embryo("E", |known| {
            !known["cell"]["summary"].is_null() && known["frames"][0]["image"] == Value::Bool(true)
        })
        .await;
    assert_eq!(known["cell"]["summary"]["gardner"], "4AB");
    let image = board.ask(&format!("/api/images/{sha256}")).await;
    assert_eq!(image.headers()["content-type"], "image/jpeg");
    assert!(image.bytes().await.expect("a body").starts_with(&[0xff, 0xd8]));

    let form = json!({"embryo_id": "E", "reviewer": "rev-7", "exp": 3, "icm": "B", "te": "B",
        "reason": "routine", "blinded": true, "summary_version": 2});
    let post = || board.client.post(board.url("/api/reviews")).header("content-type", "application/json");
    let unknown = post().body(form.to_string()).send().await.expect("an answer");
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
    let answer = post().bearer_auth(TOKEN).body(form.to_string()).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED, "{}", board.memebg.log());
    let answer = body(answer).await;
    let (review, headers) = only_review(kafka);
    assert_eq!((review.gardner().as_str(), review.blinded, review.summary.version), ("3BB", true, 2));
    for (name, value) in [("ce_type", REVIEW_EVENT_TYPE), ("ce_id", review.id().as_str())] {
        assert!(headers.contains(&(name.to_owned(), value.to_owned())), "{headers:?}");
    }
    assert_eq!(answer["id"], review.id());
    let audit = board.memebg.logged("review recorded", PATIENCE);
    assert_eq!((&audit["reviewer"], &audit["embryo"]), (&"rev-7".into(), &"E".into()));
    assert!(!audit.to_string().contains("3BB"), "{audit}");
    assert!(!board.memebg.log().contains(TOKEN), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn grades_of_long_ago_and_of_aborted_transactions_are_not_shown() {
    let kafka = Kafka::shared();
    let name = |topic: &str| format!("past.{topic}");
    for topic in ["frames", "grades", "dead", "summaries"] {
        kafka.create_topic(&name(topic), 1, &[]).await;
    }
    let (plain, grades) = (producer(kafka), name("grades"));
    send(&plain, &grades, "old", &grade("old", &"0".repeat(64)), TimeDelta::hours(73));
    send(&plain, &grades, "recent", &grade("recent", &"0".repeat(64)), TimeDelta::hours(71));
    let aborted: BaseProducer = kafka.client().set("transactional.id", "past").create().expect("a producer");
    aborted.init_transactions(PATIENCE).expect("a broker");
    aborted.begin_transaction().expect("a transaction");
    send(&aborted, &grades, "aborted", &grade("aborted", &"0".repeat(64)), TimeDelta::zero());
    aborted.abort_transaction(PATIENCE).expect("aborted");
    send(&plain, &grades, "last", &grade("last", &"0".repeat(64)), TimeDelta::zero());

    let brokers = kafka.bootstrap();
    let (frames, dead, summaries) = (name("frames"), name("dead"), name("summaries"));
    let options = [
        ("kafka.brokers", brokers.as_str()),
        ("kafka.frames_topic", &frames),
        ("kafka.grades_topic", &grades),
        ("kafka.dead_letters_topic", &dead),
        ("summaries.topic", &summaries),
        ("board.listen", "127.0.0.1:0"),
        ("telemetry.listen", "127.0.0.1:0"),
        ("telemetry.log_format", "json"),
    ];
    let mut board = Memebg::start(&["board"], &options);
    let line = board.logged("board", PATIENCE);
    let address = line["address"].as_str().expect("an address");
    let status = async |id: &str| {
        reqwest::get(format!("http://{address}/api/embryos/{id}")).await.expect("an answer").status()
    };
    let deadline = Instant::now() + PATIENCE;
    while status("last").await != StatusCode::OK {
        assert!(Instant::now() < deadline, "the last grade is not shown: {}", board.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status("recent").await, StatusCode::OK);
    assert_eq!(status("old").await, StatusCode::NOT_FOUND);
    assert_eq!(status("aborted").await, StatusCode::NOT_FOUND);
    board.signal("TERM");
    assert_eq!(board.end(PATIENCE).code(), Some(0), "{}", board.log());
}

/// Of day 5, and the central plane.
fn is_wanted(frame: &[u8]) -> bool {
    let event = FrameEvent::from_json(frame).expect("a frame");
    let hpi = event.validate(Utc::now(), 0).expect("sound").hpi;
    hpi > 110.0 && event.focal_plane_index == event.focal_plane_count / 2
}

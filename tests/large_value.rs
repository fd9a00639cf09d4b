//! Values larger than most: what fits is graded, what does not is a dead letter, and neither stops the stream.
//! On a real broker, because the embedded one keeps only 5 MiB of a partition.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use common::frames::{self, Record};
use common::kafka::Kafka;
use common::service::{PARTITIONS, TestService, config, header};
use image::GrayImage;
use memebg::domain::GradeStatus;
use memebg::pipeline::message::RawMessage;
use serde_json::json;

const LARGE_BYTES: usize = 20_000_000;
const ALLOWED: [(&str, &str); 1] = [("max.message.bytes", "33554432")];

const DELIVERIES: [&str; 2] = ["at_least_once", "exactly_once"];

/// A service whose topics begin with `name`, with these settings of the dead-letter topic.
fn service(name: &str, dead_letters: &[(&str, &str)], delivery: &str) -> TestService {
    let name = format!("{name}.{delivery}");
    let kafka = Kafka::shared();
    let [frames, grades, letters] = ["frames", "grades", "dlq"].map(|topic| format!("{name}.{topic}"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        kafka.create_topic(&frames, usize::try_from(PARTITIONS).expect("few"), &ALLOWED).await;
        kafka.create_topic(&grades, 1, &[]).await;
        kafka.create_topic(&letters, 1, dead_letters).await;
    });
    let config = config(&[
        &format!("kafka.brokers={}", kafka.bootstrap()),
        &format!("kafka.group_id={name}"),
        &format!("kafka.frames_topic={frames}"),
        &format!("kafka.grades_topic={grades}"),
        &format!("kafka.dead_letters_topic={letters}"),
        &format!("kafka.delivery={delivery}"),
        "kafka.max_send_bytes=33554432",
    ]);
    TestService::connect(config, None)
}

/// Sends 20 MB and a good frame behind it on the same partition, which must be graded.
fn dead_letter_of_20_mb(service: &TestService, value: &[u8]) -> RawMessage {
    let position = service.send(&Record::with_value("large", value));
    let behind = Record { partition: Some(position.partition), ..Record::of(&frames::event("behind")) };
    service.send(&behind);
    let letter = service.dead_letter_of(position);
    assert_eq!(header(&letter, "memebg.error.code"), Some("value_too_large"));
    assert_eq!(header(&letter, "__connect.errors.stage"), Some("DECODE"));
    assert_eq!(letter.key.as_deref(), Some(b"large".as_slice()));
    assert_eq!(service.grades_of("behind", 1)[0].1.status, GradeStatus::Graded);
    letter
}

#[test]
fn a_value_of_20_mb_is_dead_lettered_whole_where_the_topic_allows_it() {
    for delivery in DELIVERIES {
        let (service, value) = (service("whole", &ALLOWED, delivery), frames::noise(LARGE_BYTES));
        let letter = dead_letter_of_20_mb(&service, &value);
        assert!(letter.value.as_deref() == Some(&value[..]), "the 20 MB came back changed");
        assert_eq!(header(&letter, "memebg.value.omitted_bytes"), None);
    }
}

#[test]
fn a_value_of_20_mb_is_left_where_it_lies_where_the_broker_refuses_it() {
    for delivery in DELIVERIES {
        let service = service("refused", &[], delivery);
        let letter = dead_letter_of_20_mb(&service, &frames::noise(LARGE_BYTES));
        assert_eq!(letter.value, None);
        assert_eq!(header(&letter, "memebg.value.omitted_bytes"), Some("20000000"));
    }
}

#[test]
fn a_photograph_of_5_megapixels_is_graded_inline() {
    let service = service("five-megapixels", &ALLOWED, "at_least_once");
    let photograph =
        image::imageops::resize(&*frames::PHOTOGRAPH, 2_240, 2_240, image::imageops::FilterType::Triangle);
    let bmp = encoded(&photograph);
    let mut event = frames::event("five-megapixels");
    frames::set_image(&mut event, &bmp, "image/bmp", 2_240, 2_240);
    event["image"]["um_per_px"] = json!(0.1);
    service.send(&Record::of(&event));
    assert_eq!(service.grades_of("five-megapixels", 1)[0].1.status, GradeStatus::Graded);
}

fn encoded(photograph: &GrayImage) -> Vec<u8> {
    let mut bmp = std::io::Cursor::new(Vec::new());
    photograph.write_to(&mut bmp, image::ImageFormat::Bmp).expect("a BMP");
    bmp.into_inner()
}

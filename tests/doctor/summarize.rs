//! What lacks for `memebg summarize`.

use chrono::{TimeDelta, Utc};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::PATIENCE;
use crate::beside::{COMPACT, Clinic, FOR_EVER};
use crate::common::kafka::Kafka;
use crate::secured::Operation::{Describe, Read, Write};
use crate::secured::Resource::{Group, Topic, TransactionalId};
use crate::secured::Secured;

#[tokio::test]
async fn a_topic_that_is_missing_or_has_another_number_of_partitions_is_named() {
    let kafka = Kafka::shared();
    let clinic = Clinic::open_but(kafka, "uneven", &["reviews"]).await;
    let found = clinic.look("summarize", &[]);
    found.only_fails(&["reviews.topic"], 1);
    found.says("reviews.topic", "fail", &["uneven.reviews", "(reviews.topic)", "does not exist"]);
    found.says("summaries.partitions", "skipped", &[]);
    kafka.create_topic("uneven.reviews", 3, &[FOR_EVER]).await;
    let found = clinic.look("summarize", &[]);
    found.only_fails(&["summaries.partitions"], 1);
    found.says("summaries.partitions", "fail", &["grades 2", "summaries 2", "reviews 3", "does not start"]);

    let clinic = Clinic::open_but(kafka, "headless", &["summaries", "grades"]).await;
    let found = clinic.look("summarize", &[]);
    found.only_fails(&["kafka.grades_topic", "summaries.topic"], 1);
    found.says("summaries.topic", "fail", &["headless.summaries", "(summaries.topic)", "create it"]);
    found.says("summarize.read", "ok", &["READ on headless.reviews"]);
    found.says("summarize.lag", "skipped", &["see kafka.grades_topic"]);
}

#[tokio::test]
async fn a_topic_that_deletes_what_it_alone_holds_is_named() {
    let kafka = Kafka::shared();
    let clinic = Clinic::open_but(kafka, "forgetful", &["summaries", "reviews"]).await;
    let week = ("retention.ms", "604800000");
    kafka.create_topic("forgetful.summaries", 2, &[week]).await;
    kafka.create_topic("forgetful.reviews", 2, &[week]).await;
    let found = clinic.look("summarize", &[]);
    found.only_fails(&["reviews.retention", "summaries.cleanup"], 1);
    found.says("summaries.cleanup", "fail", &["after 7.0 days", "cleanup.policy=compact"]);
    found.says("reviews.retention", "fail", &["after 7.0 days", "retention.ms=-1"]);

    kafka.set_topic("forgetful.summaries", FOR_EVER).await;
    kafka.set_topic("forgetful.reviews", COMPACT).await;
    let found = clinic.look("summarize", &[]);
    found.only_fails(&["reviews.retention"], 1);
    found.says("reviews.retention", "fail", &["only the last stays", "cleanup.policy=delete"]);
    found.says("summaries.cleanup", "warn", &["grows without end"]);
}

#[tokio::test]
async fn a_review_from_the_future_tells_of_a_wrong_clock() {
    let clinic = Clinic::open(Kafka::shared(), "early").await;
    let review = serde_json::json!({ "reviewed_at": Utc::now() + TimeDelta::hours(2) }).to_string();
    let producer: BaseProducer = clinic.stream.kafka.client().create().expect("a producer");
    let topic = clinic.topic("reviews");
    let record = BaseRecord::to(&topic).key("E-1").payload(&review);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(PATIENCE).expect("confirmed");
    let found = clinic.look("summarize", &[]);
    found.only_fails(&["clock.reviews"], 1);
    found.says("clock.reviews", "fail", &["s in the future", "a reviewer's is ahead", "dead-lettered"]);
    let found = clinic.look("summarize", &[("select.clock_tolerance_seconds", "7201")]);
    found.says("clock.reviews", "ok", &["ahead of this machine"]);
}

/// Grants the table of the README, but for what a test leaves out; of a topic that is left out DESCRIBE is granted.
fn allow_all_but(broker: &Secured, name: &str, left_out: &str) {
    for (resource, what, operations) in [
        (Topic, "grades", &[Read, Describe][..]),
        (Topic, "reviews", &[Read, Describe]),
        (Topic, "summaries", &[Read, Write, Describe]),
        (Topic, "dead", &[Write, Describe]),
    ] {
        let operations = if what == left_out { &[Describe][..] } else { operations };
        broker.allow(resource, &format!("{name}.{what}"), operations);
    }
    if left_out != "group" {
        broker.allow(Group, &format!("{name}-summaries"), &[Read]);
    }
    if left_out != "transactions" {
        broker.allow(TransactionalId, &format!("{name}-summaries-*"), &[Write, Describe]);
    }
}

#[tokio::test]
async fn the_acls_of_the_readme_are_enough_and_one_that_is_missing_is_named_with_what_to_grant() {
    let broker = Secured::shared();
    for (name, left_out, failing, words) in [
        ("sum-all", "", &[][..], &[][..]),
        (
            "sum-grades",
            "grades",
            &["summarize.read"],
            &["sum-grades.grades", "kafka.grades_topic", "grant READ"],
        ),
        (
            "sum-reviews",
            "reviews",
            &["summarize.read"],
            &["sum-reviews.reviews", "reviews.topic", "grant READ"],
        ),
        (
            "sum-group",
            "group",
            &["summarize.group"],
            &["sum-group-summaries", "summaries.group_id", "grant READ"],
        ),
        (
            "sum-transactions",
            "transactions",
            &["summarize.write"],
            &["sum-transactions-summaries- ", "grant WRITE and DESCRIBE on that prefix"],
        ),
    ] {
        let clinic = Clinic::open(&broker.kafka, name).await;
        allow_all_but(broker, name, left_out);
        let found = clinic.look_secured(broker, "summarize", &[]);
        assert_eq!(found.with_status("fail"), failing, "{left_out}: {}", found.text);
        assert_eq!(found.code, i32::from(!failing.is_empty()), "{}", found.text);
        for check in failing {
            found.says(check, "fail", words);
        }
        // What cannot be asked is said.
        found.says("summaries.cleanup", "skipped", &["are not shown", "grant DESCRIBE_CONFIGS"]);
        found.says("reviews.retention", "skipped", &["are not shown", "grant DESCRIBE_CONFIGS"]);
    }
}

#[tokio::test]
async fn a_topic_that_may_not_even_be_seen_is_named_with_all_that_is_to_be_granted() {
    let broker = Secured::shared();
    let clinic = Clinic::open(&broker.kafka, "sum-blind").await;
    let found = clinic.look_secured(broker, "summarize", &[]);
    found.says("summaries.topic", "fail", &["read and write to", "grant READ, WRITE and DESCRIBE"]);
    found.says("reviews.topic", "fail", &["not allowed to read", "grant READ and DESCRIBE"]);
    found.says("kafka.dead_letters_topic", "fail", &["not allowed to write to", "grant WRITE and DESCRIBE"]);
}

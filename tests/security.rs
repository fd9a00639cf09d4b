//! The built program against a broker that wants TLS, a password and ACLs. Where it is not let in, or not let through,
//! an operator reads the cause and the option in one line, no frame is lost, and no secret is in the log.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/secured.rs"]
mod secured;
#[path = "common/stream.rs"]
mod stream;

use std::time::Duration;

use process::{Memebg, get, wait_for};
use secured::Operation::{Describe, Read, Write};
use secured::Resource::{Group, Topic, TransactionalId};
use secured::{PASSWORD, Secured};
use stream::{Stream, Tally, day_5_frames, poison_frames};

/// For what takes seconds on two idle cores, while everything else runs beside it.
const PATIENCE: Duration = Duration::from_secs(90);
const WRONG_PASSWORD: &str = "Wrong-Horse";

/// Frames of which 4 are graded, on topics of their own, and a message for the dead letters.
struct Laboratory {
    broker: &'static Secured,
    stream: Stream<'static>,
}

impl Laboratory {
    async fn open(name: &str) -> Self {
        let broker = Secured::shared();
        let stream = Stream::create(&broker.kafka, name, 2).await;
        stream.send(day_5_frames(2, 0..2).into_iter().chain(poison_frames(0..1)));
        Self { broker, stream }
    }

    /// The table of the README, but for what a test leaves out.
    fn allow_all_but(&self, left_out: &str) {
        let Stream { name, .. } = &self.stream;
        for (resource, name, operations) in [
            (Topic, &self.stream.frames(), &[Read, Describe][..]),
            (Group, name, &[Read]),
            (Topic, &self.stream.grades(), &[Write, Describe]),
            (Topic, &self.stream.dead_letters(), &[Write, Describe]),
        ] {
            if name != left_out {
                self.broker.allow(resource, name, operations);
            }
        }
    }

    fn serve(&self, more: &[(&str, &str)]) -> Memebg {
        self.start("serve", more)
    }

    fn start(&self, command: &str, more: &[(&str, &str)]) -> Memebg {
        let (secured, usual) = (self.broker.options(), self.stream.options());
        let mut options: Vec<(&str, &str)> =
            usual.iter().chain(&secured).map(|(option, value)| (*option, value.as_str())).collect();
        options.extend([
            // What an operator mends is noticed soon.
            ("kafka.consumer_properties.topic_metadata_refresh_interval_ms", "500"),
            ("kafka.producer_properties.topic_metadata_propagation_max_ms", "1000"),
        ]);
        options.extend(more);
        Memebg::start(&[command], &options)
    }

    /// Waits until a service is not ready because of this, which its log says too, and alive.
    fn await_unready(&self, service: &Memebg, because: &[&str]) {
        let address = service.address(PATIENCE);
        let mut said = String::new();
        wait_for("a cause in the readiness probe", PATIENCE, || {
            let (status, body) = get(address, "/readyz")?;
            said.clone_from(&body);
            let named = because.iter().all(|word| body.contains(word));
            (status == 503 && named).then_some(())
        });
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert_eq!(get(address, "/livez").expect("an answer").0, 200);
        let cause = said.trim();
        let lines = service.log();
        let lines = lines.lines().filter(|line| line.contains(cause)).count();
        // By the consumer, and by the producer where it is refused too.
        assert!((1..=2).contains(&lines), "logged {lines} times: {cause}\n{}", service.log());
    }

    fn await_ready(&self, service: &Memebg) {
        let address = service.address(PATIENCE);
        wait_for("readiness", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 200));
    }

    /// Waits for the end of the stream, ends the service, and checks that all of it was graded.
    fn finish(&self, mut service: Memebg) -> Tally {
        self.stream.await_committed(PATIENCE);
        self.await_ready(&service);
        stop(&mut service);
        let tally = self.stream.check();
        assert_eq!((tally.wanted, tally.dead_lettered), (4, 1));
        tally
    }
}

fn stop(service: &mut Memebg) {
    service.stop_in_peace(PATIENCE);
    assert_discreet(service);
}

/// No password is in the log.
fn assert_discreet(service: &Memebg) {
    let log = service.log();
    assert!(!log.contains(PASSWORD) && !log.contains(WRONG_PASSWORD), "{log}");
}

/// Waits until a service that may not publish has ended, which it does with code 3 and this cause.
fn await_refusal(service: &mut Memebg, because: &[&str]) {
    let status = service.end(PATIENCE);
    let log = service.log();
    assert_eq!(status.code(), Some(3), "{log}");
    let last = log.lines().rfind(|line| line.starts_with("error: ")).expect("a last word");
    assert!(because.iter().all(|word| last.contains(word)), "{last}");
    assert_discreet(service);
}

#[tokio::test]
async fn frames_are_graded_over_tls_with_a_password_from_a_file_and_the_acls_of_the_readme() {
    let laboratory = Laboratory::open("let-in").await;
    laboratory.allow_all_but("");
    let tally = laboratory.finish(laboratory.serve(&[]));
    assert_eq!((tally.repeated, tally.repeated_letters), (0, 0));
}

#[tokio::test]
async fn exactly_once_needs_no_more_than_the_readme_says() {
    let laboratory = Laboratory::open("once").await;
    laboratory.allow_all_but("");
    let once = [("kafka.delivery", "exactly_once")];
    await_refusal(&mut laboratory.serve(&once), &["transactional ids", "kafka.delivery", "grant WRITE"]);
    laboratory.broker.allow(TransactionalId, "once-*", &[Write, Describe]);
    let tally = laboratory.finish(laboratory.serve(&once));
    assert_eq!((tally.repeated, tally.repeated_letters), (0, 0));
}

#[tokio::test]
async fn a_wrong_password_is_named_and_after_it_is_put_right_every_frame_is_graded() {
    let laboratory = Laboratory::open("wrong-password").await;
    laboratory.allow_all_but("");
    let wrong = laboratory.broker.secret(WRONG_PASSWORD);
    let mut service = laboratory.serve(&[("kafka.property_files.sasl_password", &wrong)]);
    laboratory.await_unready(&service, &["refuses the credentials", "sasl.password", "kafka.property_files"]);
    stop(&mut service);
    assert_eq!(laboratory.stream.published(), 0);
    laboratory.finish(laboratory.serve(&[]));
}

#[tokio::test]
async fn a_broker_with_a_certificate_of_a_stranger_is_not_told_the_password() {
    let laboratory = Laboratory::open("stranger").await;
    let foreign = laboratory.broker.foreign_authority();
    let mut service = laboratory.serve(&[("kafka.properties.ssl_ca_location", &foreign)]);
    laboratory.await_unready(&service, &["no TLS connection", "ssl.ca.location", "kafka.properties"]);
    assert!(service.log().contains("certificate verify failed"), "{}", service.log());
    stop(&mut service);
}

#[tokio::test]
async fn a_frames_topic_that_may_not_be_read_is_named_and_read_once_it_may() {
    let laboratory = Laboratory::open("no-frames").await;
    let frames = laboratory.stream.frames();
    laboratory.allow_all_but(&frames);
    let service = laboratory.serve(&[]);
    laboratory.await_unready(&service, &[&frames, "kafka.frames_topic", "grant READ"]);
    laboratory.broker.allow(Topic, &frames, &[Describe]);
    // Now it is found and assigned, but nothing may be fetched.
    service.logged("partitions assigned", PATIENCE);
    wait_for("still unready", PATIENCE, || {
        get(service.address(PATIENCE), "/readyz").filter(|(_, said)| said.contains("grant READ"))
    });
    laboratory.broker.allow(Topic, &frames, &[Read]);
    laboratory.finish(service);
}

#[tokio::test]
async fn a_group_that_may_not_be_joined_is_named_and_joined_once_it_may() {
    let laboratory = Laboratory::open("no-group").await;
    laboratory.allow_all_but("no-group");
    let service = laboratory.serve(&[]);
    laboratory.await_unready(&service, &["group no-group", "kafka.group_id", "grant READ"]);
    laboratory.broker.allow(Group, "no-group", &[Read]);
    laboratory.finish(service);
}

#[tokio::test]
async fn a_frames_topic_that_is_not_there_is_named_and_read_once_it_is() {
    let laboratory = Laboratory::open("misspelt").await;
    laboratory.allow_all_but("");
    let missing = "misspelt-topic.frames";
    laboratory.broker.allow(Topic, missing, &[Read, Describe]);
    let mut service = laboratory.serve(&[("kafka.frames_topic", missing)]);
    laboratory.await_unready(&service, &[missing, "kafka.frames_topic", "does not exist"]);
    laboratory.broker.kafka.create_topic(missing, 1, &[]).await;
    laboratory.await_ready(&service);
    stop(&mut service);
}

#[tokio::test]
async fn a_grades_topic_that_may_not_be_written_to_ends_the_service_and_loses_nothing() {
    let laboratory = Laboratory::open("no-grades").await;
    let grades = laboratory.stream.grades();
    laboratory.allow_all_but(&grades);
    await_refusal(&mut laboratory.serve(&[]), &[&grades, "kafka.grades_topic", "grant WRITE"]);
    laboratory.broker.allow(Topic, &grades, &[Write, Describe]);
    laboratory.finish(laboratory.serve(&[]));
}

#[tokio::test]
async fn a_transaction_that_may_not_write_to_the_grades_topic_ends_the_service_and_loses_nothing() {
    let laboratory = Laboratory::open("no-grades-once").await;
    let grades = laboratory.stream.grades();
    laboratory.allow_all_but(&grades);
    laboratory.broker.allow(TransactionalId, "no-grades-once-*", &[Write, Describe]);
    let once = [("kafka.delivery", "exactly_once")];
    await_refusal(&mut laboratory.serve(&once), &[&grades, "kafka.grades_topic", "grant WRITE"]);
    laboratory.broker.allow(Topic, &grades, &[Write, Describe]);
    let tally = laboratory.finish(laboratory.serve(&once));
    assert_eq!((tally.repeated, tally.repeated_letters), (0, 0));
}

#[tokio::test]
async fn a_dead_letters_topic_that_may_not_be_written_to_ends_the_service_and_loses_nothing() {
    let laboratory = Laboratory::open("no-letters").await;
    let letters = laboratory.stream.dead_letters();
    laboratory.allow_all_but(&letters);
    await_refusal(&mut laboratory.serve(&[]), &[&letters, "kafka.dead_letters_topic", "grant WRITE"]);
    laboratory.broker.allow(Topic, &letters, &[Write, Describe]);
    laboratory.finish(laboratory.serve(&[]));
}

#[tokio::test]
async fn a_grades_topic_that_is_not_there_ends_the_service_and_is_named() {
    let laboratory = Laboratory::open("no-such-grades").await;
    laboratory.allow_all_but("");
    let missing = "no-such-grades-at-all";
    laboratory.broker.allow(Topic, missing, &[Write, Describe]);
    let misspelt = [("kafka.grades_topic", missing)];
    await_refusal(&mut laboratory.serve(&misspelt), &[missing, "kafka.grades_topic", "does not exist"]);
    laboratory.finish(laboratory.serve(&[]));
}

/// Topics for a summarizer, and all that it may do but for what a test leaves out.
async fn summarizer(name: &str, left_out: &str) -> (Laboratory, Memebg) {
    let laboratory = Laboratory::open(name).await;
    let (grades, letters) = (laboratory.stream.grades(), laboratory.stream.dead_letters());
    let (reviews, summaries, group) =
        (format!("{name}.reviews"), format!("{name}.summaries"), format!("{name}-summaries"));
    for topic in [&reviews, &summaries] {
        laboratory.broker.kafka.create_topic(topic, 2, &[]).await;
    }
    for (resource, name, operations) in [
        (Topic, grades.as_str(), &[Read, Describe][..]),
        (Topic, &reviews, &[Read, Describe]),
        (Topic, &summaries, &[Read, Write, Describe]),
        (Topic, &letters, &[Write, Describe]),
        (Group, &group, &[Read]),
        (TransactionalId, &format!("{group}-*"), &[Write, Describe]),
    ] {
        if name.trim_end_matches("-*") != left_out || (resource as u8) == (TransactionalId as u8) {
            laboratory.broker.allow(resource, name, operations);
        } else if matches!(resource, Topic) {
            laboratory.broker.allow(resource, name, &[Describe]);
        }
    }
    let options = [("reviews.topic", reviews.as_str()), ("summaries.topic", &summaries)];
    let process = laboratory.start("summarize", &options);
    (laboratory, process)
}

#[tokio::test]
async fn a_summarizer_needs_no_more_than_its_acls_say() {
    let (laboratory, mut process) = summarizer("summarizer", "").await;
    laboratory.await_ready(&process);
    process.logged("state restored", PATIENCE);
    process.signal("TERM");
    assert_eq!(process.end(PATIENCE).code(), Some(0), "{}", process.log());
    assert_discreet(&process);
}

#[tokio::test]
async fn a_topic_or_a_group_that_a_summarizer_may_not_read_is_named() {
    let (_, mut process) = summarizer("blind", "blind.reviews").await;
    assert_eq!(process.end(PATIENCE).code(), Some(2), "{}", process.log());
    let log = process.log();
    assert!(log.contains("not allowed to read topic blind.reviews (reviews.topic): grant READ"), "{log}");
    let (laboratory, process) = summarizer("outcast", "outcast-summaries").await;
    laboratory.await_unready(&process, &["outcast-summaries", "summaries.group_id", "grant READ"]);
}

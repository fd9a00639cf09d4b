//! `memebg summarize` against a real Kafka: whatever is killed or moved in the middle, the last summary of every embryo
//! is the one that all its grade events and reviews make together.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/summarized.rs"]
mod summarized;

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use common::kafka::Kafka;
use memebg::domain::{GradeEvent, SummaryAssessment, SummaryStatus};
use memebg::random::Random;
use process::{get, metric, sum, wait_for};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use summarized::{PARTITIONS, PATIENCE, Stream, await_published, end_in_peace, grades, review};

#[tokio::test]
async fn grades_become_summaries_and_late_ones_amend_them_even_after_they_were_forgotten() {
    let stream = Stream::create("summaries-plain", PARTITIONS).await;
    let early = grades(12, 0..8, 1);
    stream.send(&early);
    let forgetful = [("summaries.max_embryos", "3")];
    let mut process = stream.summarize(&forgetful);
    stream.await_summaries_of(&early, &[]);
    let late = grades(12, 8..12, 2);
    stream.send(&late);
    stream.await_summaries_of(&[early.clone(), late.clone()].concat(), &[]);
    end_in_peace(&mut process);
    // A process that starts anew knows of them only from the topic.
    let later = grades(12, 12..14, 3);
    stream.send(&later);
    let mut process = stream.summarize(&forgetful);
    stream.await_summaries_of(&[early, late, later].concat(), &[]);
    let last = stream.last("E-0000").expect("a summary");
    assert_eq!((last.status, last.frames.total), (SummaryStatus::Final, 14));
    // The end of a partition that was read back is no fault.
    assert!(!process.log().contains("EOF"), "{}", process.log());
    end_in_peace(&mut process);
}

#[tokio::test]
async fn reviews_are_merged_once_whether_they_come_before_the_grades_or_after_a_restart() {
    let stream = Stream::create("summaries-reviewed", PARTITIONS).await;
    let events = grades(6, 0..6, 7);
    let (seen, late): (Vec<_>, Vec<_>) = events.iter().cloned().partition(|it| it.embryo_id != "E-0005");
    let mut reviews = vec![review("E-0005", 0, false)];
    reviews.extend((0..3).map(|number| review(&format!("E-{number:04}"), number, number == 1)));
    stream.send(&seen);
    stream.post(reviews.iter().chain(&reviews));
    let mut process = stream.summarize(&[]);
    stream.await_summaries_of(&seen, &reviews[1..]);
    let address = process.address(PATIENCE);
    let (_, text) = get(address, "/metrics").expect("metrics");
    // Nothing is counted twice, and one waits for its embryo.
    assert_eq!(sum(&text, "memebg_reviews_total"), 3.0, "{text}");
    assert_eq!(sum(&text, "memebg_reviews_waiting"), 2.0, "{text}");
    end_in_peace(&mut process);
    // A newer one of a finished embryo that only the topic remembers, an older one, and the grades that were waited for.
    let newer = [review("E-0000", 9, true), review("E-0002", 1, true)];
    stream.post(&newer);
    stream.send(&late);
    let mut process = stream.summarize(&[]);
    stream.await_summaries_of(&events, &[&reviews[..], &newer[..]].concat());
    let last = |id: &str| stream.last(id).expect("a summary");
    assert_eq!((last("E-0000").reviews, last("E-0002").reviews, last("E-0005").reviews), (2, 2, 1));
    assert_eq!(last("E-0002").review.expect("one").gardner, "4AB");
    assert_ne!(last("E-0000").assessment, SummaryAssessment::Preliminary);
    let address = process.address(PATIENCE);
    assert_eq!(metric(address, "memebg_reviews_waiting"), Some(0.0));
    end_in_peace(&mut process);
}

/// A frame whose window ends this soon.
fn ending_in(embryo_id: &str, seconds: i64) -> GradeEvent {
    let mut event = grades(1, 0..1, 0).remove(0);
    event.embryo_id = embryo_id.to_owned();
    // A hundredth of an hour before the end is 36 s.
    (event.hpi, event.captured_at) = (119.99, Utc::now() - TimeDelta::seconds(36 - seconds));
    event
}

#[tokio::test]
async fn a_summary_is_provisional_until_its_window_ends_by_the_wall_clock() {
    let stream = Stream::create("summaries-ending", PARTITIONS).await;
    let event = ending_in("E-ends", 8);
    stream.send([&event]);
    let mut process = stream.summarize(&[("summaries.grace_minutes", "0")]);
    let all = wait_for("a final summary", PATIENCE, || {
        stream.published().remove("E-ends").filter(|all| all.len() == 2)
    });
    assert_eq!((all[0].status, all[1].status), (SummaryStatus::Provisional, SummaryStatus::Final));
    assert!(Utc::now() >= event.captured_at + TimeDelta::seconds(36), "not before the window has ended");
    assert_eq!((all[0].version, all[1].version), (1, 2));
    end_in_peace(&mut process);
}

#[tokio::test]
async fn what_cannot_be_read_becomes_a_dead_letter_and_stops_nothing() {
    let stream = Stream::create("summaries-poison", PARTITIONS).await;
    let events = grades(4, 0..3, 6);
    let mut backwards = events[0].clone();
    backwards.hpi = -1.0;
    let json = |event: &GradeEvent| serde_json::to_vec(event).expect("JSON");
    // What is sent is compressed, and this cannot be.
    let mut random = Random::new(1);
    let long: Vec<u8> = std::iter::repeat_with(|| (random.next_u64() % 256) as u8).take(30_000).collect();
    stream.put(
        &stream.grades(),
        [
            (backwards.embryo_id.as_str(), json(&backwards)),
            ("another", json(&events[1])),
            ("E-0001", b"not json".to_vec()),
            ("E-0002", long.clone()),
            ("E-0003", Vec::new()),
        ],
    );
    let mut future = review("E-0000", 0, false);
    future.reviewed_at = Utc::now() + TimeDelta::days(1);
    stream.put(
        &stream.reviews(),
        [
            ("E-0000", b"{\"comment\": \"INVENTED NAME\"}".to_vec()),
            ("E-0000", future.to_json().expect("JSON")),
        ],
    );
    stream.send(&events);
    let reviews = [review("E-0000", 1, false)];
    stream.post(&reviews);
    let mut process = stream.summarize(&[]);
    stream.await_summaries_of(&events, &reviews);
    let letters = stream.letters();
    let mut codes: Vec<_> =
        letters.iter().map(|(headers, _)| headers["memebg.error.code"].as_str()).collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [
            "clock_in_future",
            "empty_value",
            "invalid_json",
            "invalid_json",
            "schema_invalid",
            "schema_invalid",
            "schema_invalid"
        ]
    );
    for (headers, value) in &letters {
        let topic = &headers["__connect.errors.topic"];
        assert!([stream.grades(), stream.reviews()].contains(topic), "{topic}");
        assert!(!headers["__connect.errors.exception.message"].contains("INVENTED"), "{headers:?}");
        // What does not fit comes without its value and says where it lies.
        let omitted = headers.get("memebg.value.omitted_bytes");
        assert_eq!(omitted.is_some(), value.is_none(), "{headers:?}");
        assert!(omitted.is_none_or(|bytes| *bytes == long.len().to_string()));
    }
    assert_eq!(letters.iter().filter(|(_, value)| value.is_none()).count(), 1);
    let address = process.address(PATIENCE);
    assert_eq!(metric(address, "memebg_summaries_dead_lettered_total"), Some(7.0));
    assert!(!process.log().contains("INVENTED"));
    end_in_peace(&mut process);
    // Their offsets are committed with them.
    let mut process = stream.summarize(&[]);
    process.logged("state restored", PATIENCE);
    stream.send(&grades(4, 3..4, 8));
    stream.await_summaries_of(&[events, grades(4, 3..4, 8)].concat(), &reviews);
    assert_eq!(stream.letters().len(), 7);
    end_in_peace(&mut process);
}

#[tokio::test]
async fn the_probes_and_metrics_say_how_it_is() {
    let stream = Stream::create("summaries-probes", PARTITIONS).await;
    let mut process = stream.summarize(&[]);
    let address = process.address(PATIENCE);
    wait_for("ready", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 200));
    assert_eq!(get(address, "/livez").expect("an answer").0, 200);
    let events = grades(8, 0..3, 9);
    stream.send(&events);
    stream.await_summaries_of(&events, &[]);
    let (_, text) = get(address, "/metrics").expect("metrics");
    assert_eq!(sum(&text, "memebg_summarised_frames_total"), events.len() as f64);
    assert_eq!(sum(&text, "memebg_summaries_in_memory"), 8.0);
    assert_eq!(sum(&text, "memebg_summaries_restored_total"), PARTITIONS as f64);
    wait_for("no lag", PATIENCE, || metric(address, "memebg_summaries_lag_events").filter(|lag| *lag < 1.0));
    // Nothing that is the service's: its alerts go by these.
    for name in
        ["memebg_frames_received_total", "memebg_consumer_lag_frames", "memebg_frames_dead_lettered_total"]
    {
        assert_eq!(sum(&text, name), 0.0, "{name}");
    }
    assert!(!process.log().contains("\"WARN\""), "{}", process.log());
    end_in_peace(&mut process);
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_changes_nothing() {
    let stream = Stream::create("summaries-killed", PARTITIONS).await;
    let events = grades(40, 0..40, 4);
    let parts: Vec<&[GradeEvent]> = events.chunks(events.len() / 4).collect();
    for part in &parts {
        stream.send(*part);
        let mut process = stream.summarize(&[]);
        await_published(&process, 1.0);
        process.signal("KILL");
        assert_eq!(process.end(PATIENCE).signal(), Some(9));
    }
    let mut process = stream.summarize(&[]);
    stream.await_summaries_of(&events, &[]);
    end_in_peace(&mut process);
}

#[tokio::test]
async fn partitions_that_move_between_processes_change_nothing() {
    let stream = Stream::create("summaries-moved", PARTITIONS).await;
    let events = grades(40, 0..30, 5);
    let parts: Vec<&[GradeEvent]> = events.chunks(events.len() / 3 + 1).collect();
    let reviews: Vec<_> = (0..40).map(|number| review(&format!("E-{number:04}"), 0, false)).collect();
    stream.send(parts[0]);
    let mut first = stream.summarize(&[]);
    await_published(&first, 1.0);
    stream.post(&reviews[..20]);
    let mut second = stream.summarize(&[]);
    // Only once it has partitions of its own: the first one would read everything.
    second.logged("state restored", PATIENCE);
    stream.send(parts[1]);
    stream.post(&reviews[20..]);
    await_published(&second, 1.0);
    end_in_peace(&mut first);
    stream.send(parts[2]);
    stream.await_summaries_of(&events, &reviews);
    end_in_peace(&mut second);
}

#[tokio::test]
async fn while_state_cannot_be_read_back_yet_the_group_is_told_that_the_member_lives() {
    let stream = Stream::create("summaries-blocked", PARTITIONS).await;
    // Somebody else's transaction, open before the end of every partition, as one of a process that has died.
    let mut client = stream.kafka.client();
    client.set("transactional.id", "summaries-blocked-dead").set("transaction.timeout.ms", "20000");
    let dead: BaseProducer = client.create().expect("a producer");
    dead.init_transactions(PATIENCE).expect("transactions");
    dead.begin_transaction().expect("a transaction");
    for partition in (0..).take(PARTITIONS) {
        let topic = stream.summaries();
        let record = BaseRecord::to(&topic).partition(partition).key("dead").payload("never committed");
        dead.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    dead.flush(PATIENCE).expect("written");
    let events = grades(8, 0..3, 10);
    stream.send(&events);
    let mut process = stream.summarize(&[
        ("kafka.drain_timeout_ms", "3000"),
        ("focus.max_wait_ms", "1000"),
        ("kafka.consumer_properties.max_poll_interval_ms", "6000"),
    ]);
    process.logged("partitions assigned", PATIENCE);
    std::thread::sleep(Duration::from_secs(10));
    assert!(!process.log().contains("state restored"), "the transaction is not open");
    assert_eq!(get(process.address(PATIENCE), "/livez").expect("an answer").0, 200);
    drop(dead);
    stream.await_summaries_of(&events, &[]);
    assert!(!process.log().contains("MAXPOLL"), "{}", process.log());
    assert_eq!(metric(process.address(PATIENCE), "memebg_rebalances_total"), Some(1.0), "{}", process.log());
    end_in_peace(&mut process);
}

#[tokio::test]
async fn topics_that_do_not_fit_together_or_are_not_there_are_named() {
    let stream = Stream::create("summaries-uneven", PARTITIONS).await;
    stream.kafka.create_topic("summaries-uneven.few", PARTITIONS - 1, &[]).await;
    for option in ["summaries.topic", "reviews.topic"] {
        for (topic, said) in [("summaries-uneven.few", "has 3"), ("summaries-uneven.none", "create it")] {
            let mut process = stream.summarize(&[(option, topic)]);
            assert_eq!(process.end(PATIENCE).code(), Some(2), "{}", process.log());
            let log = process.log();
            assert!(log.contains(said) && log.contains(topic) && log.contains(option), "{log}");
        }
    }
}

#[tokio::test]
async fn sigterm_is_obeyed_in_time_though_no_transaction_is_confirmed() {
    let mut kafka = Kafka::start();
    let name = "summaries-unconfirmed";
    let events = grades(8, 0..3, 12);
    let mut process = {
        let stream = Stream::create_at(&kafka, name, PARTITIONS).await;
        stream.send(&events);
        let process = stream.summarize(&[
            // Later than the end.
            ("summaries.publish_interval_ms", "600000"),
            // It does not hear that the broker has gone before it tries to publish.
            ("kafka.consumer_properties.statistics_interval_ms", "600000"),
            ("kafka.delivery_timeout_ms", "120000"),
            ("kafka.drain_timeout_ms", "3000"),
            ("focus.max_wait_ms", "1000"),
        ]);
        let address = process.address(PATIENCE);
        wait_for("grades that are read", PATIENCE, || {
            metric(address, "memebg_summarised_frames_total").filter(|read| *read >= events.len() as f64)
        });
        process
    };
    kafka.stop();
    let asked = Instant::now();
    process.signal("TERM");
    assert_eq!(process.end(PATIENCE).code(), Some(0), "{}", process.log());
    // The drain, 10 s to spare, and 5 s for the group, which nobody answers for.
    assert!(asked.elapsed() < Duration::from_secs(18), "{:?}", asked.elapsed());
    assert!(process.log().contains("given up"), "{}", process.log());
    kafka.start_again();
    let stream = Stream { kafka: &kafka, name, partitions: PARTITIONS };
    let mut process = stream.summarize(&[]);
    stream.await_summaries_of(&events, &[]);
    end_in_peace(&mut process);
}

//! The delivery guarantee of the built program against a real Kafka: whatever is stopped in the middle, no wanted
//! frame stays without a grade event, and a frame that is graded again says the same under the same id.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/stream.rs"]
mod stream;

use std::{net::SocketAddr, os::unix::process::ExitStatusExt, time::Duration};

use common::bundle::copy_without_limits;
use common::kafka::Kafka;
use process::{Memebg, get, grade_events, metric, wait_for};
use stream::{Stream, day_5_frames, poison_frames, skipped_frames};

/// For what takes seconds on two idle cores, while everything else runs beside it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Frames under way at most: what a drain has to finish.
const IN_FLIGHT: &str = "24";
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// `memebg serve` on this stream, with these options beside the usual ones.
fn serve(stream: &Stream<'_>, more: &[(&str, &str)]) -> Memebg {
    let drain_timeout_ms = DRAIN_TIMEOUT.as_millis().to_string();
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    options.extend([("flow.max_in_flight_frames", IN_FLIGHT), ("kafka.drain_timeout_ms", &drain_timeout_ms)]);
    options.extend(more);
    Memebg::start(&["serve"], &options)
}

/// Waits until this process alone has published so many grade events.
fn await_published(address: SocketAddr, events: f64) {
    wait_for("enough grade events", PATIENCE, || {
        grade_events(address).filter(|published| *published >= events)
    });
}

/// Ends a service and checks that nothing received is unaccounted for.
fn stop_in_peace(service: &mut Memebg) {
    service.stop_in_peace(DRAIN_TIMEOUT + Duration::from_secs(5));
}

#[tokio::test]
async fn sigterm_in_the_middle_drains_and_the_next_process_goes_on_without_a_repetition() {
    let stream = Stream::create(Kafka::shared(), "sigterm", 3).await;
    let usual = stream.options();
    let mut options: Vec<(&str, &str)> =
        usual.iter().map(|(option, value)| (*option, value.as_str())).collect();
    // An hour of culture a second: 12 frames of day 5 among 72, or what this machine can draw of them.
    options.extend([
        ("incubator.incubators", "1"),
        ("incubator.slides_per_incubator", "2"),
        ("incubator.wells_per_slide", "12"),
        ("incubator.focal_planes", "3"),
        ("incubator.capture_every_minutes", "60"),
        ("incubator.image_side_px", "224"),
        ("incubator.seconds_per_day", "24"),
    ]);
    let mut service = serve(&stream, &[]);
    let mut incubators = Memebg::start(&["incubate"], &options);
    await_published(service.address(PATIENCE), 12.0);
    stop_in_peace(&mut service);
    incubators.signal("TERM");
    assert_eq!(incubators.end(PATIENCE).code(), Some(0), "{}", incubators.log());

    let mut service = serve(&stream, &[]);
    stream.await_committed(PATIENCE);
    stop_in_peace(&mut service);
    let tally = stream.check();
    eprintln!("sigterm: {tally:?}");
    assert!(tally.wanted >= 12 && tally.unwanted > tally.wanted, "{tally:?}");
    assert_eq!(tally.repeated, 0, "what was drained was committed");
}

#[tokio::test]
async fn sigterm_while_the_models_warm_up_is_an_orderly_end() {
    let stream = Stream::create(Kafka::shared(), "early-sigterm", 1).await;
    let mut service = serve(&stream, &[]);
    service.logged("onnx runtime loaded", PATIENCE);
    stop_in_peace(&mut service);
    assert!(!service.log().contains("ERROR"), "{}", service.log());
}

#[tokio::test]
async fn a_drain_that_cannot_finish_ends_in_time_and_loses_nothing() {
    let stream = Stream::create(Kafka::shared(), "short-drain", 2).await;
    stream.send(day_5_frames(10, 0..8));
    let many =
        [("flow.max_in_flight_frames", "80"), ("kafka.drain_timeout_ms", "100"), ("focus.max_wait_ms", "50")];
    let mut service = serve(&stream, &many);
    await_published(service.address(PATIENCE), 5.0);
    service.signal("TERM");
    let status = service.end(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{}", service.log());
    let unfinished = service.balance();
    assert!(unfinished > 0, "the drain was to be too short");

    let mut service = serve(&stream, &[]);
    stream.await_committed(PATIENCE);
    stop_in_peace(&mut service);
    let tally = stream.check();
    eprintln!("short drain: {tally:?}");
    assert_eq!(tally.wanted, 80);
}

#[tokio::test]
async fn sigkill_in_the_middle_loses_nothing_and_repeats_only_identical_events() {
    let stream = Stream::create(Kafka::shared(), "sigkill", 3).await;
    stream.send(day_5_frames(12, 0..10));
    // The least that a broker allows: so long do the partitions wait for a member that died.
    let soon_missed = [("kafka.consumer_properties.session_timeout_ms", "6000")];
    for events in [20.0, 10.0] {
        let mut service = serve(&stream, &soon_missed);
        await_published(service.address(PATIENCE), events);
        service.signal("KILL");
        assert_eq!(service.end(PATIENCE).signal(), Some(9));
    }
    let mut service = serve(&stream, &[]);
    stream.await_committed(PATIENCE);
    stop_in_peace(&mut service);
    let tally = stream.check();
    eprintln!("sigkill: {tally:?}");
    assert_eq!((tally.wanted, tally.unwanted), (120, 360));
}

#[tokio::test]
async fn a_broker_that_restarts_is_survived_and_nothing_is_lost() {
    let mut kafka = Kafka::start();
    let stream = Stream::create(&kafka, "outage", 3).await;
    stream.send(day_5_frames(10, 0..5));
    let mut service = serve(&stream, &[]);
    let address = service.address(PATIENCE);
    await_published(address, 10.0);
    let (name, partitions) = (stream.name, stream.partitions);
    kafka.restart();
    let stream = Stream { kafka: &kafka, name, partitions };
    stream.send(day_5_frames(10, 5..8));
    stream.await_committed(PATIENCE);
    wait_for("readiness", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 200));
    stop_in_peace(&mut service);
    let tally = stream.check();
    eprintln!("outage: {tally:?}");
    assert_eq!(tally.wanted, 80);
}

#[tokio::test]
async fn a_stream_of_which_nothing_is_wanted_is_committed_while_it_runs() {
    let stream = Stream::create(Kafka::shared(), "skipped", 3).await;
    stream.send(skipped_frames(20, 0..50));
    let mut service = serve(&stream, &[]);
    stream.await_committed(PATIENCE);
    assert_eq!(metric(service.address(PATIENCE), "memebg_frames_skipped_total"), Some(4_000.0));
    stop_in_peace(&mut service);
    assert_eq!(stream.check().wanted, 0);
}

#[tokio::test]
async fn a_broker_that_is_late_is_waited_for_and_the_probes_say_so() {
    let mut kafka = Kafka::start();
    let stream = Stream::create(&kafka, "late", 2).await;
    stream.send(day_5_frames(2, 0..2));
    let options = stream.options();
    let (name, partitions) = (stream.name, stream.partitions);
    kafka.stop();
    let options: Vec<(&str, &str)> =
        options.iter().map(|(option, value)| (*option, value.as_str())).collect();
    let mut service = Memebg::start(&["serve"], &options);
    let address = service.address(PATIENCE);
    let unready = |reason: &str| {
        wait_for(reason, PATIENCE, || get(address, "/readyz").filter(|(_, said)| said.trim() == reason))
    };
    assert_eq!(unready("no broker answers").0, 503);
    assert_eq!(get(address, "/livez").expect("an answer").0, 200);

    kafka.start_again();
    wait_for("readiness", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 200));
    let stream = Stream { kafka: &kafka, name, partitions };
    stream.await_committed(PATIENCE);
    stop_in_peace(&mut service);
    assert_eq!(stream.check().wanted, 4);
}

#[tokio::test]
async fn sigterm_while_the_broker_is_away_ends_in_time_and_loses_nothing() {
    for delivery in ["at_least_once", "exactly_once"] {
        let mut kafka = Kafka::start();
        let stream = Stream::create(&kafka, "away", 2).await;
        stream.send(day_5_frames(10, 0..4));
        let options = [
            ("kafka.delivery", delivery),
            ("kafka.drain_timeout_ms", "3000"),
            ("focus.max_wait_ms", "50"),
            // So long do the partitions wait: nobody is there to take the goodbye.
            ("kafka.consumer_properties.session_timeout_ms", "6000"),
        ];
        let mut service = serve(&stream, &options);
        let address = service.address(PATIENCE);
        await_published(address, 5.0);
        let (name, partitions) = (stream.name, stream.partitions);
        kafka.stop();
        wait_for("unreadiness", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 503));
        service.signal("TERM");
        let status = service.end(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "{}", service.log());
        service.balance();

        kafka.start_again();
        let stream = Stream { kafka: &kafka, name, partitions };
        let mut service = serve(&stream, &[("kafka.delivery", delivery)]);
        stream.await_committed(PATIENCE);
        stop_in_peace(&mut service);
        assert_eq!(stream.check().wanted, 40);
    }
}

#[tokio::test]
async fn frames_that_cannot_be_published_in_time_end_the_service_with_code_3() {
    let kafka = Kafka::start();
    let stream = Stream::create(&kafka, "gone", 2).await;
    stream.send(day_5_frames(10, 0..10));
    let all_at_once = ("flow.max_in_flight_frames", "200");
    let mut service = serve(&stream, &[("kafka.delivery_timeout_ms", "2000"), all_at_once]);
    await_published(service.address(PATIENCE), 5.0);
    // Stopped meanwhile, so that the broker is gone before the other frames are graded, however fast that is.
    service.signal("STOP");
    drop(kafka);
    service.signal("CONT");
    let status = service.end(DRAIN_TIMEOUT);
    assert_eq!(status.code(), Some(3), "{}", service.log());
}

/// Good frames around one that cannot be graded, while the dead-letter topic takes nothing.
async fn a_dead_letter_that_is_not_confirmed(delivery: &str) {
    let kafka = Kafka::shared();
    let stream = Stream { kafka, name: format!("unconfirmed-{delivery}"), partitions: 1 };
    kafka.create_topic(&stream.frames(), 1, &[]).await;
    kafka.create_topic(&stream.grades(), 1, &[]).await;
    // Less than the smallest letter needs: nothing sent there is ever confirmed.
    kafka.create_topic(&stream.dead_letters(), 1, &[("max.message.bytes", "60")]).await;
    stream.send(day_5_frames(2, 0..1));
    let poison = stream.ends_of_frames()[&0];
    stream.send(poison_frames(0..1));
    stream.send(day_5_frames(2, 1..2));
    let options = [("kafka.delivery", delivery), ("kafka.delivery_timeout_ms", "4000")];
    let mut service = serve(&stream, &options);
    let status = service.end(PATIENCE);
    assert_eq!(status.code(), Some(3), "{}", service.log());
    let committed = stream.committed()[&0];
    assert!(committed <= poison, "{committed} is committed, and the frame at {poison} has no dead letter");

    kafka.set_topic(&stream.dead_letters(), ("max.message.bytes", "1048588")).await;
    let mut service = serve(&stream, &options);
    stream.await_committed(PATIENCE);
    stop_in_peace(&mut service);
    let tally = stream.check();
    assert_eq!((tally.wanted, tally.dead_lettered), (4, 1));
}

#[tokio::test]
async fn the_watermark_does_not_pass_a_dead_letter_that_is_not_confirmed() {
    a_dead_letter_that_is_not_confirmed("at_least_once").await;
}

#[tokio::test]
async fn nor_does_a_transaction() {
    a_dead_letter_that_is_not_confirmed("exactly_once").await;
}

#[tokio::test]
async fn a_shadow_whose_topic_is_missing_costs_no_grade_and_does_not_hold_up_the_end() {
    let stream = Stream::create(Kafka::shared(), "shadowless", 2).await;
    stream.send(day_5_frames(4, 0..4));
    let bundle = common::bundle::demo();
    let shadow = ("shadow.bundle", bundle.to_str().expect("UTF-8"));
    let mut service = serve(&stream, &[shadow, ("shadow.topic", "shadowless.missing")]);
    stream.await_committed(PATIENCE);
    let address = service.address(PATIENCE);
    wait_for("failures of the shadow", PATIENCE, || {
        metric(address, "memebg_shadow_frames_total{result=\"failed\"}").filter(|failed| *failed > 0.0)
    });
    service.logged("shadow bundle failed", PATIENCE);
    stop_in_peace(&mut service);
    let tally = stream.check();
    assert_eq!((tally.wanted, tally.repeated), (16, 0), "{tally:?}");
}

#[tokio::test]
async fn a_bundle_that_is_reloaded_in_the_middle_of_transactions_loses_and_repeats_nothing() {
    let stream = Stream::create(Kafka::shared(), "reloaded", 2).await;
    stream.send(day_5_frames(8, 0..6));
    let folder = tempfile::tempdir().expect("a folder");
    copy_without_limits(folder.path());
    let bundle = folder.path().to_str().expect("UTF-8");
    let mut service = serve(&stream, &[("kafka.delivery", "exactly_once"), ("model.bundle", bundle)]);
    let address = service.address(PATIENCE);
    await_published(address, 4.0);
    let manifest = folder.path().join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, text.replacen('{', "{ ", 1)).expect("another digest");
    service.signal("HUP");
    wait_for("the new bundle", PATIENCE, || {
        metric(address, "memebg_model_reloads_total{result=\"switched\"}").filter(|switched| *switched > 0.0)
    });
    stream.await_committed(PATIENCE);
    stop_in_peace(&mut service);
    let tally = stream.check();
    assert_eq!((tally.wanted, tally.repeated), (48, 0), "{tally:?}");
}

#[test]
fn an_option_that_nobody_knows_ends_the_program_with_code_2() {
    for mut program in [
        Memebg::start(&["serve", "--min-hip"], &[]),
        Memebg::start(&["serve", "--set", "select.min_hip=110"], &[]),
        Memebg::start(&["serve"], &[("select.min_hip", "110")]),
    ] {
        assert_eq!(program.end(PATIENCE).code(), Some(2), "{}", program.log());
        assert!(program.log().contains("hip"), "{}", program.log());
    }
}

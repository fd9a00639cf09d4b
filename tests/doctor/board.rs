//! What lacks for `memebg board`.

use std::net::TcpListener;

use crate::PATIENCE;
use crate::beside::{Clinic, nobody};
use crate::common::kafka::Kafka;
use crate::diagnosis::run;
use crate::process::Memebg;
use crate::secured::Operation::{Describe, Read, Write};
use crate::secured::Resource::{Group, Topic};
use crate::secured::Secured;

const TOKEN: &str = "Hidden-Horse";

#[tokio::test]
async fn a_topic_that_is_missing_a_token_that_is_none_and_a_bundle_for_the_maps_are_named() {
    let clinic = Clinic::open_but(Kafka::shared(), "page", &["reviews", "frames"]).await;
    let found = clinic.look("board", &[]);
    found.only_fails(&["kafka.frames_topic", "reviews.topic"], 1);
    found.says("reviews.topic", "fail", &["page.reviews", "(reviews.topic)", "create it"]);
    found.says("board.write", "skipped", &[]);
    found.says("board.lag", "skipped", &["see kafka.frames_topic"]);

    let clinic = Clinic::open(Kafka::shared(), "wall").await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN).expect("written");
    let short = token.path().to_str().expect("UTF-8");
    for (file, words) in [
        ("no/such/token", &["no/such/token", "board.token_file"][..]),
        (short, &["fewer than 24", "openssl"]),
    ] {
        let found = clinic.look("board", &[("board.auth", "token"), ("board.token_file", file)]);
        found.only_fails(&["board.access"], 1);
        found.says("board.access", "fail", words);
        assert!(!found.text.contains(TOKEN), "{}", found.text);
    }

    let bundle = ("model.bundle", "no/such/bundle");
    let found = clinic.look("board", &[bundle]);
    assert_eq!((found.code, found.with_status("fail")), (0, vec![]), "no maps are wanted: {}", found.text);
    let found = clinic.look("board", &[bundle, ("board.heat_maps", "true")]);
    found.only_fails(&["bundle"], 1);
    found.says("bundle", "fail", &["no/such/bundle/manifest.json"]);
    found.says("board.heat_maps", "skipped", &[]);
    let found = clinic.look("board", &[("board.heat_maps", "true"), ("model.device", "cuda")]);
    found.only_fails(&["device"], 1);
}

#[tokio::test]
async fn an_address_that_is_taken_or_open_to_all_is_named() {
    let clinic = Clinic::open(Kafka::shared(), "door").await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address").to_string();
    let found = clinic.look("board", &[("board.listen", &listen)]);
    found.only_fails(&["board.listen"], 1);
    found.says("board.listen", "fail", &[&listen, "another program", "set board.listen"]);

    let one = nobody();
    let found = clinic.look("board", &[("board.listen", &one), ("telemetry.listen", &one)]);
    found.only_fails(&["board.listen"], 1);
    found.says("board.listen", "fail", &["telemetry.listen too"]);

    // As the board itself would say it, before anything is looked at.
    let open = run(&["--of", "board"], &[("board.listen", "0.0.0.0:9465")]);
    let said = String::from_utf8_lossy(&open.stderr).into_owned();
    assert_eq!(open.status.code(), Some(2), "{said}");
    assert!(said.contains("board.listen 0.0.0.0:9465") && said.contains("board.auth"), "{said}");
}

#[tokio::test]
async fn a_board_that_runs_is_told_from_another_program() {
    let clinic = Clinic::open(Kafka::shared(), "open").await;
    let [listen, brokers] = [nobody(), clinic.stream.kafka.bootstrap()];
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN.repeat(3)).expect("written");
    let token = token.path().to_str().expect("UTF-8");
    for auth in [
        &[("board.auth", "none")][..],
        &[("board.auth", "token"), ("board.token_file", token)],
        &[("board.auth", "proxy_headers"), ("board.proxy_addresses", r#"["192.0.2.1"]"#)],
    ] {
        let mut options = vec![
            ("kafka.brokers", brokers.as_str()),
            ("board.listen", &listen),
            ("telemetry.listen", "127.0.0.1:0"),
            ("telemetry.log_format", "json"),
        ];
        options.extend(auth);
        let process = Memebg::start(&["board"], &options);
        process.logged("board", PATIENCE);
        let mut options = vec![("board.listen", listen.as_str())];
        options.extend(auth);
        let found = clinic.look("board", &options);
        assert_eq!(found.code, 0, "{}", found.text);
        found.says("board.listen", "warn", &["running memebg"]);
        drop(process);
    }
}

#[tokio::test]
async fn the_acls_of_the_readme_are_enough_and_one_that_is_missing_is_named_with_what_to_grant() {
    let broker = Secured::shared();
    for (name, left_out, check, status, words) in [
        ("wall-all", "", "board.lag", "ok", &["frames to read"][..]),
        ("wall-read", "summaries", "board.read", "fail", &["wall-read.summaries", "grant READ"]),
        ("wall-write", "reviews", "reviews.topic", "fail", &["wall-write.reviews", "grant WRITE"]),
        ("wall-lag", "group", "board.lag", "warn", &["group wall-lag", "grant DESCRIBE"]),
    ] {
        let clinic = Clinic::open(&broker.kafka, name).await;
        for topic in ["frames", "grades", "summaries", "dead"] {
            let all = if topic == left_out { &[Describe][..] } else { &[Read, Describe] };
            broker.allow(Topic, &clinic.topic(topic), all);
        }
        if left_out != "reviews" {
            broker.allow(Topic, &clinic.topic("reviews"), &[Write, Describe]);
        }
        if left_out != "group" {
            broker.allow(Group, name, &[Describe]);
        }
        // Whoever may write to no topic at all would be given no producer id either.
        broker.allow(Topic, &clinic.topic("bundles"), &[Write]);
        let found = clinic.look_secured(broker, "board", &[]);
        found.says(check, status, words);
        let failing: Vec<&str> = (status == "fail").then_some(check).into_iter().collect();
        assert_eq!(found.with_status("fail"), failing, "{left_out}: {}", found.text);
    }
}

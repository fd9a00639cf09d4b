//! `memebg emr` between a real Kafka and FHIR servers: one by HAPI FHIR, and one that answers what a test wants.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/fhir.rs"]
mod reference;
#[path = "common/scripted_fhir.rs"]
mod scripted;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use common::kafka::{Kafka, free_ports};
use common::published::Published;
use common::service::header;
use memebg::domain::EmbryoSummary;
use process::{Memebg, get, metric, wait_for};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use reference::{FhirServer, STORE_PASSWORD, certificate};
use scripted::{Script, ScriptedFhir};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: usize = 4;

/// Topics of one test.
struct Feed {
    kafka: &'static Kafka,
    name: &'static str,
}

impl Feed {
    async fn create(name: &'static str) -> Self {
        let feed = Self { kafka: Kafka::shared(), name };
        let compact = [("cleanup.policy", "compact")];
        feed.kafka.create_topic(&feed.topic("summaries"), PARTITIONS, &compact).await;
        feed.kafka.create_topic(&feed.topic("dlq"), 1, &[]).await;
        feed.kafka.create_topic(&feed.topic("bundles"), 1, &compact).await;
        feed
    }

    fn topic(&self, of: &str) -> String {
        format!("{}.{of}", self.name)
    }

    fn emr(&self, more: &[(&str, &str)]) -> Memebg {
        let brokers = self.kafka.bootstrap();
        let [summaries, letters] = ["summaries", "dlq"].map(|of| self.topic(of));
        let mut options = vec![
            ("kafka.brokers", brokers.as_str()),
            ("kafka.group_id", self.name),
            ("kafka.dead_letters_topic", &letters),
            ("kafka.commit_interval_ms", "200"),
            ("kafka.consumer_properties.session_timeout_ms", "6000"),
            ("kafka.consumer_properties.statistics_interval_ms", "200"),
            ("summaries.topic", &summaries),
            ("emr.backoff_ms", "50"),
            ("emr.max_backoff_ms", "500"),
            ("telemetry.listen", "127.0.0.1:0"),
            ("telemetry.log_format", "json"),
        ];
        options.extend(more);
        Memebg::start(&["emr"], &options)
    }

    fn send<'a>(&self, summaries: impl IntoIterator<Item = &'a EmbryoSummary>) {
        let values = summaries.into_iter().map(|it| (&it.embryo_id, serde_json::to_vec(it).expect("JSON")));
        let values: Vec<_> = values.collect();
        self.send_raw(values.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice()))));
    }

    fn send_raw<'a>(&self, records: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) {
        let mut client = self.kafka.client();
        client.set("partitioner", "murmur2_random").set("enable.idempotence", "true");
        let producer: BaseProducer = client.create().expect("a producer");
        let topic = self.topic("summaries");
        for (key, value) in records {
            let mut record = BaseRecord::<[u8], [u8]>::to(&topic).key(key.as_bytes());
            record.payload = value;
            producer.send(record).map_err(|(error, _)| error).expect("there is room");
        }
        producer.flush(PATIENCE).expect("confirmed");
    }

    /// The first `count` messages of a topic.
    fn read(&self, of: &str, count: usize) -> Vec<memebg::pipeline::message::RawMessage> {
        let published = Published::follow(&self.kafka.client(), &[&self.topic(of)]);
        let all = |found: &[_]| (found.len() >= count).then(|| found.to_vec());
        published.wait_for(PATIENCE, all).unwrap_or_else(|| panic!("no {count} messages in {of}"))
    }
}

fn example(name: &str) -> EmbryoSummary {
    let file = format!("{}/schemas/examples/summary/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(file).expect("an example")).expect("a summary")
}

/// This version of so many embryos.
fn summaries(embryos: std::ops::Range<usize>, version: u64) -> Vec<EmbryoSummary> {
    let names = ["all_abstained", "final", "amended"];
    let of = |embryo: usize| EmbryoSummary {
        embryo_id: format!("E-{embryo:04}"),
        version,
        ..example(names[(embryo + usize::try_from(version).expect("small")) % names.len()])
    };
    embryos.map(of).collect()
}

/// The last version that each embryo has in a server that notes them.
fn last(server: &ScriptedFhir) -> BTreeMap<String, u64> {
    let taken = server.taken();
    for (embryo, versions) in &taken {
        assert!(
            versions.is_sorted(),
            "{embryo}: an older version was written over a newer one: {versions:?}"
        );
    }
    taken.into_iter().filter_map(|(embryo, versions)| Some((embryo, *versions.last()?))).collect()
}

fn versions(summaries: &[EmbryoSummary]) -> BTreeMap<String, u64> {
    summaries.iter().map(|it| (it.embryo_id.clone(), it.version)).collect()
}

/// Status and body of the readiness probe.
fn ready(process: &Memebg) -> (u16, String) {
    get(process.address(PATIENCE), "/readyz").unwrap_or_default()
}

fn end_in_peace(process: &mut Memebg) {
    process.signal("TERM");
    assert!(process.end(PATIENCE).success(), "{}", process.log());
}

/// Every resource of a server: its place with its version, and what it says.
async fn resources(client: &reqwest::Client, base: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for kind in ["Specimen", "Device", "Observation", "Provenance"] {
        let url = format!("{base}/{kind}?_count=500");
        let answer = client.get(&url).send().await.expect("it answers").bytes().await.expect("a body");
        let bundle: Value = serde_json::from_slice(&answer).expect("JSON");
        for entry in bundle["entry"].as_array().into_iter().flatten() {
            let resource = &entry["resource"];
            assert_eq!(resource["resourceType"], kind, "{bundle:#}");
            let version = resource["meta"]["versionId"].as_str().expect("a version");
            let id = resource["id"].as_str().expect("an id");
            found.insert(format!("{kind}/{id}/{version}"), resource.clone());
        }
    }
    found
}

fn delivered(process: &Memebg) -> f64 {
    let (_, text) = get(process.address(PATIENCE), "/metrics").expect("metrics");
    let line = text.lines().find(|line| line.contains(r#"emr_summaries_total{result="delivered"}"#));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a number")
}

fn await_delivered(process: &Memebg, at_least: f64) {
    wait_for("deliveries", PATIENCE, || (delivered(process) >= at_least).then_some(()));
}

#[tokio::test]
async fn a_real_server_is_brought_to_the_newest_version_once_and_loses_nothing_while_it_is_away() {
    let feed = Feed::create("emr-real").await;
    let [port] = free_ports();
    let mut server = FhirServer::start("R4", port, None);
    let base = server.base();
    // Its connections do not outlive the server.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
    let mut first = summaries(0..5, 1);
    // Characters that mean something in a search.
    first.push(EmbryoSummary {
        embryo_id: r"odd|E-0001,E-0002$&=#%\é?/+".replace('é', "e"),
        ..first[1].clone()
    });
    feed.send(&first);
    let mut process = feed.emr(&[("emr.server", &base)]);
    await_delivered(&process, 6.0);
    let once = resources(&client, &base).await;
    // Specimen, four observations and provenance each; all share the device.
    assert_eq!(once.len(), 6 * 6 + 1, "{:#?}", once.keys());
    end_in_peace(&mut process);

    // A group that has sent nothing sends everything again.
    let mut process = feed.emr(&[("emr.server", &base), ("emr.group_id", "emr-real-again")]);
    await_delivered(&process, 6.0);
    assert_eq!(resources(&client, &base).await, once, "posting twice changes nothing");

    let second = summaries(0..5, 2);
    feed.send(&second);
    await_delivered(&process, 11.0);
    let twice = resources(&client, &base).await;
    assert_eq!(twice.len(), once.len(), "updated in place");
    let of = |all: &BTreeMap<String, Value>, kind: &str, version: &str| {
        all.keys().filter(|it| it.starts_with(kind) && it.ends_with(version)).count()
    };
    assert_eq!((of(&twice, "Observation", "/2"), of(&twice, "Observation", "/1")), (20, 4));
    assert_eq!((of(&twice, "Specimen", "/1"), of(&twice, "Device", "/1")), (6, 1), "not touched");

    server.stop();
    let third = summaries(0..9, 3);
    feed.send(&third);
    wait_for("it says that it waits", PATIENCE, || {
        let (status, why) = ready(&process);
        (status == 503 && why.contains("cannot be reached")).then_some(())
    });
    assert_eq!(
        get(process.address(PATIENCE), "/livez").map(|it| it.0),
        Some(200),
        "a restart would not help"
    );
    server.start_again();
    await_delivered(&process, 20.0);
    let thrice = resources(&client, &base).await;
    assert_eq!(of(&thrice, "Specimen", ""), 10);
    assert_eq!(of(&thrice, "Provenance", "/3"), 5);
    wait_for("it is ready again", PATIENCE, || (ready(&process).0 == 200).then_some(()));
    end_in_peace(&mut process);
}

#[tokio::test]
async fn a_real_r5_server_is_spoken_to_over_tls_and_to_no_other_authority() {
    let feed = Feed::create("emr-r5").await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = certificate(folder.path(), "server");
    certificate(folder.path(), "stranger");
    let authority =
        |name: &str| folder.path().join(format!("{name}.pem")).to_str().expect("UTF-8").to_owned();
    let [port] = free_ports();
    let tls = (store.to_str().expect("UTF-8").to_owned(), STORE_PASSWORD.to_owned());
    let server = FhirServer::start("R5", port, Some(tls));
    let base = server.base();
    let (right, wrong) = (authority("server"), authority("stranger"));
    let options = |ca| [("emr.server", base.as_str()), ("emr.version", "R5"), ("emr.ca_file", ca)];
    feed.send(&summaries(0..3, 1));
    let mut process = feed.emr(&options(wrong.as_str()));
    wait_for("it does not trust it", PATIENCE, || {
        let (status, why) = ready(&process);
        (status == 503 && why.to_lowercase().contains("certificate")).then_some(())
    });
    end_in_peace(&mut process);
    let mut process = feed.emr(&options(right.as_str()));
    await_delivered(&process, 3.0);
    let pem = std::fs::read(&right).expect("a certificate");
    let pem = reqwest::Certificate::from_pem(&pem).expect("PEM");
    let client = reqwest::Client::builder().tls_certs_only([pem]).build().expect("a client");
    let once = resources(&client, &base).await;
    assert_eq!(once.len(), 3 * 6 + 1);
    end_in_peace(&mut process);
    let mut process = feed.emr(&[&options(right.as_str())[..], &[("emr.group_id", "emr-r5-again")]].concat());
    await_delivered(&process, 3.0);
    assert_eq!(resources(&client, &base).await, once, "posting twice changes nothing");
    end_in_peace(&mut process);
}

#[tokio::test]
async fn what_may_pass_is_waited_for_and_what_is_refused_becomes_a_dead_letter_without_ids() {
    let feed = Feed::create("emr-refused").await;
    let outcome = |text: &str| {
        serde_json::json!({
            "resourceType": "OperationOutcome",
            "issue": [{ "severity": "error", "code": "processing", "diagnostics": text }],
        })
        .to_string()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "Secret_7\n").expect("a token");
    let server = ScriptedFhir::start(Script::Say(401, "", outcome("who are you?")));
    let base = server.base();
    let mut process = feed.emr(&[
        ("emr.server", &base),
        ("emr.token_file", token.to_str().expect("UTF-8")),
        ("emr.topic", &feed.topic("bundles")),
    ]);
    feed.send(&summaries(0..1, 1));
    for (script, why) in [
        (Script::Say(401, "", outcome("who are you?")), "check emr.token_file"),
        (Script::Say(503, "", String::new()), "says 503"),
        (Script::Say(200, "", "<html>log in</html>".into()), "is no FHIR transaction"),
        (Script::Say(302, "Location: http://example.org/\r\n", String::new()), "where it leads"),
        (Script::Say(404, "", String::new()), "is the base URL"),
    ] {
        server.say(script);
        wait_for(why, PATIENCE, || (ready(&process).1.contains(why)).then_some(()));
    }
    assert_eq!(delivered(&process), 0.0);
    // For as long as the server asks for.
    server.say(Script::Say(429, "Retry-After: 3\r\n", String::new()));
    wait_for("429", PATIENCE, || ready(&process).1.contains("says 429").then_some(()));
    let asked = server.requests().last().expect("a request").0;
    server.say(Script::Take);
    await_delivered(&process, 1.0);
    let (came, head) = server.requests().last().expect("a request").clone();
    assert!(came - asked >= Duration::from_millis(2_900), "{:?}", came - asked);
    assert!(head.contains("authorization: bearer secret_7"), "{head}");
    assert!(head.contains("content-type: application/fhir+json; fhirversion=4.0"), "{head}");

    // Refused, and unreadable: dead letters, and what follows goes on.
    server.say(Script::Say(422, "", outcome("Specimen/4711 of E-0001 is not liked")));
    feed.send(&summaries(1..2, 1));
    let letters = feed.read("dlq", 1);
    server.say(Script::Take);
    feed.send_raw([("E-0002", Some(b"{\"embryo_id\":".as_slice())), ("E-0003", None)]);
    feed.send(&summaries(4..5, 1));
    await_delivered(&process, 2.0);
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(b"E-0001".as_slice()));
    assert_eq!(header(letter, "memebg.error.code"), Some("emr_refused"));
    assert_eq!(header(letter, "__connect.errors.stage"), Some("PUBLISH"));
    assert_eq!(header(letter, "__connect.errors.topic"), Some(feed.topic("summaries").as_str()));
    let why = header(letter, "__connect.errors.exception.message").expect("a reason");
    assert_eq!(why, "the FHIR server says 422 (processing: Specimen/# of # is not liked)");
    assert_eq!(header(&feed.read("dlq", 2)[1], "memebg.error.code"), Some("invalid_json"));
    let bundles = feed.read("bundles", 2);
    assert_eq!(header(&bundles[0], "ce_id"), Some("E-0000/1"));
    let bundle: Value = serde_json::from_slice(bundles[0].value.as_deref().expect("a value")).expect("JSON");
    assert_eq!(bundle["type"], "transaction");
    end_in_peace(&mut process);
    assert!(!process.log().contains("Secret_7") && !process.log().contains("E-0001"), "{}", process.log());
    // All of it is committed: a process that starts anew finds nothing to do.
    let before = server.requests().len();
    let mut process = feed.emr(&[("emr.server", &base)]);
    feed.send(&summaries(5..6, 1));
    await_delivered(&process, 1.0);
    assert_eq!(server.requests().len(), before + 1);
    end_in_peace(&mut process);
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_loses_no_embryo_and_turns_none_back() {
    let feed = Feed::create("emr-killed").await;
    let server = ScriptedFhir::start(Script::TakeSlowly(Duration::from_millis(100)));
    let base = server.base();
    // What was committed too early would be lost.
    let options = [("emr.server", base.as_str()), ("kafka.commit_interval_ms", "20")];
    for version in 1..5 {
        feed.send(&summaries(0..40, version));
        let before = server.requests().len();
        let mut process = feed.emr(&options);
        wait_for("some are sent", PATIENCE, || (server.requests().len() > before + 10).then_some(()));
        process.signal("KILL");
        assert_eq!(process.end(PATIENCE).signal(), Some(9));
    }
    let newest = versions(&summaries(0..40, 4));
    assert_ne!(newest_of(&server), newest, "killed in the middle");
    // Nothing more comes: what is missing has to be read again.
    let mut process = feed.emr(&options);
    wait_for("the newest of every embryo", PATIENCE, || (newest_of(&server) == newest).then_some(()));
    end_in_peace(&mut process);
}

/// As [`last`], where a process that was killed is read again from what it had committed: its successor repeats
/// versions, and ends with the newest.
fn newest_of(server: &ScriptedFhir) -> BTreeMap<String, u64> {
    server.taken().into_iter().filter_map(|(embryo, versions)| Some((embryo, *versions.last()?))).collect()
}

#[tokio::test]
async fn only_the_newest_is_sent_after_an_outage_and_partitions_may_move_meanwhile() {
    let feed = Feed::create("emr-outage").await;
    let server = ScriptedFhir::start(Script::Say(503, "", String::new()));
    let base = server.base();
    let options = [("emr.server", base.as_str())];
    let mut first = feed.emr(&options);
    for version in 1..6 {
        feed.send(&summaries(0..20, version));
    }
    let waiting = |process: &Memebg| metric(process.address(PATIENCE), "memebg_emr_waiting_summaries");
    wait_for("all is read", PATIENCE, || (waiting(&first) == Some(20.0)).then_some(()));
    let mut second = feed.emr(&options);
    second.logged("partitions assigned", PATIENCE);
    wait_for("partitions moved", PATIENCE, || {
        let (first, second) = (waiting(&first)?, waiting(&second)?);
        (second > 0.0 && first + second >= 20.0).then_some(())
    });
    server.say(Script::Take);
    wait_for("the newest of every embryo", PATIENCE, || {
        (last(&server) == versions(&summaries(0..20, 5))).then_some(())
    });
    let sent: usize = server.taken().values().map(Vec::len).sum();
    assert!(sent <= 40, "{sent} of 100: old versions were not passed over");
    end_in_peace(&mut first);
    end_in_peace(&mut second);
}

#[test]
fn without_anywhere_to_go_it_does_not_start() {
    let mut process = Memebg::start(&["emr"], &[]);
    assert_eq!(process.end(PATIENCE).code(), Some(2));
    assert!(process.log().contains("neither emr.server nor emr.topic"), "{}", process.log());
}

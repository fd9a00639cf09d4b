//! What lacks for `memebg emr`. The FHIR server is a fake that says what a test wants.

use crate::beside::{CAPABLE, Clinic, nobody};
use crate::common::kafka::Kafka;
use crate::diagnosis::server;
use crate::scripted::{Script, ScriptedFhir};
use crate::secured::Operation::{Describe, Read, Write};
use crate::secured::Resource::{Group, Topic};
use crate::secured::Secured;

const TOKEN: &str = "Hidden-Horse";

#[tokio::test]
async fn a_fhir_server_that_cannot_be_used_is_named_with_what_it_says_and_no_token_is_printed() {
    let clinic = Clinic::open(Kafka::shared(), "fhir").await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), format!("{TOKEN}\n")).expect("written");
    let token = token.path().to_str().expect("UTF-8");
    let fhir = ScriptedFhir::start(Script::Say(200, "", CAPABLE.into()));
    let base = fhir.base();
    let options = [("emr.server", base.as_str()), ("emr.token_file", token)];
    let look = || {
        let found = clinic.look("emr", &options);
        assert!(!found.text.contains(TOKEN), "{}", found.text);
        found
    };
    let found = look();
    assert_eq!((found.code, found.with_status("fail")), (0, vec![]), "{}", found.text);
    found.says("emr.server", "ok", &["version 4.0.1", "the token was shown"]);
    let (_, head) = fhir.requests().pop().expect("a request");
    assert!(head.contains("authorization: bearer hidden-horse"), "{head}");

    let echo = format!("<p>{TOKEN} E-0001</p>");
    let of_version = |version: &str| CAPABLE.replace("4.0.1", version);
    let elsewhere = "Location: http://127.0.0.1:1/login\r\n";
    for (script, code, words) in [
        (Script::Say(401, "", echo.clone()), 1, &["says 401", "emr.token_file", "expired"][..]),
        (Script::Say(403, "", echo.clone()), 1, &["says 403", "emr.token_file"]),
        (Script::Say(404, "", echo.clone()), 1, &["says 404", "base URL"]),
        (Script::Say(302, elsewhere, String::new()), 1, &["says 302", "leads elsewhere", "base URL"]),
        (Script::Say(503, "", echo.clone()), 3, &["says 503", "summaries wait"]),
        (Script::Say(200, "", echo.clone()), 1, &["no FHIR server", "base URL"]),
        (Script::Say(200, "", r#"{"resourceType":"Bundle"}"#.into()), 1, &["no FHIR server"]),
        (Script::Say(200, "", of_version("5.0.0")), 1, &["version 5.0.0", "emr.version is R4"]),
        (Script::Say(200, "", of_version("3.0.2")), 1, &["version 3.0.2", "emr.version is R4"]),
    ] {
        fhir.say(script);
        let found = look();
        found.only_fails(&["emr.server"], code);
        found.says("emr.server", "fail", words);
        assert!(!found.text.contains("E-0001"), "{}", found.text);
    }
    fhir.say(Script::Say(200, "", CAPABLE.replace("transaction", "search-system")));
    let found = look();
    assert_eq!(found.code, 0, "{}", found.text);
    found.says("emr.server", "warn", &["does not say that it does transactions"]);
    fhir.say(Script::Say(200, "", of_version("5.0.0")));
    let found = clinic.look("emr", &[("emr.server", &base), ("emr.version", "R5")]);
    found.says("emr.server", "ok", &["version 5.0.0", "no token was shown"]);
}

#[tokio::test]
async fn a_server_that_is_away_or_not_trusted_and_files_that_cannot_be_used_are_told_apart() {
    let clinic = Clinic::open(Kafka::shared(), "files").await;
    let away = format!("http://{}/fhir", nobody());
    let found = clinic.look("emr", &[("emr.server", &away)]);
    found.only_fails(&["emr.server"], 3);
    found.says("emr.server", "fail", &["cannot be reached", "refused", "firewall"]);

    // Its certificate is what matters; that it speaks Kafka behind it comes later.
    let broker = Secured::shared();
    let tls = format!("https://{}/fhir", broker.bootstrap());
    let foreign = broker.foreign_authority();
    for others in [&[("emr.server", tls.as_str())][..], &[("emr.server", &tls), ("emr.ca_file", &foreign)]] {
        let found = clinic.look("emr", others);
        found.only_fails(&["emr.server"], 1);
        found.says("emr.server", "fail", &["no TLS connection", "certificate", "emr.ca_file"]);
    }
    let (plain, own) = (server("400 Bad Request", String::new()), broker.authority());
    let plain = plain.replace("http:", "https:");
    let found = clinic.look("emr", &[("emr.server", &plain), ("emr.ca_file", &own)]);
    found.only_fails(&["emr.server"], 1);
    found.says("emr.server", "fail", &["no TLS connection", "the port speaks TLS"]);
    let found = clinic.look("emr", &[("emr.server", &tls), ("emr.ca_file", &own)]);
    assert_eq!(found.with_status("fail"), ["emr.server"], "{}", found.text);
    assert!(!found.text.contains("certificate"), "its certificate is right: {}", found.text);

    let fhir = ScriptedFhir::start(Script::Say(200, "", CAPABLE.into())).base();
    for (option, file, words) in [
        ("emr.token_file", "no/such/token", &["no/such/token", "emr.token_file", "No such file"][..]),
        ("emr.ca_file", "no/such/ca.pem", &["no/such/ca.pem", "emr.ca_file"]),
        ("emr.ca_file", "Cargo.toml", &["Cargo.toml", "no PEM certificates"]),
    ] {
        let found = clinic.look("emr", &[("emr.server", &fhir), (option, file)]);
        found.only_fails(&["emr.server"], 2);
        found.says("emr.server", "fail", words);
    }
}

#[tokio::test]
async fn nowhere_to_send_to_and_a_topic_that_is_not_there_are_named() {
    let clinic = Clinic::open_but(Kafka::shared(), "nowhere", &["bundles"]).await;
    let found = clinic.look("emr", &[]);
    found.only_fails(&["emr.server"], 2);
    found.says("emr.server", "fail", &["neither emr.server nor emr.topic"]);
    let bundles = clinic.topic("bundles");
    let found = clinic.look("emr", &[("emr.topic", &bundles)]);
    found.only_fails(&["emr.topic"], 1);
    found.says("emr.topic", "fail", &["nowhere.bundles", "(emr.topic)", "create it"]);
    found.says("emr.server", "skipped", &[]);

    let clinic = Clinic::open_but(Kafka::shared(), "unfed", &["summaries"]).await;
    let bundles = clinic.topic("bundles");
    let found = clinic.look("emr", &[("emr.topic", &bundles)]);
    found.only_fails(&["summaries.topic"], 1);
    found.says("summaries.topic", "fail", &["unfed.summaries", "create it"]);
    found.says("emr.read", "skipped", &[]);
}

#[tokio::test]
async fn the_acls_of_the_readme_are_enough_and_one_that_is_missing_is_named_with_what_to_grant() {
    let broker = Secured::shared();
    for (name, left_out, failing, words) in [
        ("emr-all", "", &[][..], &[][..]),
        ("emr-read", "summaries", &["emr.read"], &["emr-read.summaries", "summaries.topic", "grant READ"]),
        ("emr-group", "group", &["emr.group"], &["emr-group-emr", "emr.group_id", "grant READ"]),
        ("emr-topic", "bundles", &["emr.topic"], &["emr-topic.bundles", "emr.topic", "grant WRITE"]),
    ] {
        let clinic = Clinic::open(&broker.kafka, name).await;
        broker.allow(Topic, &clinic.topic("dead"), &[Write, Describe]);
        let read = if left_out == "summaries" { &[Describe][..] } else { &[Read, Describe] };
        broker.allow(Topic, &clinic.topic("summaries"), read);
        if left_out != "bundles" {
            broker.allow(Topic, &clinic.topic("bundles"), &[Write, Describe]);
        }
        if left_out != "group" {
            broker.allow(Group, &format!("{name}-emr"), &[Read]);
        }
        let bundles = clinic.topic("bundles");
        let found = clinic.look_secured(broker, "emr", &[("emr.topic", &bundles)]);
        assert_eq!(found.with_status("fail"), failing, "{left_out}: {}", found.text);
        for check in failing {
            found.says(check, "fail", words);
        }
    }
}

//! A new model bundle: it takes over while frames are graded, or looks on as a shadow.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::bundle;
use common::frames::{self, Record};
use common::service::TestService;
use memebg::domain::GradeEvent;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Changes the manifest of a bundle as a deployment should, in one step, and returns the new digest.
fn change_manifest(bundle: &Path, change: impl FnOnce(&mut Value)) -> String {
    let path = bundle.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    let json = manifest.to_string();
    let staged = bundle.join("manifest.json.new");
    fs::write(&staged, &json).unwrap();
    fs::rename(staged, path).unwrap();
    hex::encode(Sha256::digest(json))
}

fn metric(service: &TestService, series: &str) -> u64 {
    let text = service.metrics.encode().unwrap();
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn send(service: &TestService, embryo_id: &str) {
    service.send(&Record::of(&frames::event(embryo_id)));
}

fn grade(service: &TestService, embryo_id: &str) -> GradeEvent {
    service.grades_of(embryo_id, 1).remove(0).1
}

fn hang_up() {
    let me = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &me]).status().unwrap().success());
}

const SWITCHED: &str = "memebg_model_reloads_total{result=\"switched\"}";
const REFUSED: &str = "memebg_model_reloads_total{result=\"refused\"}";

#[test]
fn a_new_bundle_takes_over_under_load_without_losing_or_mixing_anything() {
    let service = TestService::start(&["model.watch_seconds=1", "model.graders=2"]);
    let old = service.identity.model.digest.clone();
    let embryos = |from: usize, to: usize| (from..to).map(|number| format!("load-{number}"));
    embryos(0, 40).for_each(|embryo_id| send(&service, &embryo_id));
    grade(&service, "load-0");
    let new = change_manifest(&service.config.model.bundle, |manifest| manifest["version"] = json!("9.9"));

    // More arrive for as long as the new one is on its way.
    let mut sent = 40;
    service.wait_until("switched", || {
        send(&service, &format!("load-{sent}"));
        sent += 1;
        grade(&service, &format!("load-{}", sent - 20));
        metric(&service, SWITCHED) == 1
    });
    let after = sent + 10;
    embryos(sent, after).for_each(|embryo_id| send(&service, &embryo_id));
    let events: Vec<GradeEvent> = embryos(0, after).map(|embryo_id| grade(&service, &embryo_id)).collect();
    let mut versions = BTreeMap::new();
    for event in &events {
        *versions.entry((event.model.digest.as_str(), event.model.version.as_str())).or_insert(0) += 1;
    }
    let old_version = service.identity.model.version.as_str();
    let expected = [(old.as_str(), old_version), (new.as_str(), "9.9")];
    assert!(versions.len() == 2 && expected.iter().all(|of| versions.contains_key(of)), "{versions:?}");
    assert!(events[sent..].iter().all(|event| event.model.digest == new), "the old one is gone");
    let text = service.metrics.encode().unwrap();
    assert_eq!(text.matches("memebg_model_info{").count(), 1);
    assert!(text.contains(&new), "{text}");
}

#[test]
fn a_bundle_that_cannot_be_used_is_refused_and_the_old_one_grades_on() {
    let service = TestService::start(&[]);
    let old = service.identity.model.digest.clone();
    let bundle = service.config.model.bundle.clone();
    let good = fs::read(bundle.join("manifest.json")).unwrap();
    for (number, what) in ["a wrong digest", "a wrong length"].into_iter().enumerate() {
        change_manifest(&bundle, |manifest| match what {
            "a wrong digest" => manifest["files"]["multitask"]["sha256"] = json!("0".repeat(64)),
            _ => manifest["files"]["embedding"]["bytes"] = json!(1),
        });
        hang_up();
        service.wait_until("refused", || metric(&service, REFUSED) == number as u64 + 1);
        let embryo_id = format!("refused-{number}");
        send(&service, &embryo_id);
        assert_eq!(grade(&service, &embryo_id).model.digest, old, "{what}");
        fs::write(bundle.join("manifest.json"), &good).unwrap();
    }
    let new = change_manifest(&bundle, |manifest| manifest["version"] = json!("9.9"));
    hang_up();
    service.wait_until("switched", || metric(&service, SWITCHED) == 1);
    send(&service, "mended");
    assert_eq!(grade(&service, "mended").model.digest, new);
}

#[test]
fn a_shadow_grades_the_same_frames_into_metrics_and_its_own_topic_and_never_into_the_grades() {
    let shadow = bundle::demo();
    let service =
        TestService::start(&[&format!("shadow.bundle={}", shadow.display()), "shadow.max_waiting_frames=64"]);
    let used = &service.identity.model.digest;
    let shadow_digest = hex::encode(Sha256::digest(fs::read(shadow.join("manifest.json")).unwrap()));
    assert_ne!(used, &shadow_digest);
    for number in 0..8 {
        send(&service, &format!("shade-{number}"));
    }
    for number in 0..8 {
        assert_eq!(&grade(&service, &format!("shade-{number}")).model.digest, used);
    }
    let seen = |result: &str| metric(&service, &format!("memebg_shadow_frames_total{{result=\"{result}\"}}"));
    service.wait_until("seen by the shadow", || seen("graded") + seen("abstained") == 8);
    // The photograph is a drawn blastocyst and the networks are the same: they agree.
    let agreement = |head: &str, agrees: &str| {
        metric(&service, &format!("memebg_shadow_agreement_total{{agrees=\"{agrees}\",head=\"{head}\"}}"))
    };
    assert_eq!((agreement("exp", "yes"), agreement("exp", "no")), (seen("graded"), 0));
    let events = service.read_topic(&service.config.shadow.topic, 8);
    for event in &events {
        let event: GradeEvent = serde_json::from_slice(event.value.as_deref().unwrap()).unwrap();
        assert_eq!(event.model.digest, shadow_digest);
    }
}

#[test]
fn nothing_waits_for_a_shadow_that_cannot_keep_up() {
    let shadow = format!("shadow.bundle={}", bundle::demo().display());
    let service = TestService::start(&[&shadow, "shadow.max_waiting_frames=1", "model.graders=2"]);
    (0..40).for_each(|number| send(&service, &format!("many-{number}")));
    (0..40).for_each(|number| drop(grade(&service, &format!("many-{number}"))));
    let of = |result: &str| metric(&service, &format!("memebg_shadow_frames_total{{result=\"{result}\"}}"));
    service.wait_until("accounted for", || {
        ["graded", "abstained", "failed", "dropped"].iter().map(|result| of(result)).sum::<u64>() == 40
    });
    assert!(of("dropped") > 0);
}

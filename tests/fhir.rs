//! What memebg says to EMRs is what HL7's own validator and a second implementation of FHIR take for FHIR.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "common/fhir.rs"]
mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memebg::domain::{EmbryoSummary, Expansion, GradeClass as _, Letter, SummaryAssessment};
use memebg::fhir::{FhirVersion, bundle};
use serde_json::{Value, json};

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(path)
}

/// Every example, and what no example has.
fn summaries() -> BTreeMap<String, EmbryoSummary> {
    let files = folder("examples/summary").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let summary = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), summary)
    };
    let mut summaries: BTreeMap<String, EmbryoSummary> = files.map(read).collect();
    let graded = summaries["final"].clone();
    let mut early = graded.clone();
    let heads = early.heads.as_mut().unwrap();
    (heads.exp.grade, heads.icm, heads.te) = (Expansion::E2, None, None);
    early.gardner = Some("2".into());
    summaries.insert("early".into(), early);
    let mut untrained = graded.clone();
    untrained.models[0].untrained = true;
    summaries.insert("untrained".into(), untrained);
    let mut nothing = summaries["all_abstained"].clone();
    (nothing.models, nothing.contributions) = (Vec::new(), Vec::new());
    summaries.insert("nothing".into(), nothing);
    let mut agreed = summaries["amended"].clone();
    agreed.assessment = SummaryAssessment::Final;
    summaries.insert("agreed".into(), agreed);
    // Every grade there is.
    for (index, (exp, letter)) in Expansion::ALL.iter().zip(Letter::ALL.iter().cycle()).enumerate() {
        let mut other = graded.clone();
        let heads = other.heads.as_mut().unwrap();
        heads.exp.grade = *exp;
        heads.icm = heads.icm.take().filter(|_| exp.has_letters());
        heads.te = heads.te.take().filter(|_| exp.has_letters());
        for head in [&mut heads.icm, &mut heads.te].into_iter().flatten() {
            head.grade = *letter;
        }
        other.gardner = Some(heads.gardner());
        summaries.insert(format!("grade_{index}"), other);
    }
    summaries
}

fn bundles(version: FhirVersion) -> BTreeMap<String, Value> {
    let at = "2026-03-02T09:00:00.250Z".parse().unwrap();
    summaries().into_iter().map(|(name, summary)| (name, bundle(&summary, at, version))).collect()
}

fn written(folder: &Path, bundles: &BTreeMap<String, Value>) -> Vec<PathBuf> {
    let file = |(name, bundle): (&String, &Value)| {
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, bundle.to_string()).unwrap();
        path
    };
    bundles.iter().map(file).collect()
}

/// The observation of the Gardner grade, to be spoilt.
fn gardner(bundle: &mut Value) -> &mut Value {
    let entries = bundle["entry"].as_array_mut().unwrap();
    let of = |entry: &&mut Value| entry["resource"]["code"]["coding"][0]["code"] == "gardner";
    &mut entries.iter_mut().find(of).unwrap()["resource"]
}

/// Bundles that are wrong in one thing each, with a word of what HL7's validator has to say of it.
fn spoilt(version: FhirVersion) -> BTreeMap<String, (Value, &'static str)> {
    let spoil = |name: &str, word, change: &dyn Fn(&mut Value)| {
        let mut bundle = bundles(version).remove("final").unwrap();
        change(&mut bundle);
        (format!("spoilt_{name}"), (bundle, word))
    };
    BTreeMap::from([
        spoil("status", "prelim", &|it| gardner(it)["status"] = json!("prelim")),
        spoil("no_code", "code", &|it| drop(gardner(it).as_object_mut().unwrap().remove("code"))),
        spoil("grade", "7AB", &|it| {
            gardner(it)["valueCodeableConcept"]["coding"][0] =
                json!({ "system": "https://memebg.org/fhir/CodeSystem/gardner-grade", "code": "7AB" });
        }),
        spoil("both", "dataAbsentReason", &|it| {
            gardner(it)["dataAbsentReason"] = json!({ "text": "although there is a value" });
        }),
        spoil("field", "grade", &|it| gardner(it)["grade"] = json!("4AB")),
        spoil("reference", "hasMember", &|it| {
            gardner(it)["hasMember"][0]["reference"] = it["entry"][0]["fullUrl"].clone();
        }),
    ])
}

fn check(version: FhirVersion, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let sound = bundles(version);
    let mut files = written(folder.path(), &sound);
    let code_systems = self::folder("fhir").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let spoilt = spoilt(version);
    let spoilt_bundles = spoilt.iter().map(|(name, (bundle, _))| (name.clone(), bundle.clone())).collect();
    let sound_files = files.clone();
    files.extend(code_systems.filter(|path| path.extension().is_some_and(|it| it == "json")));
    assert!(files.len() > 15, "{files:?}");
    files.extend(written(folder.path(), &spoilt_bundles));
    let errors = reference::errors(name, &files);
    let (expected, unexpected): (Vec<_>, Vec<_>) =
        errors.iter().partition(|line| line.split('\t').next().unwrap().contains("spoilt_"));
    assert_eq!(unexpected, Vec::<&String>::new());
    for (name, (_, word)) in &spoilt {
        let of = |line: &&&String| line.contains(&format!("{name}.json")) && line.contains(word);
        assert!(expected.iter().any(|line| of(&line)), "{name} is not refused for {word}: {expected:#?}");
    }
    let opinions = reference::second_opinions(name, &sound_files);
    assert_eq!(opinions.len(), sound.len());
    assert!(opinions.iter().all(|line| line.ends_with("\tok")), "{opinions:#?}");
    // It knows no codes, but what a resource is made of.
    for wrong in ["no_code", "field"] {
        let file = folder.path().join(format!("spoilt_{wrong}.json"));
        assert!(!reference::second_opinions(name, &[file])[0].ends_with("\tok"), "{wrong}");
    }
}

#[test]
fn bundles_and_code_systems_are_r4() {
    check(FhirVersion::R4, "R4");
}

#[test]
fn bundles_and_code_systems_are_r5() {
    check(FhirVersion::R5, "R5");
}

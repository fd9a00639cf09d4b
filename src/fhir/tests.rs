use super::*;
use crate::domain::{Letter, SummaryAssessment, SummaryStatus};

const ABSTAINED: &str = include_str!("../../schemas/examples/summary/all_abstained.json");
const GRADED: &str = include_str!("../../schemas/examples/summary/final.json");
const AMENDED: &str = include_str!("../../schemas/examples/summary/amended.json");
const EXAMPLES: [&str; 3] = [ABSTAINED, GRADED, AMENDED];

fn summary(json: &str) -> EmbryoSummary {
    serde_json::from_str(json).unwrap()
}

fn made(summary: &EmbryoSummary) -> Value {
    bundle(summary, "2026-03-02T09:00:00Z".parse().unwrap(), FhirVersion::R4)
}

fn of_type<'a>(bundle: &'a Value, resource_type: &str) -> Vec<&'a Value> {
    let entries = bundle["entry"].as_array().unwrap().iter();
    entries.map(|entry| &entry["resource"]).filter(|it| it["resourceType"] == resource_type).collect()
}

fn observation<'a>(bundle: &'a Value, code: &str) -> &'a Value {
    let all = of_type(bundle, "Observation");
    all.into_iter().find(|it| it["code"]["coding"][0]["code"] == code).unwrap()
}

fn component<'a>(observation: &'a Value, code: &str) -> &'a Value {
    let all = observation["component"].as_array().unwrap();
    all.iter().find(|it| it["code"]["coding"][0]["code"] == code).unwrap()
}

fn value(observation: &Value) -> &Value {
    &observation["valueCodeableConcept"]["coding"][0]["code"]
}

fn absent(observation: &Value) -> &str {
    assert!(observation["valueCodeableConcept"].is_null(), "{observation}");
    observation["dataAbsentReason"]["coding"][0]["code"].as_str().unwrap()
}

/// Every text in it.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_graded_embryo_has_its_grades_with_probabilities_and_is_preliminary() {
    let bundle = made(&summary(GRADED));
    for (code, grade) in [("exp", "4"), ("icm", "A"), ("te", "B"), ("gardner", "4AB")] {
        let found = observation(&bundle, code);
        assert_eq!((value(found), &found["status"]), (&json!(grade), &json!("preliminary")), "{code}");
        assert_eq!(found["meta"]["security"][0]["code"], "AIAST");
        assert_eq!(component(found, "machine-grade")["valueCodeableConcept"]["text"], grade);
        assert_eq!(found["performer"].as_array().unwrap().len(), 1, "the site alone");
    }
    let exp = observation(&bundle, "exp");
    assert_eq!(component(exp, "probability-exp-4")["valueQuantity"]["value"], 0.438);
    assert_eq!(component(exp, "confidence")["valueQuantity"]["value"], 0.438);
    assert_eq!(component(exp, "disagreement")["valueQuantity"]["value"], 0.5);
    let gardner = observation(&bundle, "gardner");
    assert_eq!(component(gardner, "frames-graded")["valueInteger"], 2);
    assert_eq!(component(gardner, "frames-expected")["valueBoolean"], false);
    assert_eq!(gardner["hasMember"].as_array().unwrap().len(), 3);
}

#[test]
fn letters_below_expansion_3_are_said_not_to_apply_and_never_invented() {
    let mut summary = summary(GRADED);
    let heads = summary.heads.as_mut().unwrap();
    heads.exp.grade = crate::domain::Expansion::E2;
    (heads.icm, heads.te) = (None, None);
    summary.gardner = Some("2".into());
    let bundle = made(&summary);
    for code in ["icm", "te"] {
        let found = observation(&bundle, code);
        assert_eq!(absent(found), "not-applicable");
        assert!(found["component"].is_null() || found["component"].as_array().unwrap().len() == 1);
    }
    assert_eq!(value(observation(&bundle, "gardner")), "2");
}

#[test]
fn an_embryo_without_any_grade_is_said_to_have_none_and_why() {
    let mut summary = summary(ABSTAINED);
    for (status, reason) in [(SummaryStatus::Provisional, "temp-unknown"), (SummaryStatus::Final, "unknown")]
    {
        summary.status = status;
        let bundle = made(&summary);
        for code in ["exp", "icm", "te", "gardner"] {
            let found = observation(&bundle, code);
            assert_eq!(absent(found), reason);
            let text = found["dataAbsentReason"]["text"].as_str().unwrap();
            assert!(text.contains("low_contrast 1") && text.contains("underexposed 1"), "{text}");
        }
    }
}

#[test]
fn a_reviewed_grade_is_the_value_and_the_softwares_stands_beside_it() {
    let mut summary = summary(AMENDED);
    let review = summary.review.clone().unwrap();
    let bundle = made(&summary);
    let gardner = observation(&bundle, "gardner");
    assert_eq!((value(gardner), &gardner["status"]), (&json!(review.gardner), &json!("amended")));
    assert_eq!(component(gardner, "machine-grade")["valueCodeableConcept"]["text"], "4AB");
    assert_eq!(component(gardner, "review-blinded")["valueBoolean"], review.blinded);
    assert_eq!(gardner["performer"][1]["identifier"]["value"], review.reviewer);
    // A head on which both agree is final, whatever they say of the others.
    for (code, agrees) in [
        ("exp", review.exp == summary.heads.as_ref().unwrap().exp.grade),
        ("icm", review.icm == Some(Letter::A)),
        ("te", review.te == Some(Letter::B)),
    ] {
        let expected = if agrees { "final" } else { "amended" };
        assert_eq!(observation(&bundle, code)["status"], expected, "{code}");
    }
    let agents = of_type(&bundle, "Provenance")[0]["agent"].as_array().unwrap().clone();
    assert_eq!(agents.last().unwrap()["type"]["coding"][0]["code"], "verifier");
    summary.assessment = SummaryAssessment::Final;
    assert_eq!(observation(&made(&summary), "gardner")["status"], "final");
}

#[test]
fn the_same_summary_makes_the_same_bundle_and_another_version_writes_to_the_same_places() {
    let places = |bundle: &Value| -> Vec<String> {
        let entries = bundle["entry"].as_array().unwrap().iter();
        entries.map(|entry| format!("{} {}", entry["fullUrl"], entry["request"])).collect()
    };
    let graded = made(&summary(GRADED));
    assert_eq!(graded, made(&summary(GRADED)));
    assert_eq!(places(&graded), places(&made(&summary(AMENDED))));
    let mut other = summary(GRADED);
    other.embryo_id.push('x');
    let other = made(&other);
    for place in places(&graded).iter().filter(|place| !place.contains("Device")) {
        assert!(!places(&other).contains(place), "{place}");
    }
    // Of everything that is written twice: it must never move.
    assert_eq!(Name::new("observation", &["E-1", "exp"]).uuid(), "530bfdee-050d-8386-b993-73b303eb7a5f");
}

#[test]
fn every_reference_leads_to_an_entry_of_the_bundle_or_is_a_logical_one() {
    for example in EXAMPLES {
        let bundle = made(&summary(example));
        let urls: Vec<&Value> = bundle["entry"].as_array().unwrap().iter().map(|it| &it["fullUrl"]).collect();
        let mut references = 0;
        for text in
            texts(&bundle["entry"].as_array().unwrap().iter().map(|it| it["resource"].clone()).collect())
                .iter()
                .filter(|text| text.starts_with("urn:uuid:"))
        {
            assert!(urls.contains(&&json!(text)), "{text}");
            references += 1;
        }
        assert!(references > 12, "{references}");
        assert!(!bundle.to_string().contains("Patient/"));
    }
}

#[test]
fn nothing_that_could_name_a_person_is_in_it() {
    for example in EXAMPLES {
        let summary = summary(example);
        let bundle = made(&summary);
        assert!(of_type(&bundle, "Patient").is_empty() && of_type(&bundle, "Practitioner").is_empty());
        for resource in bundle["entry"].as_array().unwrap().iter().map(|entry| &entry["resource"]) {
            for field in ["subject", "patient", "encounter", "text", "contained", "extension"] {
                assert!(resource[field].is_null(), "{field} of {resource}");
            }
        }
        // The pseudonyms that are there stand where an EMR looks for them and nowhere else.
        let ids = texts(&bundle).into_iter().filter(|text| text.contains(&summary.embryo_id));
        assert_eq!(ids.count(), 3, "identifier and search of the specimen, event of the summary");
    }
}

#[test]
fn an_embryo_id_cannot_change_the_search_for_it() {
    let search = conditional("s", r"a|b,c$d\e&f?g#h=i+j%k");
    assert_eq!(search, "identifier=s%7Ca%5C%7Cb%5C%2Cc%5C%24d%5C%5Ce%26f%3Fg%23h%3Di%2Bj%25k");
}

#[test]
fn the_releases_differ_in_the_device_alone() {
    let at = "2026-03-02T09:00:00Z".parse().unwrap();
    let [r4, r5] = [FhirVersion::R4, FhirVersion::R5].map(|version| bundle(&summary(GRADED), at, version));
    let device = |bundle| of_type(bundle, "Device")[0].clone();
    assert_eq!(device(&r4)["deviceName"][0]["name"], "memebg");
    assert_eq!(device(&r5)["name"][0]["value"], "memebg");
    assert!(device(&r4)["type"].is_object() && device(&r5)["type"].is_array());
    let rest = |bundle: &Value| -> Vec<Value> {
        let entries = bundle["entry"].as_array().unwrap().iter();
        entries.filter(|it| it["resource"]["resourceType"] != "Device").cloned().collect()
    };
    assert_eq!(rest(&r4), rest(&r5));
}

#[test]
fn an_embryo_outside_the_window_and_an_untrained_model_are_said_to_be_that() {
    let mut nothing = summary(ABSTAINED);
    (nothing.models, nothing.contributions) = (Vec::new(), Vec::new());
    nothing.abstentions.clear();
    let bundle = made(&nothing);
    assert!(of_type(&bundle, "Device").is_empty());
    assert_eq!(of_type(&bundle, "Provenance")[0]["agent"][0]["who"]["display"], "memebg");
    assert_eq!(observation(&bundle, "exp")["dataAbsentReason"]["text"], "No frame was graded");
    let mut untrained = summary(GRADED);
    untrained.models[0].untrained = true;
    let note = observation(&made(&untrained), "gardner")["note"][0]["text"].clone();
    assert!(note.as_str().unwrap().contains("mean nothing"));
}

/// Code and display of every concept in the code systems that are shipped.
fn shipped(system: &str) -> Vec<(String, String)> {
    let name = system.rsplit('/').next().unwrap();
    let file = format!("{}/schemas/fhir/CodeSystem-{name}.json", env!("CARGO_MANIFEST_DIR"));
    let resource: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(resource["url"], system);
    let concepts = resource["concept"].as_array().unwrap();
    assert_eq!(resource["count"], concepts.len());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    concepts.iter().map(|it| (text(&it["code"]), text(&it["display"]))).collect()
}

fn codings(value: &Value, found: &mut Vec<(String, String, Option<String>)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| codings(item, found)),
        Value::Object(fields) => {
            if let (Some(system), Some(code)) = (fields.get("system"), fields.get("code")) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                found.push((text(system), text(code), fields.get("display").map(text)));
            }
            fields.values().for_each(|field| codings(field, found));
        }
        _ => {}
    }
}

#[test]
fn every_local_code_is_in_the_code_systems_that_are_shipped() {
    let mut found = Vec::new();
    for example in EXAMPLES {
        codings(&made(&summary(example)), &mut found);
    }
    for grade in <crate::domain::Expansion as crate::domain::GradeClass>::ALL {
        codings(&codes::expansion(*grade), &mut found);
    }
    for letter in Letter::ALL {
        codings(&json!([codes::icm(*letter), codes::te(*letter)]), &mut found);
    }
    found.retain(|(system, ..)| system.starts_with("https://memebg.org/"));
    assert!(found.len() > 90, "{}", found.len());
    for (system, code, display) in found {
        let concepts = shipped(&system);
        let concept =
            concepts.iter().find(|it| it.0 == code).unwrap_or_else(|| panic!("{system} has no {code}"));
        assert!(display.is_none_or(|display| display == concept.1), "{system} {code}");
    }
    // Whatever a reviewer may say.
    let reasons: Vec<&str> = crate::domain::ReviewReason::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(shipped(codes::REVIEW_REASON).iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), reasons);
    assert_eq!(shipped(codes::GARDNER).len(), 6 + 4 * 9);
}

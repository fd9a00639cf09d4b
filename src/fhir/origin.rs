//! Where a grade comes from: the software with its model, and the trail from there.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::identity::{MODEL_SYSTEM, Name, REVIEWER_SYSTEM, SUMMARY_SYSTEM, logical};
use super::{FhirVersion, codes, instant};
use crate::domain::{EmbryoSummary, ModelIdentity};

/// One version of memebg with one model.
pub(super) struct Grader<'a> {
    pub(super) name: Name,
    model: &'a ModelIdentity,
    software: &'a str,
}

/// Every pair of model and version of memebg that has a say, in the order of the models.
pub(super) fn graders(summary: &EmbryoSummary) -> Vec<Grader<'_>> {
    let pairs: BTreeSet<(usize, &str)> =
        summary.contributions.iter().map(|it| (it.model, it.pipeline_version.as_str())).collect();
    pairs
        .into_iter()
        .filter_map(|(index, software)| {
            let model = summary.models.get(index)?;
            let name = Name::new("device", &[software, &model.name, &model.version, &model.digest]);
            Some(Grader { name, model, software })
        })
        .collect()
}

pub(super) fn device(grader: &Grader<'_>, version: FhirVersion) -> Value {
    let model = grader.model;
    let versioned = |what: &str, value: &str| json!({ "type": { "text": what }, "value": value });
    let kind = json!({ "text": "Software that grades photographs of blastocysts" });
    let mut device = json!({
        "resourceType": "Device",
        "id": grader.name.uuid(),
        "identifier": [{ "system": MODEL_SYSTEM, "value": model.digest }],
        "status": "active",
        "modelNumber": model.name,
        "version": [versioned("memebg", grader.software), versioned("model", &model.version)],
    });
    let named = "user-friendly-name";
    match version {
        FhirVersion::R4 => {
            device["type"] = kind;
            device["deviceName"] = json!([{ "name": "memebg", "type": named }]);
        }
        FhirVersion::R5 => {
            device["type"] = json!([kind]);
            device["name"] = json!([{ "value": "memebg", "type": named }]);
        }
    }
    if model.untrained {
        device["note"] = json!([{ "text": "The model is untrained: its grades mean nothing." }]);
    }
    device
}

pub(super) fn provenance(
    summary: &EmbryoSummary,
    published_at: DateTime<Utc>,
    name: &Name,
    targets: &[Value],
    graders: &[Grader<'_>],
) -> Value {
    let agent = |kind: &str, who: Value| json!({ "type": codes::participant(kind), "who": who });
    let mut agents: Vec<Value> =
        graders.iter().map(|grader| agent("performer", grader.name.reference())).collect();
    if agents.is_empty() {
        // No frame lies within the window: nothing was graded, and memebg says so.
        agents.push(agent("assembler", json!({ "display": "memebg" })));
    }
    if let Some(review) = &summary.review {
        agents.push(agent("verifier", logical("Practitioner", REVIEWER_SYSTEM, &review.reviewer)));
    }
    let event = format!("{}/{}", summary.embryo_id, summary.version);
    let display = format!("Summary of the embryo, version {}", summary.version);
    json!({
        "resourceType": "Provenance",
        "id": name.uuid(),
        "target": targets,
        "recorded": instant(published_at),
        "agent": agents,
        "entity": [{
            "role": "source",
            "what": { "identifier": { "system": SUMMARY_SYSTEM, "value": event }, "display": display },
        }],
    })
}

//! A summary as an HL7 FHIR transaction, for EMRs: `Bundle`s of R4 and R5. Pure: no Kafka, no HTTP.
//!
//! # What is in it
//! | resource | how it is written | why so |
//! |---|---|---|
//! | `Specimen` | created once, found by the embryo id | the embryo. FHIR has no resource for one, a specimen is what EMRs take. It has no `subject`: memebg knows no patient. The EMR links it to its own, and is not overwritten |
//! | `Observation` EXP, ICM, TE, Gardner | updated in place, found by its identifier | the grades; `hasMember` joins the three heads to the Gardner grade |
//! | `Device`, per model | updated in place, by its id, because many embryos share it: two that are sent at once would both create one | the software that graded, with the digest of its model |
//! | `Provenance` | updated in place, by its id, because it has no identifier | who said it: software, reviewer, and from which version of the summary |
//!
//! # Why posting twice changes nothing
//! Every identifier follows from the embryo and every reference within the transaction is to one of its own entries, so
//! the same summary makes the same bundle, and a newer version of it writes to the same resources.
//!
//! # Why all four observations are always there
//! A newer version may take a grade back: the expansion falls below 3, or every frame that had a grade was graded anew.
//! An entry that is left out would leave the old grade in the EMR for ever. So an observation without a value is there
//! and says why it has none (`dataAbsentReason`).

mod codes;
mod identity;
mod observation;
mod origin;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::EmbryoSummary;
use identity::{Name, SPECIMEN_SYSTEM, conditional};

/// Release of the FHIR standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FhirVersion {
    /// 4.0.1.
    R4,
    /// 5.0.0.
    R5,
}

impl FhirVersion {
    /// Media type of a resource, with the release in it.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::R4 => "application/fhir+json; fhirVersion=4.0",
            Self::R5 => "application/fhir+json; fhirVersion=5.0",
        }
    }
}

/// The transaction that brings an EMR to what `summary` says. `published_at` is when the summary was published.
#[must_use]
pub fn bundle(summary: &EmbryoSummary, published_at: DateTime<Utc>, version: FhirVersion) -> Value {
    let specimen = Name::new("specimen", &[&summary.embryo_id]);
    let graders = origin::graders(summary);
    let mut entries = vec![json!({
        "fullUrl": specimen.urn(),
        "resource": {
            "resourceType": "Specimen",
            "identifier": [{ "system": SPECIMEN_SYSTEM, "value": summary.embryo_id }],
            "type": { "text": "Human embryo in culture" },
        },
        "request": {
            "method": "POST",
            "url": "Specimen",
            "ifNoneExist": conditional(SPECIMEN_SYSTEM, &summary.embryo_id),
        },
    })];
    entries.extend(graders.iter().map(|grader| {
        let url = format!("Device/{}", grader.name.uuid());
        updated(&grader.name, &url, origin::device(grader, version))
    }));
    let observations = observation::all(summary, published_at, &specimen, &graders);
    let targets: Vec<Value> = observations.iter().map(|(name, _)| name.reference()).collect();
    entries.extend(
        observations
            .into_iter()
            .map(|(name, resource)| updated(&name, &format!("Observation?{}", name.conditional()), resource)),
    );
    let provenance = Name::new("provenance", &[&summary.embryo_id]);
    entries.push(updated(
        &provenance,
        &format!("Provenance/{}", provenance.uuid()),
        origin::provenance(summary, published_at, &provenance, &targets, &graders),
    ));
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries })
}

fn updated(name: &Name, url: &str, resource: Value) -> Value {
    json!({ "fullUrl": name.urn(), "resource": resource, "request": { "method": "PUT", "url": url } })
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests;

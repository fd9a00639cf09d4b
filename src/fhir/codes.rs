//! Codes. LOINC and SNOMED CT have none for Gardner grades, so they are local: `schemas/fhir/` has the code systems, and
//! a test holds the two together.

use serde_json::{Value, json};

use crate::domain::{Expansion, Letter};

/// What is observed, and what of it.
pub(super) const OBSERVATION: &str = "https://memebg.org/fhir/CodeSystem/blastocyst-observation";
/// Grades of expansion.
pub(super) const EXPANSION: &str = "https://memebg.org/fhir/CodeSystem/gardner-expansion";
/// Grades of the inner cell mass.
pub(super) const ICM: &str = "https://memebg.org/fhir/CodeSystem/gardner-icm";
/// Grades of the trophectoderm.
pub(super) const TE: &str = "https://memebg.org/fhir/CodeSystem/gardner-te";
/// Whole Gardner grades.
pub(super) const GARDNER: &str = "https://memebg.org/fhir/CodeSystem/gardner-grade";
/// Why there is a review.
pub(super) const REVIEW_REASON: &str = "https://memebg.org/fhir/CodeSystem/review-reason";

const ABSENT: &str = "http://terminology.hl7.org/CodeSystem/data-absent-reason";
const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const LABEL: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
const PARTICIPANT: &str = "http://terminology.hl7.org/CodeSystem/provenance-participant-type";
const UNITS: &str = "http://unitsofmeasure.org";

/// A code and how it is shown.
pub(super) type Code = (&'static str, &'static str);

pub(super) const CODE_GARDNER: Code = ("gardner", "Gardner grade of a blastocyst");
pub(super) const CODE_EXP: Code = ("exp", "Expansion of a blastocyst");
pub(super) const CODE_ICM: Code = ("icm", "Inner cell mass of a blastocyst");
pub(super) const CODE_TE: Code = ("te", "Trophectoderm of a blastocyst");
pub(super) const MACHINE_GRADE: Code = ("machine-grade", "Grade by the software");
pub(super) const CONFIDENCE: Code = ("confidence", "Calibrated probability of the grade by the software");
pub(super) const DISAGREEMENT: Code = ("disagreement", "Share of the frames that say another grade");
pub(super) const FRAMES_GRADED: Code = ("frames-graded", "Frames with a grade");
pub(super) const FRAMES_ABSTAINED: Code = ("frames-abstained", "Frames without a grade");
pub(super) const FRAMES_EXPECTED: Code = ("frames-expected", "Whether more frames are expected");
pub(super) const HPI: Code = ("hpi", "Hours post insemination of the last frame");
pub(super) const REVIEW_BLINDED: Code =
    ("review-blinded", "Whether the reviewer had not seen the software's grade");
pub(super) const REVIEWED_FOR: Code = ("review-reason", "Why there is a review");

/// The code of the probability of a class.
pub(super) fn probability(head: &str, class: &str) -> Value {
    let code = format!("probability-{head}-{}", class.to_lowercase());
    let display = format!("Calibrated probability of {} {class}", head.to_uppercase());
    json!({ "coding": [{ "system": OBSERVATION, "code": code, "display": display }] })
}

/// One code of ours.
pub(super) fn local((code, display): Code) -> Value {
    json!({ "coding": [{ "system": OBSERVATION, "code": code, "display": display }], "text": display })
}

pub(super) fn expansion(grade: Expansion) -> Value {
    let (code, display) = match grade {
        Expansion::E1 => ("1", "Early blastocyst"),
        Expansion::E2 => ("2", "Blastocyst"),
        Expansion::E3 => ("3", "Full blastocyst"),
        Expansion::E4 => ("4", "Expanded blastocyst"),
        Expansion::E5 => ("5", "Hatching blastocyst"),
        Expansion::E6 => ("6", "Hatched blastocyst"),
    };
    answer(EXPANSION, code, display)
}

pub(super) fn icm(grade: Letter) -> Value {
    let display = match grade {
        Letter::A => "Many cells, tightly packed",
        Letter::B => "Several cells, loosely grouped",
        Letter::C => "Very few cells",
    };
    answer(ICM, grade.as_str(), display)
}

pub(super) fn te(grade: Letter) -> Value {
    let display = match grade {
        Letter::A => "Many cells, a cohesive epithelium",
        Letter::B => "Few cells, a loose epithelium",
        Letter::C => "Very few, large cells",
    };
    answer(TE, grade.as_str(), display)
}

fn answer(system: &str, code: &str, display: &str) -> Value {
    json!({ "coding": [{ "system": system, "code": code, "display": display }], "text": code })
}

/// A grade that is shown as it is written.
pub(super) fn gardner(grade: &str) -> Value {
    answer(GARDNER, grade, grade)
}

/// A code of another system that is shown as it is written.
pub(super) fn plain(system: &str, code: &str) -> Value {
    json!({ "coding": [{ "system": system, "code": code }] })
}

/// Why there is no value.
pub(super) fn absent(code: &str, text: &str) -> Value {
    json!({ "coding": [{ "system": ABSENT, "code": code }], "text": text })
}

pub(super) fn laboratory() -> Value {
    plain(CATEGORY, "laboratory")
}

/// `Provenance.agent.type`.
pub(super) fn participant(code: &str) -> Value {
    plain(PARTICIPANT, code)
}

/// The security label by which an EMR knows what artificial intelligence has asserted.
pub(super) fn asserted_by_ai() -> Value {
    json!({ "system": LABEL, "code": "AIAST", "display": "Artificial Intelligence asserted" })
}

/// A share, 0 to 1.
pub(super) fn share(value: f64) -> Value {
    json!({ "value": value, "unit": "1", "system": UNITS, "code": "1" })
}

pub(super) fn hours(value: f64) -> Value {
    json!({ "value": value, "unit": "h", "system": UNITS, "code": "h" })
}

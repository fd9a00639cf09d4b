//! The four observations: what is said of each head, and of all together.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::codes::{self, Code};
use super::identity::{Name, REVIEWER_SYSTEM, SITE_SYSTEM, logical};
use super::instant;
use super::origin::Grader;
use crate::domain::{
    EmbryoSummary, Expansion, GradeClass, HeadGrade, Letter, SummaryAssessment, SummaryStatus,
};

/// One head, before a resource is made of it.
struct Head {
    short: &'static str,
    code: Code,
    /// What the software says, coded.
    machine: Option<Value>,
    /// What counts: the reviewer's grade where there is one.
    value: Option<Value>,
    agrees: bool,
    components: Vec<Value>,
}

impl Head {
    fn new<G: GradeClass>(
        (short, code): (&'static str, Code),
        coded: fn(G) -> Value,
        machine: Option<&HeadGrade<G>>,
        disagreement: Option<f64>,
        reviewed: Option<Option<G>>,
    ) -> Self {
        let said = machine.map(|head| head.grade);
        let mut components = Vec::new();
        if let Some(head) = machine {
            components.push(component(codes::CONFIDENCE, "valueQuantity", codes::share(head.confidence)));
        }
        if let Some(share) = disagreement {
            components.push(component(codes::DISAGREEMENT, "valueQuantity", codes::share(share)));
        }
        for (class, share) in machine.into_iter().flat_map(|head| head.probabilities.iter()) {
            let code = codes::probability(short, class.label());
            components.push(json!({ "code": code, "valueQuantity": codes::share(share) }));
        }
        Self {
            short,
            code,
            machine: said.map(coded),
            value: reviewed.unwrap_or(said).map(coded),
            agrees: reviewed.is_none_or(|grade| grade == said),
            components,
        }
    }

    /// A letter exists from expansion 3 on.
    fn absent_reason(&self, summary: &EmbryoSummary) -> Value {
        let reviewed = summary.review.as_ref().map(|review| review.exp);
        let expansion = reviewed.or(summary.heads.as_ref().map(|heads| heads.exp.grade));
        if self.short != "exp" && expansion.is_some_and(|grade: Expansion| !grade.has_letters()) {
            return codes::absent("not-applicable", "Not defined below expansion 3");
        }
        not_graded(summary)
    }
}

/// No frame has a grade, or none has a letter.
fn not_graded(summary: &EmbryoSummary) -> Value {
    let code = match summary.status {
        SummaryStatus::Provisional => "temp-unknown",
        SummaryStatus::Final => "unknown",
    };
    let reasons: Vec<String> =
        summary.abstentions.iter().map(|(reason, frames)| format!("{reason} {frames}")).collect();
    let text = if reasons.is_empty() {
        "No frame was graded".to_owned()
    } else {
        format!("Not graded; frames without a grade by reason: {}", reasons.join(", "))
    };
    codes::absent(code, &text)
}

fn heads(summary: &EmbryoSummary) -> [Head; 3] {
    let heads = summary.heads.as_ref();
    let review = summary.review.as_ref();
    let disagreement = summary.disagreement;
    [
        Head::new(
            ("exp", codes::CODE_EXP),
            codes::expansion,
            heads.map(|it| &it.exp),
            disagreement.map(|it| it.exp),
            review.map(|it| Some(it.exp)),
        ),
        Head::new(
            ("icm", codes::CODE_ICM),
            codes::icm as fn(Letter) -> Value,
            heads.and_then(|it| it.icm.as_ref()),
            disagreement.and_then(|it| it.icm),
            review.map(|it| it.icm),
        ),
        Head::new(
            ("te", codes::CODE_TE),
            codes::te as fn(Letter) -> Value,
            heads.and_then(|it| it.te.as_ref()),
            disagreement.and_then(|it| it.te),
            review.map(|it| it.te),
        ),
    ]
}

/// EXP, ICM, TE, and the Gardner grade over them.
pub(super) fn all(
    summary: &EmbryoSummary,
    published_at: DateTime<Utc>,
    specimen: &Name,
    graders: &[Grader<'_>],
) -> Vec<(Name, Value)> {
    let name = |of: &str| Name::new("observation", &[&summary.embryo_id, of]);
    let frame = |name: &Name, code: Code, status: &str| {
        let mut performer = vec![logical("Organization", SITE_SYSTEM, &summary.site_id)];
        if let Some(review) = &summary.review {
            performer.push(logical("Practitioner", REVIEWER_SYSTEM, &review.reviewer));
        }
        let mut observation = json!({
            "resourceType": "Observation",
            "meta": { "security": [codes::asserted_by_ai()] },
            "identifier": [name.identifier()],
            "status": status,
            "category": [codes::laboratory()],
            "code": codes::local(code),
            "specimen": specimen.reference(),
            "effectiveDateTime": instant(summary.last_frame.captured_at),
            "issued": instant(published_at),
            "performer": performer,
        });
        // Of several the last, as a review names it; Provenance has all.
        if let Some(grader) = graders.last() {
            observation["device"] = grader.name.reference();
        }
        if summary.models.iter().any(|model| model.untrained) {
            observation["note"] =
                json!([{ "text": "A model behind this is untrained: its grades mean nothing." }]);
        }
        observation
    };
    let mut observations: Vec<(Name, Value)> = heads(summary)
        .into_iter()
        .map(|head| {
            let name = name(head.short);
            let reviewed = summary.review.is_some();
            let mut observation = frame(&name, head.code, status(reviewed, head.agrees));
            let absent = head.value.is_none().then(|| head.absent_reason(summary));
            answer(&mut observation, head.value, absent);
            let machine = head.machine.map(|it| component(codes::MACHINE_GRADE, "valueCodeableConcept", it));
            with_components(&mut observation, machine.into_iter().chain(head.components).collect());
            (name, observation)
        })
        .collect();
    let gardner_name = name("gardner");
    let agrees = summary.assessment != SummaryAssessment::Amended;
    let reviewed = summary.assessment != SummaryAssessment::Preliminary;
    let mut gardner = frame(&gardner_name, codes::CODE_GARDNER, status(reviewed, agrees));
    let reviewed_grade = summary.review.as_ref().map(|review| review.gardner.as_str());
    let value = reviewed_grade.or(summary.gardner.as_deref()).map(codes::gardner);
    let absent = value.is_none().then(|| not_graded(summary));
    answer(&mut gardner, value, absent);
    gardner["hasMember"] = observations.iter().map(|(name, _)| name.reference()).collect();
    with_components(&mut gardner, gardner_components(summary));
    observations.push((gardner_name, gardner));
    observations
}

fn gardner_components(summary: &EmbryoSummary) -> Vec<Value> {
    let concept = "valueCodeableConcept";
    let machine = summary.gardner.as_deref().map(codes::gardner);
    let mut components: Vec<Value> =
        machine.into_iter().map(|grade| component(codes::MACHINE_GRADE, concept, grade)).collect();
    if let Some(confidence) = summary.confidence {
        components.push(component(codes::CONFIDENCE, "valueQuantity", codes::share(confidence)));
    }
    let expected = summary.status == SummaryStatus::Provisional;
    components.extend([
        component(codes::FRAMES_GRADED, "valueInteger", summary.frames.graded.into()),
        component(codes::FRAMES_ABSTAINED, "valueInteger", summary.frames.abstained.into()),
        component(codes::FRAMES_EXPECTED, "valueBoolean", expected.into()),
        component(codes::HPI, "valueQuantity", codes::hours(summary.last_frame.hpi)),
    ]);
    if let Some(review) = &summary.review {
        let reason = codes::plain(codes::REVIEW_REASON, review.reason.as_str());
        components.extend([
            component(codes::REVIEW_BLINDED, "valueBoolean", review.blinded.into()),
            component(codes::REVIEWED_FOR, concept, reason),
        ]);
    }
    components
}

fn status(reviewed: bool, agrees: bool) -> &'static str {
    match (reviewed, agrees) {
        (false, _) => "preliminary",
        (true, true) => "final",
        (true, false) => "amended",
    }
}

/// A value, or why there is none.
fn answer(observation: &mut Value, value: Option<Value>, absent: Option<Value>) {
    if let Some(value) = value {
        observation["valueCodeableConcept"] = value;
    } else if let Some(absent) = absent {
        observation["dataAbsentReason"] = absent;
    }
}

fn with_components(observation: &mut Value, components: Vec<Value>) {
    // FHIR knows no empty lists.
    if !components.is_empty() {
        observation["component"] = components.into();
    }
}

fn component(code: Code, kind: &str, value: Value) -> Value {
    json!({ "code": codes::local(code), kind: value })
}

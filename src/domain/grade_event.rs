//! The grade event: what downstream EMR systems read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::frame::{FocalPlane, Frame, FrameId, Instrument};
use super::grade::{Expansion, HeadGrade, Letter, gardner};
use super::label::label_enum;

/// CloudEvents `type` of a grade event.
pub const GRADE_EVENT_TYPE: &str = "org.memebg.embryo.grade.v1";

label_enum! {
    /// Whether the model graded the frame or declined to.
    GradeStatus {
        /// A grade was given.
        Graded = "graded",
        /// The frame was looked at and no grade was given, for the reasons listed.
        Abstained = "abstained",
    }
}

label_enum! {
    /// Why no grade was given for a readable frame.
    AbstainReason {
        /// Fewer pixels than the quality gate asks for.
        TooSmall = "too_small",
        /// Too dark.
        Underexposed = "underexposed",
        /// Too bright.
        Overexposed = "overexposed",
        /// Hardly any contrast: an empty well or a covered lens.
        LowContrast = "low_contrast",
        /// No sharp edge anywhere: out of focus.
        Blurred = "blurred",
        /// The model is less sure than its bundle demands.
        LowConfidence = "low_confidence",
        /// The picture is unlike those the model was trained on: its probabilities mean nothing,
        /// however sure they look.
        OutOfDistribution = "out_of_distribution",
    }
}

label_enum! {
    /// How far a grade may be relied upon.
    Assessment {
        /// Decision support: not reviewed by an embryologist.
        Preliminary = "preliminary",
    }
}

/// Deterministic id of a grade: the same frame, image, model and version give the same id on every
/// machine, so that a consumer can upsert whatever it receives twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GradeId(String);

impl GradeId {
    /// SHA-256 over the parts, each preceded by its length so that no two lists of parts collide.
    #[must_use]
    pub fn new(frame: &FrameId, image_sha256: &str, model_digest: &str, pipeline_version: &str) -> Self {
        let run = frame.run.to_string();
        let plane = frame.focal_plane_index.to_string();
        let parts = [&frame.embryo_id, &run, &plane, image_sha256, model_digest, pipeline_version];
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hex::encode(hasher.finalize()))
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The model that made a grade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name of the bundle.
    pub name: String,
    /// Version of the bundle.
    pub version: String,
    /// SHA-256 of the bundle's manifest, which holds the SHA-256 of every file in it.
    pub digest: String,
    /// True when the multitask network has random weights: its grades mean nothing.
    pub untrained: bool,
}

/// Where the time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From receiving the frame to its pixels, waiting included.
    pub decode_ms: f64,
    /// Waiting for the batch to close and a grader to be free.
    pub queue_ms: f64,
    /// Both models, for the whole batch.
    pub inference_ms: f64,
}

/// The three heads. ICM and TE are absent below expansion 3, not invented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    /// Expansion.
    pub exp: HeadGrade<Expansion>,
    /// Inner cell mass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icm: Option<HeadGrade<Letter>>,
    /// Trophectoderm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub te: Option<HeadGrade<Letter>>,
}

impl Heads {
    /// Keeps the letters only where Gardner defines them.
    #[must_use]
    pub fn new(exp: HeadGrade<Expansion>, icm: HeadGrade<Letter>, te: HeadGrade<Letter>) -> Self {
        let defined = exp.grade.has_letters();
        Self { exp, icm: defined.then_some(icm), te: defined.then_some(te) }
    }

    /// The Gardner string.
    #[must_use]
    pub fn gardner(&self) -> String {
        gardner(self.exp.grade, self.icm.as_ref().map(|h| h.grade), self.te.as_ref().map(|h| h.grade))
    }

    /// The least sure of the heads that are present.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        let letters = [self.icm.as_ref(), self.te.as_ref()];
        letters.into_iter().flatten().map(|head| head.confidence).fold(self.exp.confidence, f64::min)
    }
}

/// A grade event as it is on the wire: `schemas/grade.v1.schema.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GradeEvent {
    /// Deterministic id, also the CloudEvents `id`.
    pub id: GradeId,
    /// Whether a grade was given.
    pub status: GradeStatus,
    /// Why not, when not.
    pub reasons: Vec<AbstainReason>,
    /// Always `preliminary`: an embryologist decides.
    pub assessment: Assessment,
    /// The clinic or laboratory.
    pub site_id: String,
    /// The incubator.
    pub instrument: Instrument,
    /// Slide, if it lies on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slide_id: Option<String>,
    /// Dish, if it lies in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dish_id: Option<String>,
    /// Well, from 1.
    pub well: u32,
    /// Opaque pseudonym of the embryo; the Kafka key.
    pub embryo_id: String,
    /// Number of the capture.
    pub run: u64,
    /// Focal plane of the graded image.
    pub focal_plane: FocalPlane,
    /// When the photograph was taken.
    pub captured_at: DateTime<Utc>,
    /// Hours post insemination at capture.
    pub hpi: f64,
    /// Gardner string, when graded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gardner: Option<String>,
    /// The heads; also kept on `low_confidence` and `out_of_distribution`, for the person who looks
    /// into it.
    #[serde(flatten)]
    pub heads: Option<Heads>,
    /// Mahalanobis distance of the picture's embedding from the training set, where the bundle knows
    /// it; two decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_distance: Option<f64>,
    /// The model that was asked.
    pub model: ModelIdentity,
    /// SHA-256 of the image that was graded.
    pub image_sha256: String,
    /// Version of memebg.
    pub pipeline_version: String,
    /// Execution provider and device the models ran on, e.g. `cpu` or `cuda:0`.
    pub device: String,
    /// Arithmetic of the embedding and the multitask model, e.g. `int8+fp32`.
    pub precision: String,
    /// Where the time went. Differs between two gradings of one frame on one machine; the rest does not,
    /// as long as the device and the quality gate's thresholds stay the same.
    pub timings: Timings,
}

/// What is said of the grader in every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraderIdentity {
    /// The model bundle.
    pub model: ModelIdentity,
    /// Execution provider and device.
    pub device: String,
    /// Arithmetic.
    pub precision: String,
}

impl GradeEvent {
    /// The id that follows from what the event says, which is its own unless somebody changed it.
    #[must_use]
    pub fn derived_id(&self) -> GradeId {
        let frame = FrameId {
            embryo_id: self.embryo_id.clone(),
            run: self.run,
            focal_plane_index: self.focal_plane.index,
        };
        GradeId::new(&frame, &self.image_sha256, &self.model.digest, &self.pipeline_version)
    }

    /// The event of one frame. With `reasons` it is abstained and carries no Gardner string. Without
    /// `heads` there must be a reason: the schema refuses an abstention that does not say why.
    #[must_use]
    pub fn new(
        frame: &Frame,
        reasons: Vec<AbstainReason>,
        heads: Option<Heads>,
        grader: &GraderIdentity,
        pipeline_version: &str,
        timings: Timings,
    ) -> Self {
        let abstained = !reasons.is_empty() || heads.is_none();
        Self {
            id: GradeId::new(&frame.id, &frame.image.sha256, &grader.model.digest, pipeline_version),
            status: if abstained { GradeStatus::Abstained } else { GradeStatus::Graded },
            reasons,
            assessment: Assessment::Preliminary,
            site_id: frame.site_id.clone(),
            instrument: frame.instrument.clone(),
            slide_id: frame.slide_id.clone(),
            dish_id: frame.dish_id.clone(),
            well: frame.well,
            embryo_id: frame.id.embryo_id.clone(),
            run: frame.id.run,
            focal_plane: frame.plane,
            captured_at: frame.clocks.captured_at,
            hpi: round2(frame.clocks.hpi),
            gardner: heads.as_ref().filter(|_| !abstained).map(Heads::gardner),
            heads,
            training_distance: None,
            model: grader.model.clone(),
            image_sha256: frame.image.sha256.clone(),
            pipeline_version: pipeline_version.to_owned(),
            device: grader.device.clone(),
            precision: grader.precision.clone(),
            timings,
        }
    }

    /// The same event with the distance from the training set. What is not a number is left out: JSON
    /// has no word for it.
    #[must_use]
    pub fn with_training_distance(self, distance: Option<f64>) -> Self {
        Self { training_distance: distance.filter(|distance| distance.is_finite()).map(round2), ..self }
    }
}

/// Two decimals: a minute of an hour, and more than a distance is good for.
fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FrameEvent;

    fn frame() -> Frame {
        let json = include_str!("../../schemas/examples/frame/by_uri.json");
        let event = FrameEvent::from_json(json.as_bytes()).unwrap();
        event.to_frame(event.validate("2026-02-01T00:00:00Z".parse().unwrap(), 0).unwrap())
    }

    fn heads(expansion: usize) -> Heads {
        let mut exp = [0.0; 6];
        exp[expansion - 1] = 4.0;
        Heads::new(
            HeadGrade::from_logits(&exp, 1.0).unwrap(),
            HeadGrade::from_logits(&[2.0, 1.0, 0.0], 1.0).unwrap(),
            HeadGrade::from_logits(&[0.0, 1.0, 0.5], 1.0).unwrap(),
        )
    }

    fn event(reasons: Vec<AbstainReason>, heads: Option<Heads>) -> GradeEvent {
        let model = ModelIdentity {
            name: "invented".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "ab".repeat(32),
            untrained: false,
        };
        let grader = GraderIdentity { model, device: "cpu".to_owned(), precision: "fp32+fp32".to_owned() };
        GradeEvent::new(&frame(), reasons, heads, &grader, "0.1.0", Timings::default())
    }

    #[test]
    fn a_graded_frame_carries_its_gardner_string_and_letters_only_from_expansion_three() {
        let blastocyst = event(vec![], Some(heads(4)));
        assert_eq!((blastocyst.status, blastocyst.gardner.as_deref()), (GradeStatus::Graded, Some("4AB")));
        let early = event(vec![], Some(heads(2)));
        assert_eq!(early.gardner.as_deref(), Some("2"));
        let json = serde_json::to_value(&early).unwrap();
        assert!(json.get("icm").is_none() && json.get("te").is_none() && json.get("exp").is_some(), "{json}");
    }

    #[test]
    fn a_doubted_grade_is_abstained_and_keeps_its_probabilities_without_a_gardner_string() {
        let doubted = event(vec![AbstainReason::LowConfidence], Some(heads(4)));
        assert_eq!((doubted.status, doubted.gardner.as_deref()), (GradeStatus::Abstained, None));
        let json = serde_json::to_value(&doubted).unwrap();
        assert_eq!(json["exp"]["grade"], 4);
        assert!(json.get("gardner").is_none(), "{json}");
    }

    #[test]
    fn a_frame_unlike_the_training_set_keeps_its_heads_and_says_how_far_it_is() {
        let far = event(vec![AbstainReason::OutOfDistribution], Some(heads(4)));
        let json = serde_json::to_value(far.clone().with_training_distance(Some(31.416))).unwrap();
        assert_eq!((&json["training_distance"], &json["exp"]["grade"]), (&31.42.into(), &4.into()));
        assert!(json.get("gardner").is_none(), "{json}");
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            let json = serde_json::to_value(far.clone().with_training_distance(unknown)).unwrap();
            assert!(json.get("training_distance").is_none(), "{json}");
        }
    }

    #[test]
    fn a_frame_that_failed_the_quality_gate_carries_no_heads() {
        let json = serde_json::to_value(event(vec![AbstainReason::Blurred], None)).unwrap();
        assert_eq!(
            (&json["status"], &json["reasons"]),
            (&"abstained".into(), &serde_json::json!(["blurred"]))
        );
        assert!(json.get("exp").is_none(), "{json}");
    }

    #[test]
    fn hpi_is_rounded_to_hundredths() {
        let hpi = event(vec![], Some(heads(4))).hpi;
        assert!((hpi - 116.08).abs() < 1e-12, "{hpi}");
    }

    #[test]
    fn the_id_depends_on_every_part_and_on_where_one_ends() {
        let id = |embryo: &str, run, plane, rest: [&str; 3]| {
            let frame = FrameId { embryo_id: embryo.to_owned(), run, focal_plane_index: plane };
            GradeId::new(&frame, rest[0], rest[1], rest[2])
        };
        let ids = [
            id("E1", 2, 3, ["i", "m", "v"]),
            id("E", 12, 3, ["i", "m", "v"]),
            id("E1", 23, 0, ["i", "m", "v"]),
            id("E1", 2, 4, ["i", "m", "v"]),
            id("E1", 2, 3, ["im", "", "v"]),
            id("E1", 2, 3, ["i", "mv", ""]),
            id("E1", 2, 3, ["i", "m", "w"]),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(id("E1", 2, 3, ["i", "m", "v"]), ids[0]);
        assert_eq!(ids[0].as_str().len(), 64);
    }
}

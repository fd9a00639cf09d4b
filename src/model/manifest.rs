//! `manifest.json` of a model bundle: what the models are, what they take, what they answer.

mod check;

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::domain::{Head, label_enum, object, present, whole};

/// A model bundle's manifest: `schemas/manifest.v1.schema.json`. Unknown fields are refused: they may be a setting of a newer version
/// that changes what the model means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the bundle.
    pub name: String,
    /// Version of the bundle.
    pub version: String,
    /// Date of its making.
    #[serde(deserialize_with = "check::date")]
    pub created: NaiveDate,
    /// SPDX expression.
    pub license: String,
    /// What the models were trained on, in words, for whoever has to judge the grades.
    pub training_data: String,
    /// True when the multitask network has random weights: its grades mean nothing.
    pub untrained: bool,
    /// The picture both models take.
    #[serde(deserialize_with = "object")]
    pub input: Input,
    /// The heads of the multitask network.
    #[serde(deserialize_with = "object")]
    pub heads: HeadManifests,
    /// The files.
    #[serde(deserialize_with = "object")]
    pub files: Files,
    /// From which distance on a picture counts as unlike the training set. Absent: never.
    #[serde(default, deserialize_with = "check::present_object", skip_serializing_if = "Option::is_none")]
    pub out_of_distribution: Option<OutOfDistribution>,
    /// Figures of the evaluation, by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, serde_json::Value>,
}

/// The picture that both models take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Width and height, pixels.
    #[serde(deserialize_with = "whole")]
    pub side_px: usize,
    /// Mean of each channel, subtracted after scaling to 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each channel, divided by afterwards.
    pub std: [f64; 3],
    /// How a grey picture becomes three channels.
    pub colour: Colour,
    /// How a rectangular picture becomes a square one.
    pub fit: Fit,
}

label_enum! {
    /// How a grey picture becomes three channels.
    Colour {
        /// The same grey value in all three.
        GreyReplicated = "grey_replicated",
    }
}

label_enum! {
    /// How a rectangular picture becomes a square one.
    Fit {
        /// The largest square in its centre.
        CenterCrop = "center_crop",
    }
}

/// The three heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadManifests {
    /// Expansion.
    #[serde(deserialize_with = "object")]
    pub exp: HeadManifest,
    /// Inner cell mass.
    #[serde(deserialize_with = "object")]
    pub icm: HeadManifest,
    /// Trophectoderm.
    #[serde(deserialize_with = "object")]
    pub te: HeadManifest,
}

impl HeadManifests {
    /// The head of that name.
    #[must_use]
    pub fn of(&self, head: Head) -> &HeadManifest {
        match head {
            Head::Exp => &self.exp,
            Head::Icm => &self.icm,
            Head::Te => &self.te,
        }
    }

    /// The head of that name, to be changed.
    pub fn of_mut(&mut self, head: Head) -> &mut HeadManifest {
        match head {
            Head::Exp => &mut self.exp,
            Head::Icm => &mut self.icm,
            Head::Te => &mut self.te,
        }
    }
}

/// One head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadManifest {
    /// Class labels in the order of the logits.
    pub classes: Vec<String>,
    /// Logits are divided by this before the softmax, 0.01 to 100.
    pub temperature: f64,
    /// No grade is given when the confidence is below this, 0 to 1. Absent: always a grade.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub abstain_below: Option<f64>,
}

/// The limit of what the models can judge. Needs the output `distance` of the multitask network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutOfDistribution {
    /// No grade is given when the Mahalanobis distance of a picture's embedding from the training set
    /// is above this; greater than 0.
    pub abstain_above: f64,
    /// Share of the held-out pictures within the limit, 0 to 1.
    pub accepts: f64,
}

impl OutOfDistribution {
    /// Whether a picture at this distance gets no grade. One whose distance is not a number gets none.
    #[must_use]
    pub fn refuses(&self, distance: f64) -> bool {
        distance.is_nan() || distance > self.abstain_above
    }
}

/// The files of a bundle by their role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Picture to embedding.
    #[serde(deserialize_with = "object")]
    pub embedding: ModelFile,
    /// Picture and embedding to grades.
    #[serde(deserialize_with = "object")]
    pub multitask: ModelFile,
    /// What the bundle says of the pictures it was made for, a [`Population`] as JSON. Absent: drift is not measured.
    ///
    /// [`Population`]: crate::domain::Population
    #[serde(default, deserialize_with = "check::present_object", skip_serializing_if = "Option::is_none")]
    pub population: Option<DataFile>,
}

/// A file that is no network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// File name within the bundle.
    pub path: String,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
    /// Length.
    #[serde(deserialize_with = "whole")]
    pub bytes: u64,
}

/// An ONNX file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// File name within the bundle.
    pub path: String,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
    /// Length.
    #[serde(deserialize_with = "whole")]
    pub bytes: u64,
    /// ONNX opset of the standard operators.
    #[serde(deserialize_with = "whole")]
    pub opset: u32,
    /// Arithmetic, not storage: a file that keeps its weights in half precision and computes in single
    /// precision is `fp32`.
    pub precision: Precision,
    /// Most frames in one run. 1 where an answer would depend on the rest of the batch, as it does
    /// with dynamic int8, which scales over all of it.
    #[serde(deserialize_with = "whole")]
    pub max_batch_frames: usize,
}

label_enum! {
    /// Arithmetic of a model, however its weights are stored.
    Precision {
        /// 8-bit integers.
        Int8 = "int8",
        /// Half precision.
        Fp16 = "fp16",
        /// Single precision.
        Fp32 = "fp32",
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// A text that names the field, its value and what is expected.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let manifest: Self = object(&mut reader)
            .and_then(|manifest| reader.end().map(|()| manifest))
            .map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!("../../models/demo/manifest.json");

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json: serde_json::Value = serde_json::from_str(DEMO).unwrap();
        change(&mut json);
        Manifest::from_json(json.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn the_demo_manifest_survives_json() {
        let manifest = Manifest::from_json(DEMO.as_bytes()).unwrap();
        let json = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
    }

    #[test]
    fn another_class_order_is_refused() {
        let error = refusal(|json| json["heads"]["te"]["classes"] = serde_json::json!(["C", "B", "A"]));
        assert!(error.contains("heads.te.classes"), "{error}");
        let error = refusal(|json| json["heads"]["exp"]["classes"] = serde_json::json!(["1", "2"]));
        assert!(error.contains("heads.exp.classes"), "{error}");
    }

    #[test]
    fn an_unknown_or_missing_field_is_refused() {
        assert!(refusal(|json| json["input"]["gamma"] = 2.into()).contains("gamma"));
        let error = refusal(|json| drop(json.as_object_mut().unwrap().remove("untrained")));
        assert!(error.contains("untrained"), "{error}");
    }

    #[test]
    fn a_bundle_that_does_not_say_what_it_was_trained_on_is_refused() {
        assert!(refusal(|json| json["training_data"] = " ".into()).contains("training_data"));
        assert!(refusal(|json| json["license"] = "".into()).contains("license"));
        assert!(refusal(|json| json["created"] = "yesterday".into()).contains("yesterday"));
    }

    #[test]
    fn a_limit_of_the_distribution_that_nothing_or_everything_passes_is_refused() {
        let limit = |above: f64, accepts: f64| {
            refusal(|json| {
                json["out_of_distribution"] =
                    serde_json::json!({ "abstain_above": above, "accepts": accepts });
            })
        };
        assert!(limit(0.0, 0.99).contains("out_of_distribution.abstain_above"));
        assert!(limit(25.0, 1.01).contains("out_of_distribution.accepts"));
    }

    #[test]
    fn only_what_lies_beyond_the_limit_or_nowhere_is_refused() {
        let limit = OutOfDistribution { abstain_above: 25.0, accepts: 0.99 };
        assert!(!limit.refuses(0.0) && !limit.refuses(25.0));
        assert!(limit.refuses(25.1) && limit.refuses(f64::INFINITY) && limit.refuses(f64::NAN));
    }

    #[test]
    fn a_file_outside_the_bundle_is_refused() {
        for path in ["../other.onnx", "/etc/hostname", ".hidden", "sub/file.onnx", ""] {
            let error = refusal(|json| json["files"]["embedding"]["path"] = path.into());
            assert!(error.contains("files.embedding.path"), "{error}");
        }
    }

    #[test]
    fn numbers_that_would_ruin_every_grade_are_refused() {
        assert!(refusal(|json| json["input"]["std"][1] = 0.into()).contains("input.std"));
        for temperature in [0.0, 0.009, 100.1, -1.0] {
            let error = refusal(|json| json["heads"]["icm"]["temperature"] = temperature.into());
            assert!(error.contains("heads.icm.temperature"), "{error}");
        }
        for limit in [-0.1, 1.1] {
            let error = refusal(|json| json["heads"]["icm"]["abstain_below"] = limit.into());
            assert!(error.contains("heads.icm.abstain_below"), "{error}");
        }
        assert!(refusal(|json| json["input"]["mean"][0] = 1e39.into()).contains("input.mean"));
        assert!(refusal(|json| json["input"]["side_px"] = 200.into()).contains("side_px"));
    }
}

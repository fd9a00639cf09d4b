//! `manifest.json` of a model bundle: what the models are, what they take, what they answer.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::multitask::SIDE_PX;
use crate::domain::{Expansion, GradeClass, Letter};

/// Most frames that a manifest may allow in one run of a model.
const MAX_BATCH_FRAMES: usize = 4_096;
/// Largest file that a manifest may name: ten times DINOv2 ViT-S in single precision.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A model bundle's manifest. Unknown fields are refused: they may be a setting of a newer version
/// that changes what the model means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the bundle.
    pub name: String,
    /// Version of the bundle.
    pub version: String,
    /// Date of its making.
    pub created: NaiveDate,
    /// SPDX expression.
    pub license: String,
    /// What the models were trained on, in words, for whoever has to judge the grades.
    pub training_data: String,
    /// True when the multitask network has random weights: its grades mean nothing.
    pub untrained: bool,
    /// The picture both models take.
    pub input: Input,
    /// The heads of the multitask network.
    pub heads: HeadManifests,
    /// The files.
    pub files: Files,
    /// Figures of the evaluation, by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, serde_json::Value>,
}

/// The picture that both models take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Width and height, pixels.
    pub side_px: usize,
    /// Mean of each channel, subtracted after scaling to 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, divided by afterwards.
    pub std: [f32; 3],
    /// How a grey picture becomes three channels.
    pub colour: Colour,
    /// How a rectangular picture becomes a square one.
    pub fit: Fit,
}

/// How a grey picture becomes three channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// The same grey value in all three.
    GreyReplicated,
}

/// How a rectangular picture becomes a square one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The largest square in its centre.
    CenterCrop,
}

/// The three heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadManifests {
    /// Expansion.
    pub exp: HeadManifest,
    /// Inner cell mass.
    pub icm: HeadManifest,
    /// Trophectoderm.
    pub te: HeadManifest,
}

/// One head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadManifest {
    /// Class labels in the order of the logits.
    pub classes: Vec<String>,
    /// Logits are divided by this before the softmax.
    pub temperature: f64,
    /// No grade is given when the confidence is below this, 0 to 1. Absent: always a grade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abstain_below: Option<f64>,
}

/// The files of a bundle by their role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Picture to embedding.
    pub embedding: ModelFile,
    /// Picture and embedding to grades.
    pub multitask: ModelFile,
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
    pub bytes: u64,
    /// ONNX opset of the standard operators.
    pub opset: u32,
    /// Arithmetic.
    pub precision: Precision,
    /// Most frames in one run. 1 where an answer would depend on the rest of the batch, as it does
    /// with dynamic int8, which scales over all of it.
    pub max_batch_frames: usize,
    /// The file is not in the bundle: it is made from this when it is first needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Generated>,
}

/// What an untrained multitask network is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// Seed of the random weights.
    pub seed: u64,
}

/// Arithmetic of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 8-bit integers.
    Int8,
    /// Half precision.
    Fp16,
    /// Single precision.
    Fp32,
}

impl Precision {
    /// The spelling in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
        }
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// A text that names the field, its value and what is expected.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        for (field, value) in [("name", &self.name), ("version", &self.version)] {
            if !(1..=64).contains(&value.len()) || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!("{field} {value:?} is not 1 to 64 ASCII characters without spaces"));
            }
        }
        for (field, value) in [("license", &self.license), ("training_data", &self.training_data)] {
            if value.trim().is_empty() {
                return Err(format!("{field} is empty; say what it is, or \"none\""));
            }
        }
        if self.input.side_px != SIDE_PX {
            return Err(format!("input.side_px is {}, expected {SIDE_PX}", self.input.side_px));
        }
        if !self.input.mean.iter().all(|mean| mean.is_finite()) {
            return Err(format!("input.mean {:?} is not finite", self.input.mean));
        }
        if !self.input.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Err(format!("input.std {:?} is not positive", self.input.std));
        }
        self.heads.exp.check::<Expansion>("exp")?;
        self.heads.icm.check::<Letter>("icm")?;
        self.heads.te.check::<Letter>("te")?;
        self.files.embedding.check("embedding")?;
        self.files.multitask.check("multitask")?;
        if self.files.embedding.generated.is_some() {
            return Err("files.embedding.generated: only the multitask network can be generated".to_owned());
        }
        if self.files.multitask.generated.is_some() && !self.untrained {
            return Err("untrained is false although files.multitask is generated from a seed".to_owned());
        }
        Ok(())
    }
}

impl HeadManifest {
    fn check<G: GradeClass>(&self, head: &str) -> Result<(), String> {
        let expected = G::ALL.iter().map(|class| class.label());
        if !self.classes.iter().map(String::as_str).eq(expected.clone()) {
            let expected: Vec<_> = expected.collect();
            return Err(format!("heads.{head}.classes is {:?}, expected {expected:?}", self.classes));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("heads.{head}.temperature {} is not positive", self.temperature));
        }
        match self.abstain_below {
            Some(limit) if !(0.0..=1.0).contains(&limit) => {
                Err(format!("heads.{head}.abstain_below {limit} is not within 0 and 1"))
            }
            _ => Ok(()),
        }
    }
}

impl ModelFile {
    fn check(&self, role: &str) -> Result<(), String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.path.is_empty() || self.path.starts_with('.') || !self.path.bytes().all(plain) {
            return Err(format!(
                "files.{role}.path {:?} is not the plain name of a file in the bundle",
                self.path
            ));
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_hex) {
            return Err(format!("files.{role}.sha256 is not 64 lower-case hexadecimal digits"));
        }
        if !(1..=MAX_FILE_BYTES).contains(&self.bytes) {
            return Err(format!("files.{role}.bytes {} is not within 1 and {MAX_FILE_BYTES}", self.bytes));
        }
        if !(1..=MAX_BATCH_FRAMES).contains(&self.max_batch_frames) {
            let frames = self.max_batch_frames;
            return Err(format!(
                "files.{role}.max_batch_frames {frames} is not within 1 and {MAX_BATCH_FRAMES}"
            ));
        }
        Ok(())
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
        assert!(refusal(|json| json["created"] = "yesterday".into()).contains("line"));
    }

    #[test]
    fn a_generated_network_cannot_pass_as_trained() {
        assert!(refusal(|json| json["untrained"] = false.into()).contains("untrained"));
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
        assert!(refusal(|json| json["heads"]["icm"]["temperature"] = 0.into()).contains("temperature"));
        assert!(refusal(|json| json["heads"]["icm"]["abstain_below"] = 2.into()).contains("abstain_below"));
        assert!(refusal(|json| json["input"]["side_px"] = 200.into()).contains("side_px"));
    }
}

//! What the fields of a manifest may hold. The schema says the same; a test holds the two together.

use chrono::NaiveDate;
use serde::de::{Deserialize, Deserializer, Error};

use super::{DataFile, HeadManifest, Manifest, ModelFile, OutOfDistribution};
use crate::domain::{Expansion, GradeClass, Letter, object};
use crate::model::multitask::SIDE_PX;

/// Longest name, version.
const MAX_LABEL_BYTES: usize = 64;
/// Longest SPDX expression.
const MAX_LICENSE_BYTES: usize = 256;
/// Most frames that a manifest may allow in one run of a model.
const MAX_BATCH_FRAMES: usize = 4_096;
/// Largest file that a manifest may name: ten times DINOv2 ViT-S in single precision.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Largest population: the moments of a long embedding, and a few shares.
const MAX_POPULATION_BYTES: u64 = 1 << 20;
/// Means and deviations are those of pictures scaled to 0..1; some networks want 0..255.
const MAX_CHANNEL: f64 = 255.0;
/// A channel that hardly varies would be blown up to nothing but noise.
const MIN_STD: f64 = 0.001;
/// Beyond these every grade is certain, or every class as likely as the other.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// A day of this century as `2026-01-31`; chrono alone would take `+2026- 1-31` too.
pub(super) fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NaiveDate, D::Error> {
    let text = String::deserialize(deserializer)?;
    let plain = text.starts_with("20")
        && text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| D::Error::custom(format!("{text:?} is not a date such as 2026-01-31")))
}

/// An object that may be absent; null and an array are not objects.
pub(super) fn present_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    object(deserializer).map(Some)
}

impl Manifest {
    pub(super) fn check(&self) -> Result<(), String> {
        for (field, value) in [("name", &self.name), ("version", &self.version)] {
            if !(1..=MAX_LABEL_BYTES).contains(&value.len())
                || !value.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(format!(
                    "{field} {value:?} is not 1 to {MAX_LABEL_BYTES} ASCII characters without spaces"
                ));
            }
        }
        let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if self.license.len() > MAX_LICENSE_BYTES
            || !self.license.bytes().all(plain)
            || !self.license.bytes().next().is_some_and(|byte| byte.is_ascii_graphic())
        {
            return Err(format!("license {:?} is not an SPDX expression", self.license));
        }
        if !self.training_data.chars().any(|character| character > ' ') {
            return Err("training_data is empty; say what it is, or \"none\"".to_owned());
        }
        if self.input.side_px != SIDE_PX {
            return Err(format!("input.side_px is {}, expected {SIDE_PX}", self.input.side_px));
        }
        if !self.input.mean.iter().all(|mean| mean.abs() <= MAX_CHANNEL) {
            return Err(format!(
                "input.mean {:?} is not within -{MAX_CHANNEL} and {MAX_CHANNEL}",
                self.input.mean
            ));
        }
        if !self.input.std.iter().all(|std| (MIN_STD..=MAX_CHANNEL).contains(std)) {
            return Err(format!("input.std {:?} is not within {MIN_STD} and {MAX_CHANNEL}", self.input.std));
        }
        self.heads.exp.check::<Expansion>("exp")?;
        self.heads.icm.check::<Letter>("icm")?;
        self.heads.te.check::<Letter>("te")?;
        if let Some(limit) = &self.out_of_distribution {
            limit.check()?;
        }
        self.files.embedding.check("embedding")?;
        self.files.multitask.check("multitask")?;
        match &self.files.population {
            Some(DataFile { path, sha256, bytes }) => {
                check_file("population", path, sha256, *bytes, MAX_POPULATION_BYTES)
            }
            None => Ok(()),
        }
    }
}

impl HeadManifest {
    fn check<G: GradeClass>(&self, head: &str) -> Result<(), String> {
        let expected = G::ALL.iter().map(|class| class.label());
        if !self.classes.iter().map(String::as_str).eq(expected.clone()) {
            let expected: Vec<_> = expected.collect();
            return Err(format!("heads.{head}.classes is {:?}, expected {expected:?}", self.classes));
        }
        if !TEMPERATURES.contains(&self.temperature) {
            let (least, most) = (TEMPERATURES.start(), TEMPERATURES.end());
            return Err(format!(
                "heads.{head}.temperature {} is not within {least} and {most}",
                self.temperature
            ));
        }
        match self.abstain_below {
            Some(limit) if !(0.0..=1.0).contains(&limit) => {
                Err(format!("heads.{head}.abstain_below {limit} is not within 0 and 1"))
            }
            _ => Ok(()),
        }
    }
}

impl OutOfDistribution {
    fn check(&self) -> Result<(), String> {
        if self.abstain_above <= 0.0 {
            let limit = self.abstain_above;
            return Err(format!("out_of_distribution.abstain_above {limit} is not above 0"));
        }
        if !(0.0..=1.0).contains(&self.accepts) {
            return Err(format!("out_of_distribution.accepts {} is not within 0 and 1", self.accepts));
        }
        Ok(())
    }
}

impl ModelFile {
    fn check(&self, role: &str) -> Result<(), String> {
        check_file(role, &self.path, &self.sha256, self.bytes, MAX_FILE_BYTES)?;
        if !(1..=MAX_BATCH_FRAMES).contains(&self.max_batch_frames) {
            let frames = self.max_batch_frames;
            return Err(format!(
                "files.{role}.max_batch_frames {frames} is not within 1 and {MAX_BATCH_FRAMES}"
            ));
        }
        Ok(())
    }
}

fn check_file(role: &str, path: &str, sha256: &str, bytes: u64, max_bytes: u64) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if path.is_empty() || path.starts_with('.') || !path.bytes().all(plain) {
        return Err(format!("files.{role}.path {path:?} is not the plain name of a file in the bundle"));
    }
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if sha256.len() != 64 || !sha256.bytes().all(is_hex) {
        return Err(format!("files.{role}.sha256 is not 64 lower-case hexadecimal digits"));
    }
    if !(1..=max_bytes).contains(&bytes) {
        return Err(format!("files.{role}.bytes {bytes} is not within 1 and {max_bytes}"));
    }
    Ok(())
}

//! The options of the adapter.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::AdapterError;

/// How the export folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Each image with a JSON file beside it that says everything.
    Sidecar,
    /// Names such as `D2026.01.31_S00001_I0001_P-3_WELL3_RUN123.jpeg`, and a JSON file for each slide.
    Embryoscope,
    /// Folders of ASTEC incubators with `DishInfo.ini`, and a JSON file for each dish.
    Astec,
}

/// Where an EmbryoScope export says when a photograph was taken; its names do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapturedAt {
    /// In the slide's file: `captures`, a time for each run.
    SlideFile,
    /// In the modification time of the image: right only where nothing on the way changes it.
    Modified,
}

/// Where an EmbryoScope export says which focal plane a photograph shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaneNames {
    /// In the folder: `F-15`, `F0`, `F15`, micrometres.
    Folder,
    /// At the end of the name, `_FP0` being the first of `focal_offsets_um`.
    From0,
    /// At the end of the name, `_FP1` being the first of `focal_offsets_um`.
    From1,
    /// Nowhere: there is one plane.
    None,
}

/// Options of `memebg adapt`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSettings {
    /// The export folder. Only ever read.
    pub folder: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// Site of every frame event.
    pub site_id: String,
    /// Remembers what was published; outside the export folder.
    pub state_file: PathBuf,
    /// Holds the secret with which ids that may be names are made pseudonyms. Empty: such ids are refused.
    pub pseudonym_key_file: PathBuf,
    /// Between two looks at the folder.
    pub poll_seconds: u64,
    /// How long size and modification time of a file must have stood still before it is read.
    pub settle_seconds: u64,
    /// How long a file may lack what belongs to it, or be unreadable, before that is an error.
    pub report_after_seconds: u64,
    /// Folders below each other that are looked into.
    pub max_depth: usize,
    /// Most images in the folder.
    pub max_files: usize,
    /// Largest image.
    pub max_image_bytes: u64,
    /// Largest image that is sent within its event.
    pub inline_up_to_bytes: u64,
    /// `file:` URI under which the service sees the folder, for larger images. Empty: those are refused.
    pub uri_prefix: String,
    /// Manufacturer of the incubator; not for `sidecar`, which says it for each image.
    pub instrument_vendor: String,
    /// Model of the incubator, likewise.
    pub instrument_model: String,
    /// Serial number; for `astec` only.
    pub instrument_serial: String,
    /// When a photograph was taken; for `embryoscope`.
    pub captured_at: CapturedAt,
    /// Which focal plane it shows; for `embryoscope`.
    pub plane_names: PlaneNames,
    /// Focal planes of a capture, micrometres from the central one, in rising order; for `embryoscope`.
    pub focal_offsets_um: Vec<f64>,
}

impl AdapterSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`AdapterError::Setting`] naming the option.
    pub fn validate(&self) -> Result<(), AdapterError> {
        for (option, value, least, most) in [
            ("poll_seconds", self.poll_seconds, 1, 3_600),
            ("settle_seconds", self.settle_seconds, 0, 3_600),
            ("report_after_seconds", self.report_after_seconds, 0, 86_400),
            ("max_depth", self.max_depth as u64, 1, 16),
            ("max_files", self.max_files as u64, 1, 2_000_000),
            ("max_image_bytes", self.max_image_bytes, 1, 32 * 1_024 * 1_024),
            ("inline_up_to_bytes", self.inline_up_to_bytes, 0, self.max_image_bytes),
        ] {
            if !(least..=most).contains(&value) {
                return Err(setting(option, format!("{value} is not within {least} and {most}")));
            }
        }
        let offsets = &self.focal_offsets_um;
        let rising = offsets.iter().all(|offset| offset.is_finite()) && offsets.is_sorted_by(|a, b| a < b);
        if !rising || !(1..=1_000).contains(&offsets.len()) {
            return Err(setting("focal_offsets_um", "wants 1 to 1000 offsets in rising order"));
        }
        if self.plane_names == PlaneNames::None && offsets.len() != 1 {
            let why = format!("has {} planes, and plane_names = \"none\" means one", offsets.len());
            return Err(setting("focal_offsets_um", why));
        }
        Ok(())
    }

    /// Checks what `memebg adapt` needs beyond that, and nobody else.
    pub(super) fn require(&self) -> Result<(), AdapterError> {
        let graphic =
            |text: &str| (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let named = |text: &str| (1..=128).contains(&text.chars().count());
        let told = self.layout != Layout::Sidecar;
        let path = |path: &PathBuf| !path.as_os_str().is_empty();
        for (option, holds, want) in [
            ("folder", path(&self.folder), "name the export folder"),
            ("state_file", path(&self.state_file), "name a file outside the export folder, on a local disk"),
            ("site_id", graphic(&self.site_id), "1 to 128 printable ASCII characters without spaces"),
            ("instrument_vendor", !told || named(&self.instrument_vendor), "1 to 128 characters"),
            ("instrument_model", !told || named(&self.instrument_model), "1 to 128 characters"),
            (
                "instrument_serial",
                self.layout != Layout::Astec || serial(&self.instrument_serial),
                "1 to 32 letters and digits: it becomes a part of every embryo id",
            ),
        ] {
            if !holds {
                return Err(setting(option, format!("is empty or cannot be used; {want}")));
            }
        }
        Ok(())
    }
}

fn serial(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(super) fn setting(option: &'static str, problem: impl Into<String>) -> AdapterError {
    AdapterError::Setting { option, problem: problem.into() }
}

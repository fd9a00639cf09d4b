//! The labelled set on its way to the disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::choice::Chosen;
use crate::cli::published::Wanted;
use crate::domain::{Image, Label};
use crate::model::multitask::SIDE_PX;
use crate::pipeline::decode::{self, DecodeSettings};

/// Photographs that are looked for and those that have been written. What is looked for is not what was found: an image
/// that is not what its digest says, or cannot be decoded, is still looked for.
pub(super) struct LabelledSet {
    folder: PathBuf,
    limits: DecodeSettings,
    wanted: BTreeMap<String, Chosen>,
    labels: Vec<Label>,
    failed: Option<std::io::Error>,
}

impl LabelledSet {
    pub(super) fn new(folder: &Path, limits: &DecodeSettings) -> std::io::Result<Self> {
        fs::create_dir_all(folder.join("images"))?;
        let (wanted, labels) = (BTreeMap::new(), Vec::new());
        Ok(Self { folder: folder.to_owned(), limits: limits.clone(), wanted, labels, failed: None })
    }

    pub(super) fn want(&mut self, sha256: String, chosen: Chosen) {
        self.wanted.insert(sha256, chosen);
    }

    /// Embryos whose photograph was written.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether everything that was found could be written.
    pub(super) fn settled(mut self) -> anyhow::Result<Self> {
        self.failed.take().map_or(Ok(self), |error| Err(error.into()))
    }

    /// The labels, last: a folder without them is no labelled set.
    pub(super) fn write(&self) -> std::io::Result<()> {
        let mut labels = self.labels.clone();
        labels.sort_by(|a, b| a.image.cmp(&b.image));
        fs::write(self.folder.join("labels.csv"), Label::write_all(&labels))
    }
}

impl Wanted for LabelledSet {
    fn wants(&self, sha256: &str) -> bool {
        self.wanted.contains_key(sha256)
    }

    fn missing(&self) -> usize {
        self.wanted.len()
    }

    fn take(&mut self, image: &Image, bytes: Vec<u8>) {
        if let Err(rejection) = decode::picture(&bytes, image, &self.limits, SIDE_PX) {
            tracing::warn!(sha256 = image.sha256, code = %rejection.code, "an image cannot be used");
            return;
        }
        let Some(chosen) = self.wanted.remove(&image.sha256) else { return };
        let extension = image.media_type.as_str().strip_prefix("image/").unwrap_or("bin");
        let name = format!("{}.{extension}", image.sha256);
        if let Err(error) = fs::write(self.folder.join("images").join(&name), bytes) {
            self.failed.get_or_insert(error);
            return;
        }
        // The id itself may hold what a label file cannot, or should not.
        let group = Sha256::digest(&chosen.embryo_id);
        let group = Some(hex::encode(group.get(..8).unwrap_or_default()));
        self.labels.push(Label { line: 0, image: name, truth: chosen.truth, group });
    }

    fn give_up(&mut self, sha256: &str, why: String) {
        tracing::warn!(sha256, "an image is not to be had: {why}");
    }
}

//! The photographs of a report: found by their digest, made small.

use std::collections::{BTreeMap, BTreeSet};

use image::ExtendedColorType;

use crate::board::images::jpeg;
use crate::cli::published::Wanted;
use crate::domain::Image;
use crate::pipeline::decode::{self, DecodeSettings};
use crate::report::Case;

/// Side of a photograph among the others, pixels: printed at 21 mm, 270 of them are an inch.
const SIDE_PX: u32 = 224;

/// What is looked for, and what has been found of it. An image that cannot be decoded is still looked for.
pub(super) struct Photographs {
    limits: DecodeSettings,
    missing: BTreeSet<String>,
    /// Of these the image itself is kept: the model is asked about it.
    whole: BTreeSet<String>,
    small: BTreeMap<String, Result<Vec<u8>, String>>,
    kept: BTreeMap<String, (Image, Vec<u8>)>,
}

impl Photographs {
    pub(super) fn new(limits: &DecodeSettings, cases: &[Case]) -> Self {
        let missing = cases.iter().flat_map(Case::wanted_images).map(str::to_owned).collect();
        let whole =
            cases.iter().filter_map(Case::latest_graded).map(|event| event.image_sha256.clone()).collect();
        Self { limits: limits.clone(), missing, whole, small: BTreeMap::new(), kept: BTreeMap::new() }
    }

    /// The image itself, where it was to be kept.
    pub(super) fn whole(&self, sha256: &str) -> Option<&(Image, Vec<u8>)> {
        self.kept.get(sha256)
    }

    /// What is shown of an embryo.
    pub(super) fn of(&self, case: &Case) -> BTreeMap<String, Result<Vec<u8>, String>> {
        let found = |sha256: &str| {
            let small = self.small.get(sha256).cloned();
            (sha256.to_owned(), small.unwrap_or_else(|| Err("not to be had any more".to_owned())))
        };
        case.wanted_images().into_iter().map(found).collect()
    }
}

impl Wanted for Photographs {
    fn wants(&self, sha256: &str) -> bool {
        self.missing.contains(sha256)
    }

    fn missing(&self) -> usize {
        self.missing.len()
    }

    fn take(&mut self, image: &Image, bytes: Vec<u8>) {
        let small = decode::picture(&bytes, image, &self.limits, SIDE_PX as usize)
            .map_err(|rejection| format!("cannot be shown: {}", rejection.code))
            .and_then(|decoded| jpeg(decoded.picture.grey(), SIDE_PX, ExtendedColorType::L8));
        if small.is_ok() {
            self.missing.remove(&image.sha256);
            if self.whole.contains(&image.sha256) {
                self.kept.insert(image.sha256.clone(), (image.clone(), bytes));
            }
        }
        self.small.insert(image.sha256.clone(), small);
    }

    fn give_up(&mut self, sha256: &str, why: String) {
        self.small.insert(sha256.to_owned(), Err(why));
    }
}

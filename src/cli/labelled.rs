//! Labelled pictures, as the service would see them.

use std::path::Path;

use anyhow::Context as _;

use super::progress::{bar, counted};
use crate::config::Config;
use crate::domain::Picture;
use crate::incubator::read_image;
use crate::model::multitask::SIDE_PX;
use crate::model::{Answer, Manifest, ModelSettings, load_examiner};
use crate::pipeline::decode;
use crate::training::LabelledImages;

/// Reads and decodes a file as the service does a frame; an error says what is wrong without the path.
pub(super) fn decode(config: &Config) -> impl Fn(&Path) -> Result<Picture, String> + Sync {
    let limits = config.decode.clone();
    move |path| {
        let (bytes, image) = read_image(path).map_err(|error| {
            let message = error.to_string();
            let path = format!("{} ", path.display());
            message.strip_prefix(&path).map_or(message.clone(), str::to_owned)
        })?;
        let decoded =
            decode::picture(&bytes, &image, &limits, SIDE_PX).map_err(|rejection| rejection.message)?;
        Ok(decoded.picture)
    }
}

/// Asks a finished bundle about every picture of a set. Gives its answers, and what it says of itself; `what` is what
/// the progress bar counts.
pub(super) fn asked(
    settings: &ModelSettings,
    images: &LabelledImages,
    (what, quiet): (&str, bool),
) -> anyhow::Result<(Vec<Answer>, Manifest)> {
    // One picture at a time: no other batch size needs to be warmed.
    let settings = ModelSettings { batch_sizes: vec![1], ..settings.clone() };
    let mut model = load_examiner(&settings)?;
    let bar = bar(what, quiet)?;
    let mut answers = Vec::with_capacity(images.samples.len());
    for sample in &images.samples {
        answers.push(model.answer(&sample.picture).with_context(|| sample.name.clone())?);
        counted(&bar, answers.len(), images.samples.len());
    }
    Ok((answers, model.manifest().clone()))
}

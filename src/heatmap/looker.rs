//! A model that is asked where it looked.

use crate::domain::{Image, Picture, Rejection};
use crate::model::bundle::digest_of;
use crate::model::{Map, ModelError, ModelSettings, OnnxGrader, load_examiner};
use crate::pipeline::decode::{self, DecodeSettings};
use crate::pipeline::grade::{Grader as _, GraderError};

/// The configured bundle. It is loaded when a photograph comes that it has graded, and tried once: what is wrong with
/// a bundle stays wrong.
pub struct Looker {
    settings: ModelSettings,
    digest: Option<Result<String, Unusable>>,
    model: Option<Result<Box<OnnxGrader>, Unusable>>,
}

/// The log says why.
#[derive(Debug, Clone, Copy)]
struct Unusable;

/// A photograph as the model saw it, and where EXP, ICM and TE looked.
pub struct Seen {
    /// Of the side that the model takes.
    pub picture: Picture,
    /// Of EXP, ICM and TE.
    pub maps: [Map; 3],
}

/// Why it is not known where the model looked.
#[derive(Debug, thiserror::Error)]
pub enum NotSeen {
    /// There is no model.
    #[error("the configured bundle cannot be loaded; the log says why")]
    Bundle,
    /// Another model made the grade.
    #[error(
        "the configured bundle, {0}, is another one than the one that made this grade, and looks elsewhere"
    )]
    OtherBundle(String),
    /// The photograph cannot be decoded, or is not the one it should be.
    #[error("the photograph cannot be looked at: {0}")]
    Photograph(#[from] Rejection),
    /// The model does not answer.
    #[error("the model gave no answer: {0}")]
    Model(#[from] GraderError),
    /// The model answers without maps.
    #[error("the bundle has no maps")]
    NoMaps,
}

impl From<Unusable> for NotSeen {
    fn from(_: Unusable) -> Self {
        Self::Bundle
    }
}

impl Looker {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(settings: &ModelSettings) -> Self {
        // One photograph at a time: no other batch size needs to be warmed.
        let settings = ModelSettings { batch_sizes: vec![1], ..settings.clone() };
        Self { settings, digest: None, model: None }
    }

    /// Where the model looked in a photograph, of which the bundle of that digest made the grade. Blocks while the
    /// model is loaded and while it runs.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn look(
        &mut self,
        model_digest: &str,
        (image, bytes): (&Image, &[u8]),
        limits: &DecodeSettings,
    ) -> Result<Seen, NotSeen> {
        let settings = &self.settings;
        let digest = self.digest.get_or_insert_with(|| usable(digest_of(&settings.bundle)));
        let digest = digest.as_ref().map_err(|unusable| *unusable)?;
        if digest != model_digest {
            return Err(NotSeen::OtherBundle(digest.clone()));
        }
        let model = self.model.get_or_insert_with(|| usable(load_examiner(settings).map(Box::new)));
        let model = model.as_mut().map_err(|unusable| *unusable)?;
        // Read a second time, it may be another bundle by now.
        let loaded = &model.identity().model.digest;
        if loaded != model_digest {
            return Err(NotSeen::OtherBundle(loaded.clone()));
        }
        let picture = decode::picture(bytes, image, limits, model.input_side_px())?.picture;
        let maps = model.answer(&picture)?.maps.ok_or(NotSeen::NoMaps)?;
        Ok(Seen { picture, maps })
    }
}

fn usable<T>(result: Result<T, ModelError>) -> Result<T, Unusable> {
    result.map_err(|error| {
        tracing::warn!(%error, "no heat maps: the configured bundle cannot be loaded");
        Unusable
    })
}

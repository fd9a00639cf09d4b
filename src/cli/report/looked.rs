//! Where the model looked in the latest graded frame, if this is the model that graded it.

use image::ExtendedColorType;

use super::photographs::Photographs;
use crate::board::images::jpeg;
use crate::domain::{GradeEvent, Head, Image};
use crate::heatmap::{PANEL_PX, overlay};
use crate::model::bundle::digest_of;
use crate::model::{ModelSettings, OnnxGrader, load_examiner};
use crate::pipeline::decode::{self, DecodeSettings};
use crate::pipeline::grade::Grader as _;
use crate::report::{Case, Looked};

/// The configured bundle. It is loaded when a frame comes that it has graded, and tried once: what is wrong with a
/// bundle stays wrong.
pub(super) struct Looker {
    settings: ModelSettings,
    digest: Option<String>,
    model: Option<Result<Box<OnnxGrader>, Unusable>>,
}

/// The log says why.
#[derive(Clone, Copy)]
struct Unusable;

const UNUSABLE: &str = "the configured bundle cannot be loaded; the log says why.";

impl Looker {
    pub(super) fn new(settings: &ModelSettings) -> Self {
        let digest = digest_of(&settings.bundle);
        let digest =
            digest.map_err(|error| tracing::warn!(%error, "no heat maps: the bundle cannot be read")).ok();
        // One photograph at a time: no other batch size needs to be warmed.
        let settings = ModelSettings { batch_sizes: vec![1], ..settings.clone() };
        Self { settings, digest, model: None }
    }

    pub(super) fn look(&mut self, case: &Case, photographs: &Photographs, limits: &DecodeSettings) -> Looked {
        let Some(event) = case.latest_graded() else {
            return Looked::Unknown("there is no graded photograph to look at.".to_owned());
        };
        let looked = self.maps(event, photographs.whole(&event.image_sha256), limits);
        looked.unwrap_or_else(Looked::Unknown)
    }

    fn maps(
        &mut self,
        event: &GradeEvent,
        image: Option<&(Image, Vec<u8>)>,
        limits: &DecodeSettings,
    ) -> Result<Looked, String> {
        let digest =
            self.digest.as_ref().ok_or("no bundle is configured that can be read; the log says why.")?;
        if *digest != event.model.digest {
            return Err(format!(
                "the configured bundle, {digest}, is another one than the one that made this grade, and looks elsewhere."
            ));
        }
        let (image, bytes) = image.ok_or("the latest graded photograph is not to be had any more.")?;
        let settings = &self.settings;
        let model = self.model.get_or_insert_with(|| {
            let loaded = load_examiner(settings).map(Box::new);
            loaded.map_err(|error| {
                tracing::warn!(%error, "no heat maps: the bundle cannot be loaded");
                Unusable
            })
        });
        let model = model.as_mut().map_err(|_| UNUSABLE)?;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "no heat maps of a photograph");
            "the model gave no answer; the log says why.".to_owned()
        };
        let picture =
            decode::picture(bytes, image, limits, model.input_side_px()).map_err(|error| failed(&error))?;
        let picture = picture.picture;
        let maps = model.answer(&picture).map_err(|error| failed(&error))?.maps;
        let [exp, icm, te] = maps.ok_or("the bundle has no maps.")?;
        let heads = event.heads.as_ref();
        let letters = [
            (Head::Icm, icm, heads.is_some_and(|it| it.icm.is_some())),
            (Head::Te, te, heads.is_some_and(|it| it.te.is_some())),
        ];
        let graded = [(Head::Exp, exp, true)].into_iter().chain(letters).filter(|(.., graded)| *graded);
        let maps = graded.map(|(head, map, _)| {
            Ok((head, jpeg(&overlay(&picture, &map), PANEL_PX, ExtendedColorType::Rgb8)?))
        });
        let maps = maps.collect::<Result<_, String>>()?;
        let plain =
            decode::picture(bytes, image, limits, PANEL_PX as usize).map_err(|error| failed(&error))?;
        let photograph = jpeg(plain.picture.grey(), PANEL_PX, ExtendedColorType::L8)?;
        Ok(Looked::Maps { photograph, maps })
    }
}

//! Where the model looked in the latest graded frame, if this is the model that graded it.

use image::ExtendedColorType;

use super::photographs::Photographs;
use crate::board::images::jpeg;
use crate::domain::{GradeEvent, Head, Image};
use crate::heatmap::{Looker, NotSeen, PANEL_PX, Seen, overlay};
use crate::pipeline::decode::{self, DecodeSettings};
use crate::report::{Case, Looked};

/// What the report says of it.
pub(super) fn look(
    looker: &mut Looker,
    case: &Case,
    photographs: &Photographs,
    limits: &DecodeSettings,
) -> Looked {
    let Some(event) = case.latest_graded() else {
        return Looked::Unknown("there is no graded photograph to look at.".to_owned());
    };
    let Some((image, bytes)) = photographs.whole(&event.image_sha256) else {
        return Looked::Unknown("the latest graded photograph is not to be had any more.".to_owned());
    };
    maps(looker, event, (image, bytes), limits).unwrap_or_else(Looked::Unknown)
}

fn maps(
    looker: &mut Looker,
    event: &GradeEvent,
    (image, bytes): (&Image, &[u8]),
    limits: &DecodeSettings,
) -> Result<Looked, String> {
    let seen = looker.look(&event.model.digest, (image, bytes), limits);
    let Seen { picture, maps: [exp, icm, te] } = seen.map_err(|error| said(&error))?;
    let heads = event.heads.as_ref();
    let letters = [
        (Head::Icm, icm, heads.is_some_and(|it| it.icm.is_some())),
        (Head::Te, te, heads.is_some_and(|it| it.te.is_some())),
    ];
    let graded = [(Head::Exp, exp, true)].into_iter().chain(letters).filter(|(.., graded)| *graded);
    let maps = graded
        .map(|(head, map, _)| Ok((head, jpeg(&overlay(&picture, &map), PANEL_PX, ExtendedColorType::Rgb8)?)));
    let maps = maps.collect::<Result<_, String>>()?;
    let plain = decode::picture(bytes, image, limits, PANEL_PX as usize);
    let plain = plain.map_err(|rejection| said(&rejection.into()))?;
    let photograph = jpeg(plain.picture.grey(), PANEL_PX, ExtendedColorType::L8)?;
    Ok(Looked::Maps { photograph, maps })
}

/// On paper stands nothing of the inside of a model or of a decoder: that is for the log.
fn said(error: &NotSeen) -> String {
    match error {
        NotSeen::Bundle | NotSeen::OtherBundle(_) | NotSeen::NoMaps => format!("{error}."),
        NotSeen::Photograph(_) | NotSeen::Model(_) => {
            tracing::warn!(%error, "no heat maps of a photograph");
            "the model gave no answer; the log says why.".to_owned()
        }
    }
}

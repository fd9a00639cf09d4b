//! What the two networks take and answer. Checked when they are loaded, so that a network of
//! another kind is refused with its name instead of failing on the first frame.

use ort::editor::ONNX_DOMAIN;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType};

use super::multitask::{EMBEDDING_WIDTH, MAP_SIDE, SIDE_PX};
use crate::domain::{Expansion, GradeClass, Letter};

/// Input of both networks: `[b, 3, side, side]`, normalised.
pub(super) const IMAGE: &str = "image";
/// Output of the first network and input of the second.
pub(super) const EMBEDDING: &str = "embedding";
/// Outputs of the second network: logits of the heads, and the layer that the heads share.
pub(super) const HEADS: [&str; 3] = ["exp", "icm", "te"];
const SHARED: &str = "shared";
/// Outputs that the second network may have: where each head looked, and how far the embedding is from
/// the training set.
pub(super) const MAPS: [&str; 3] = ["exp_map", "icm_map", "te_map"];
pub(super) const DISTANCE: &str = "distance";

/// Which of the outputs that it may have the multitask network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extras {
    pub(super) maps: bool,
    pub(super) distance: bool,
}

/// One tensor: its name and its lengths after the batch; `None` is any fixed length.
type Expected<'a> = (&'a str, Vec<Option<usize>>);

fn image() -> Expected<'static> {
    (IMAGE, vec![Some(3), Some(SIDE_PX), Some(SIDE_PX)])
}

/// Checks the opset that the manifest names.
///
/// # Errors
/// A text that names both.
pub(super) fn check_opset(session: &Session, expected: u32) -> Result<(), String> {
    match session.opset_for_domain(ONNX_DOMAIN) {
        Some(opset) if opset == expected => Ok(()),
        Some(opset) => Err(format!("has opset {opset}, the manifest says {expected}")),
        None => Err("has no opset".to_owned()),
    }
}

/// Checks the embedding network.
///
/// # Errors
/// A text that names the tensor, what it is and what is expected.
pub(super) fn check_embedding(session: &Session) -> Result<(), String> {
    check_encoder(session, EMBEDDING, EMBEDDING_WIDTH)
}

/// Checks a network that turns a picture into a vector.
///
/// # Errors
/// As [`check_embedding`].
pub(super) fn check_encoder(session: &Session, output: &str, width: usize) -> Result<(), String> {
    check("input", session.inputs(), &[image()], &[])?;
    check("output", session.outputs(), &[(output, vec![Some(width)])], &[])
}

/// Checks the multitask network. It has every map or none.
///
/// # Errors
/// As [`check_embedding`].
pub(super) fn check_multitask(session: &Session) -> Result<Extras, String> {
    let widths = [Expansion::ALL.len(), Letter::ALL.len(), Letter::ALL.len()];
    let mut outputs: Vec<Expected<'_>> =
        HEADS.into_iter().zip(widths).map(|(name, width)| (name, vec![Some(width)])).collect();
    outputs.push((SHARED, vec![None]));
    let mut optional: Vec<Expected<'_>> =
        MAPS.into_iter().map(|name| (name, vec![Some(MAP_SIDE), Some(MAP_SIDE)])).collect();
    optional.push((DISTANCE, Vec::new()));
    check("input", session.inputs(), &[image(), (EMBEDDING, vec![Some(EMBEDDING_WIDTH)])], &[])?;
    check("output", session.outputs(), &outputs, &optional)?;
    let has = |name: &str| session.outputs().iter().any(|outlet| outlet.name() == name);
    match MAPS.into_iter().filter(|name| has(name)).count() {
        0 => Ok(Extras { maps: false, distance: has(DISTANCE) }),
        3 => Ok(Extras { maps: true, distance: has(DISTANCE) }),
        _ => Err(format!("has some of the outputs {}, expected all or none", MAPS.join(", "))),
    }
}

fn check(
    kind: &str,
    found: &[Outlet],
    required: &[Expected<'_>],
    optional: &[Expected<'_>],
) -> Result<(), String> {
    if let Some((name, _)) = required.iter().find(|(name, _)| !found.iter().any(|o| o.name() == *name)) {
        return Err(format!("has no {kind} {name}, only {}", names(found)));
    }
    for outlet in found {
        let (name, lengths) = required
            .iter()
            .chain(optional)
            .find(|(name, _)| outlet.name() == *name)
            .ok_or_else(|| format!("has more {kind}s than the contract knows: {}", names(found)))?;
        let dtype = outlet.dtype();
        let shape = dtype.tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
        let fits = dtype.tensor_type() == Some(TensorElementType::Float32)
            && shape.len() == lengths.len() + 1
            && shape.first() == Some(&-1)
            && shape.iter().skip(1).zip(lengths).all(|(found, expected)| match expected {
                Some(length) => usize::try_from(*found) == Ok(*length),
                None => *found > 0,
            });
        if !fits {
            let lengths: String = lengths
                .iter()
                .map(|length| length.map_or(", fixed".to_owned(), |length| format!(", {length}")))
                .collect();
            return Err(format!("{kind} {name} is {dtype}, expected f32 [batch{lengths}]"));
        }
    }
    Ok(())
}

fn names(outlets: &[Outlet]) -> String {
    outlets.iter().map(Outlet::name).collect::<Vec<_>>().join(", ")
}

//! What the two networks take and answer. Checked when they are loaded, so that a network of
//! another kind is refused with its name instead of failing on the first frame.

use ort::editor::ONNX_DOMAIN;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType};

use super::multitask::{EMBEDDING_WIDTH, SIDE_PX};
use crate::domain::{Expansion, GradeClass, Letter};

/// Input of both networks: `[b, 3, side, side]`, normalised.
pub(super) const IMAGE: &str = "image";
/// Output of the first network and input of the second.
pub(super) const EMBEDDING: &str = "embedding";
/// Outputs of the second network: logits of the heads, and the layer that the heads share.
pub(super) const HEADS: [&str; 3] = ["exp", "icm", "te"];
const SHARED: &str = "shared";

/// One tensor: its name and its lengths after the batch; `None` is any fixed length.
type Expected = (&'static str, Vec<Option<usize>>);

fn image() -> Expected {
    (IMAGE, vec![Some(3), Some(SIDE_PX), Some(SIDE_PX)])
}

fn embedding() -> Expected {
    (EMBEDDING, vec![Some(EMBEDDING_WIDTH)])
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
    check("input", session.inputs(), &[image()])?;
    check("output", session.outputs(), &[embedding()])
}

/// Checks the multitask network.
///
/// # Errors
/// As [`check_embedding`].
pub(super) fn check_multitask(session: &Session) -> Result<(), String> {
    let widths = [Expansion::ALL.len(), Letter::ALL.len(), Letter::ALL.len()];
    let mut outputs: Vec<Expected> =
        HEADS.into_iter().zip(widths).map(|(name, width)| (name, vec![Some(width)])).collect();
    outputs.push((SHARED, vec![None]));
    check("input", session.inputs(), &[image(), embedding()])?;
    check("output", session.outputs(), &outputs)
}

fn check(kind: &str, found: &[Outlet], expected: &[Expected]) -> Result<(), String> {
    for (name, lengths) in expected {
        let outlet = found
            .iter()
            .find(|outlet| outlet.name() == *name)
            .ok_or_else(|| format!("has no {kind} {name}, only {}", names(found)))?;
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
            let lengths: Vec<_> =
                lengths.iter().map(|length| length.map_or("fixed".to_owned(), |l| l.to_string())).collect();
            let lengths = lengths.join(", ");
            return Err(format!("{kind} {name} is {dtype}, expected f32 [batch, {lengths}]"));
        }
    }
    if found.len() > expected.len() {
        return Err(format!("has more {kind}s than the contract knows: {}", names(found)));
    }
    Ok(())
}

fn names(outlets: &[Outlet]) -> String {
    outlets.iter().map(Outlet::name).collect::<Vec<_>>().join(", ")
}

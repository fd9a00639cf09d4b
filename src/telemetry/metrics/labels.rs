//! The label values that exist from the start, so that a rate over them works before the first event.

use crate::domain::{AbstainReason, Expansion, GradeClass, Head, Letter, RejectionCode, SkipReason};

/// Site of a frame whose site is not one of the configured ones.
pub(super) const OTHER_SITE: &str = "other";

/// Stages of the pipeline that take time. Waiting for a batch has a histogram of its own.
pub(super) const STAGES: &[[&str; 1]] = &[["select"], ["fetch"], ["decode"], ["grade"], ["publish"]];

/// The models of a bundle.
pub(super) const MODELS: &[[&str; 1]] = &[["embedding"], ["multitask"]];

/// The heads of the multitask network.
pub(super) const HEADS: &[[&str; 1]] = &[["exp"], ["icm"], ["te"]];

/// Why a frame was not wanted.
pub(super) fn skip_reasons() -> Vec<[&'static str; 1]> {
    SkipReason::ALL.iter().map(|reason| [reason.as_str()]).collect()
}

/// Why a readable frame got no grade.
pub(super) fn abstain_reasons() -> Vec<[&'static str; 1]> {
    AbstainReason::ALL.iter().map(|reason| [reason.as_str()]).collect()
}

/// Stage and code of every dead letter.
pub(super) fn dead_letters() -> Vec<[&'static str; 2]> {
    RejectionCode::ALL.iter().map(|code| [code.stage().as_str(), code.as_str()]).collect()
}

/// Every grade of every head.
pub(super) fn grades() -> Vec<[&'static str; 2]> {
    let expansions = <Expansion as GradeClass>::ALL.iter().map(|class| [Head::Exp.as_str(), class.label()]);
    let letters = |head: Head| Letter::ALL.iter().map(move |letter| [head.as_str(), letter.as_str()]);
    expansions.chain(letters(Head::Icm)).chain(letters(Head::Te)).collect()
}

//! The label values that exist from the start, so that a rate over them works before the first
//! event. A test holds them against the enums of the domain, which this part does not otherwise know.

/// Site of a frame whose site is not one of the configured ones.
pub(super) const OTHER_SITE: &str = "other";

/// Skip reason of a frame that has been settled before; shown apart from the other skips in totals.
pub(super) const DUPLICATE: &str = "duplicate";

/// Why a frame was not wanted.
pub(super) const SKIP_REASONS: &[[&str; 1]] =
    &[["too_early"], ["too_late"], ["other_focal_plane"], ["spaced_out"], [DUPLICATE]];

/// Why a readable frame got no grade.
pub(super) const ABSTAIN_REASONS: &[[&str; 1]] =
    &[["too_small"], ["underexposed"], ["overexposed"], ["low_contrast"], ["blurred"], ["low_confidence"]];

/// Stage and code of every dead letter.
pub(super) const DEAD_LETTERS: &[[&str; 2]] = &[
    ["DECODE", "empty_value"],
    ["DECODE", "value_too_large"],
    ["DECODE", "invalid_json"],
    ["DECODE", "unknown_event_type"],
    ["VALIDATE", "schema_invalid"],
    ["VALIDATE", "unknown_site"],
    ["VALIDATE", "clock_missing"],
    ["VALIDATE", "clock_reversed"],
    ["VALIDATE", "clock_in_future"],
    ["FETCH", "image_uri_not_allowed"],
    ["FETCH", "image_unreachable"],
    ["FETCH", "image_not_found"],
    ["FETCH", "image_too_large"],
    ["FETCH", "image_bad_base64"],
    ["FETCH", "image_digest_mismatch"],
    ["PREPROCESS", "image_undecodable"],
    ["PREPROCESS", "image_too_many_pixels"],
    ["PREPROCESS", "image_size_mismatch"],
    ["INFER", "inference_failed"],
    ["INFER", "output_not_finite"],
    ["PUBLISH", "grade_too_large"],
];

/// Every grade of every head.
pub(super) const GRADES: &[[&str; 2]] = &[
    ["exp", "1"],
    ["exp", "2"],
    ["exp", "3"],
    ["exp", "4"],
    ["exp", "5"],
    ["exp", "6"],
    ["icm", "A"],
    ["icm", "B"],
    ["icm", "C"],
    ["te", "A"],
    ["te", "B"],
    ["te", "C"],
];

/// Stages of the pipeline that take time. Waiting for a batch has a histogram of its own.
pub(super) const STAGES: &[[&str; 1]] = &[["select"], ["decode"], ["grade"], ["publish"]];

/// The models of a bundle.
pub(super) const MODELS: &[[&str; 1]] = &[["embedding"], ["multitask"]];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{AbstainReason, Expansion, GradeClass, Head, Letter, RejectionCode, Stage};

    #[test]
    fn labels_are_the_domain_s_spellings() {
        let reasons: Vec<_> = AbstainReason::ALL.iter().map(|reason| [reason.as_str()]).collect();
        assert_eq!(ABSTAIN_REASONS, reasons);

        let codes: BTreeSet<_> = DEAD_LETTERS.iter().map(|[_, code]| *code).collect();
        assert_eq!(codes, RejectionCode::ALL.iter().map(|code| code.as_str()).collect());
        let stages: BTreeSet<_> = DEAD_LETTERS.iter().map(|[stage, _]| *stage).collect();
        assert_eq!(stages, Stage::ALL.iter().map(|stage| stage.as_str()).collect());

        let letters = || Letter::ALL.iter().map(|letter| letter.label());
        let expansions = Expansion::ALL.iter().map(|class| [Head::Exp.as_str(), class.label()]);
        let icm = letters().map(|letter| [Head::Icm.as_str(), letter]);
        let te = letters().map(|letter| [Head::Te.as_str(), letter]);
        assert_eq!(GRADES, expansions.chain(icm).chain(te).collect::<Vec<_>>());
    }
}

//! What is said of grades, in words; the board says the same.

use chrono::{DateTime, Utc};

use crate::domain::{AbstainReason, Expansion, Head, Letter, ReviewReason};

pub(super) fn head(head: Head) -> &'static str {
    match head {
        Head::Exp => "Expansion (EXP)",
        Head::Icm => "Inner cell mass (ICM)",
        Head::Te => "Trophectoderm (TE)",
    }
}

pub(super) fn expansion(class: Expansion) -> &'static str {
    match class {
        Expansion::E1 => "cavity under half",
        Expansion::E2 => "cavity half or more",
        Expansion::E3 => "full blastocyst",
        Expansion::E4 => "expanded, thin zona",
        Expansion::E5 => "hatching",
        Expansion::E6 => "hatched",
    }
}

pub(super) fn icm(class: Letter) -> &'static str {
    match class {
        Letter::A => "many cells, tightly packed",
        Letter::B => "several cells, loose",
        Letter::C => "very few cells",
    }
}

pub(super) fn te(class: Letter) -> &'static str {
    match class {
        Letter::A => "many cells, cohesive",
        Letter::B => "few cells, loose",
        Letter::C => "very few large cells",
    }
}

pub(super) fn abstention(reason: AbstainReason) -> &'static str {
    match reason {
        AbstainReason::TooSmall => "too few pixels",
        AbstainReason::Underexposed => "too dark",
        AbstainReason::Overexposed => "too bright",
        AbstainReason::LowContrast => "hardly any contrast",
        AbstainReason::Blurred => "out of focus",
        AbstainReason::LowConfidence => "model unsure",
        AbstainReason::OutOfDistribution => "unlike the training set",
    }
}

pub(super) fn abstentions(reasons: &[AbstainReason]) -> String {
    reasons.iter().map(|reason| abstention(*reason)).collect::<Vec<_>>().join(", ")
}

pub(super) fn review(reason: ReviewReason) -> &'static str {
    match reason {
        ReviewReason::Routine => "routine",
        ReviewReason::WrongExpansion => "the machine’s expansion was wrong",
        ReviewReason::WrongIcm => "the machine’s inner cell mass was wrong",
        ReviewReason::WrongTe => "the machine’s trophectoderm was wrong",
        ReviewReason::PoorImage => "the photographs do not show enough",
        ReviewReason::Other => "another one",
    }
}

/// `1 photograph`, `2 photographs`.
pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

pub(super) fn utc(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

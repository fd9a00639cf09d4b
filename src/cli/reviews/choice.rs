//! Which photograph of an embryo a review is the label of.

use chrono::{DateTime, TimeDelta, Utc};

use crate::cli::published::first_frame_ms;
use crate::domain::{CompactContribution, DevelopmentStage, EmbryoSummary, ReviewReason, Truth};

/// What becomes of an embryo.
#[derive(Debug, PartialEq)]
pub(super) enum Choice {
    NotReviewed,
    /// And why.
    LeftOut(&'static str),
    Chosen(Chosen),
}

/// A photograph by its grade event, and what the reviewer says it shows.
#[derive(Debug, PartialEq)]
pub(super) struct Chosen {
    pub(super) embryo_id: String,
    pub(super) grade_id: String,
    pub(super) truth: Truth,
    /// Before this nothing was sent of the embryo, milliseconds since 1970.
    pub(super) since_ms: i64,
}

/// The last photograph with a grade that was taken before the review; without any, the last one.
pub(super) fn choose(summary: &EmbryoSummary, only_blinded: bool) -> Choice {
    let Some(review) = &summary.review else { return Choice::NotReviewed };
    if review.reason == ReviewReason::PoorImage {
        return Choice::LeftOut("the reviewer says that the photographs do not show enough");
    }
    if only_blinded && !review.blinded {
        return Choice::LeftOut("the reviewer had seen memebg's grade");
    }
    let before = summary.contributions.iter().filter(|it| captured_at(summary, it) <= review.reviewed_at);
    match before.max_by_key(|it| (it.exp.is_some(), it.centi_hpi, it.run, it.plane)) {
        None => Choice::LeftOut("every photograph was taken after the review"),
        Some(frame) => Choice::Chosen(Chosen {
            embryo_id: summary.embryo_id.clone(),
            grade_id: frame.grade_id.clone(),
            truth: Truth {
                stage: DevelopmentStage::Blastocyst,
                exp: Some(review.exp),
                icm: review.icm,
                te: review.te,
            },
            since_ms: first_frame_ms(summary),
        }),
    }
}

/// As far as a summary says it, which is to the hundredth of an hour.
fn captured_at(summary: &EmbryoSummary, frame: &CompactContribution) -> DateTime<Utc> {
    let hours = (summary.last_frame.hpi - f64::from(frame.centi_hpi) / 100.0).clamp(0.0, 1e4);
    #[allow(clippy::cast_possible_truncation, reason = "at most 10,000 hours")]
    let before = TimeDelta::seconds((hours * 3_600.0) as i64);
    summary.last_frame.captured_at - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Expansion, Letter, SummaryReview};

    /// Frames at 112 to 116 hpi, the last of which was taken then; that at 115 has a grade of 4, that at 116 one of 2.
    fn reviewed(change: impl FnOnce(&mut SummaryReview)) -> EmbryoSummary {
        let mut summary: EmbryoSummary =
            serde_json::from_str(include_str!("../../../schemas/examples/summary/final.json")).unwrap();
        let amended: EmbryoSummary =
            serde_json::from_str(include_str!("../../../schemas/examples/summary/amended.json")).unwrap();
        let mut review = amended.review.unwrap();
        (review.exp, review.icm, review.te) = (Expansion::E3, Some(Letter::A), Some(Letter::C));
        (review.blinded, review.reason) = (true, ReviewReason::Routine);
        review.reviewed_at = summary.last_frame.captured_at + TimeDelta::hours(1);
        // In the example several frames share one.
        for frame in &mut summary.contributions {
            frame.grade_id = format!("{:064x}", frame.run);
        }
        change(&mut review);
        summary.review = Some(review);
        summary
    }

    fn run(choice: Choice, summary: &EmbryoSummary) -> u64 {
        let Choice::Chosen(chosen) = choice else { panic!("{choice:?}") };
        summary.contributions.iter().find(|it| it.grade_id == chosen.grade_id).unwrap().run
    }

    #[test]
    fn the_last_graded_photograph_before_the_review_gets_the_reviewers_grade() {
        let summary = reviewed(|_| {});
        let Choice::Chosen(chosen) = choose(&summary, true) else { panic!() };
        let truth = chosen.truth;
        assert_eq!((truth.exp, truth.icm, truth.te), (Some(Expansion::E3), Some(Letter::A), Some(Letter::C)));
        assert_eq!(run(choose(&summary, true), &summary), 404);
        let last = summary.last_frame.captured_at;
        let earlier = reviewed(|review| review.reviewed_at = last - TimeDelta::minutes(30));
        assert_eq!(run(choose(&earlier, false), &earlier), 403);
    }

    #[test]
    fn without_a_graded_one_it_is_the_last_and_without_any_none() {
        let last = reviewed(|_| {}).last_frame.captured_at;
        let earlier = reviewed(|review| review.reviewed_at = last - TimeDelta::minutes(90));
        assert_eq!(choose(&earlier, false), choose(&earlier, true));
        let Choice::Chosen(chosen) = choose(&earlier, false) else { panic!() };
        assert_eq!(
            Some(&chosen.grade_id),
            earlier.contributions.iter().find(|it| it.run == 402).map(|it| &it.grade_id)
        );
        let before_all = reviewed(|review| review.reviewed_at = last - TimeDelta::hours(100));
        assert!(matches!(choose(&before_all, false), Choice::LeftOut(_)));
    }

    #[test]
    fn who_was_not_reviewed_or_could_not_be_graded_is_no_label() {
        let poor = reviewed(|review| review.reason = ReviewReason::PoorImage);
        assert!(matches!(choose(&poor, false), Choice::LeftOut(why) if why.contains("do not show enough")));
        let seen = reviewed(|review| review.blinded = false);
        assert!(matches!(choose(&seen, true), Choice::LeftOut(why) if why.contains("had seen")));
        assert!(matches!(choose(&seen, false), Choice::Chosen(_)));
        let without = EmbryoSummary { review: None, ..seen };
        assert_eq!(choose(&without, false), Choice::NotReviewed);
    }
}

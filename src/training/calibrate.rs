//! Confidences that mean what they say, and the confidence below which it is better to say nothing.

use serde::Serialize;

use super::Scored;
use crate::domain::round4;

/// Least and largest temperature.
const TEMPERATURES: (f64, f64) = (0.05, 20.0);
/// Steps of the golden section: the interval shrinks to 1e-8 of its width.
const STEPS: usize = 40;
/// Spread of log T that is expected beforehand: networks are rarely off by more than a factor of three.
const PRIOR_DEVIATION: f64 = 0.5;
/// Fewest answers that a threshold is believed on: with fewer, one mistake moves the risk by more
/// than 5 percentage points.
const MIN_ACCEPTED: usize = 20;

/// From which confidence on an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Threshold {
    /// No answer is given when its confidence, rounded to four decimals as the service does, is below.
    pub abstain_below: f64,
    /// Share of the answers that are given.
    pub coverage: f64,
    /// Share of wrong ones among these.
    pub risk: f64,
}

/// The temperature, 0.05 to 20, that makes the true classes likeliest (Guo, Pleiss, Sun & Weinberger
/// 2017), under a prior that expects log T around 0 with a deviation of 0.5; 1 when there are no answers.
///
/// Ten answers that happen to be all right would otherwise call for the least temperature, and every
/// later mistake would be made with full confidence. Hundreds of answers overrule the prior.
#[must_use]
pub fn temperature(scored: &[Scored]) -> f64 {
    if scored.is_empty() {
        return 1.0;
    }
    // One valley, which a golden section finds (Kiefer 1953).
    let prior = |log_t: f64| 0.5 * (log_t / PRIOR_DEVIATION).powi(2);
    let nll = |log_t: f64| scored.iter().map(|one| one.nll(log_t.exp())).sum::<f64>() + prior(log_t);
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    let inner = |low: f64, high: f64| (high - golden * (high - low), low + golden * (high - low));
    let (mut left, mut right) = inner(low, high);
    let (mut at_left, mut at_right) = (nll(left), nll(right));
    for _ in 0..STEPS {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = inner(low, high).0;
            at_left = nll(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = inner(low, high).1;
            at_right = nll(right);
        }
    }
    f64::midpoint(low, high).exp().clamp(TEMPERATURES.0, TEMPERATURES.1)
}

/// The least confidence from which on at most `risk_target` of the answers are wrong (selective
/// classification, Geifman & El-Yaniv 2017): the more of the others are given, the better.
///
/// `None` when no threshold that 20 answers or more reach meets the target. The threshold is always
/// the confidence of an answer that was seen: nothing is known of what lies below the last one.
///
/// The risk is the plain share of wrong answers, without the margin for chance that the paper adds:
/// at the size of a held-out part here, some hundred answers, an exact binomial bound for 95 % refuses
/// every threshold at a target of a few per cent, however good the network. So the true risk may be
/// above the target; what it is on other pictures is for [`Threshold::measured`].
#[must_use]
pub fn abstain_below(scored: &[Scored], temperature: f64, risk_target: f64) -> Option<Threshold> {
    let mut answers: Vec<(f64, bool)> =
        scored.iter().map(|one| (service_confidence(one, temperature), one.is_right())).collect();
    answers.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let (mut accepted, mut wrong, mut lowest) = (0_usize, 0_usize, None);
    for equal in answers.chunk_by(|(a, _), (b, _)| a == b) {
        accepted += equal.len();
        wrong += equal.iter().filter(|(_, is_right)| !is_right).count();
        if accepted >= MIN_ACCEPTED && wrong as f64 <= risk_target * accepted as f64 {
            lowest = equal.first().map(|(confidence, _)| *confidence);
        }
    }
    Threshold::measured(scored, temperature, lowest?)
}

impl Threshold {
    /// What a threshold does to these answers; `None` when it lets none of them pass.
    #[must_use]
    pub fn measured(scored: &[Scored], temperature: f64, abstain_below: f64) -> Option<Self> {
        let passes = |one: &&Scored| service_confidence(one, temperature) >= abstain_below;
        let accepted = scored.iter().filter(passes).count();
        let wrong = scored.iter().filter(passes).filter(|one| !one.is_right()).count();
        (accepted > 0).then(|| Self {
            abstain_below,
            coverage: accepted as f64 / scored.len() as f64,
            risk: wrong as f64 / accepted as f64,
        })
    }
}

/// As [`HeadGrade::from_logits`](crate::domain::HeadGrade::from_logits) rounds it.
fn service_confidence(one: &Scored, temperature: f64) -> f64 {
    round4(one.confidence(temperature))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{HeadGrade, Letter};

    fn scored(truth: usize, logits: [f32; 3]) -> Scored {
        Scored { truth, logits: logits.to_vec() }
    }

    #[test]
    fn the_temperature_is_that_of_a_minimiser_in_scipy_under_the_same_prior() {
        let answers = [
            scored(0, [2.0, 0.5, -1.0]),
            scored(0, [1.0, 1.5, 0.0]),
            scored(0, [3.0, 0.0, 0.0]),
            scored(0, [0.5, 0.25, 0.5]),
            scored(1, [0.0, 2.0, 1.0]),
            scored(1, [1.0, 0.5, 0.0]),
            scored(1, [0.0, 1.0, -0.5]),
            scored(1, [-1.0, 0.5, 2.0]),
            scored(1, [0.0, 2.0, 1.0]),
            scored(2, [-2.0, 0.0, 1.0]),
            scored(2, [0.0, 0.75, 0.5]),
            scored(2, [2.5, 0.0, 0.0]),
        ];
        let found = temperature(&answers);
        assert!((found - 1.135_958_1).abs() < 1e-5, "{found}");
        let many: Vec<Scored> = std::iter::repeat_n(answers, 100).flatten().collect();
        let found = temperature(&many);
        assert!((found - 1.271_351_2).abs() < 1e-5, "{found}");
        // Logits that are three times too large want three times the temperature.
        let loud = many
            .into_iter()
            .map(|one| Scored { logits: one.logits.iter().map(|l| l * 3.0).collect(), ..one });
        let loud: Vec<Scored> = loud.collect();
        assert!((temperature(&loud) / found - 3.0).abs() < 0.05);
    }

    #[test]
    fn the_temperature_stays_within_its_bounds() {
        assert_eq!(temperature(&[]), 1.0);
        // Enough answers to overrule the prior.
        let right = temperature(&vec![scored(0, [0.1, 0.0, 0.0]); 1_000]);
        assert!((0.05..0.050_001).contains(&right), "{right}");
        let wrong = temperature(&vec![scored(1, [100.0, 0.0, 0.0]); 1_000]);
        assert!((19.999..=20.0).contains(&wrong), "{wrong}");
    }

    /// `right` and `wrong` answers whose confidence rises with the logit.
    fn block(logit: f32, right: usize, wrong: usize) -> impl Iterator<Item = Scored> {
        let one = move |truth| scored(truth, [logit, 0.0, 0.0]);
        std::iter::repeat_n(one(0), right).chain(std::iter::repeat_n(one(1), wrong))
    }

    #[test]
    fn the_threshold_is_the_lowest_that_meets_the_target() {
        let answers: Vec<Scored> =
            block(5.0, 40, 0).chain(block(3.0, 38, 2)).chain(block(1.0, 10, 10)).collect();
        let at = |logit: f32| HeadGrade::<Letter>::from_logits(&[logit, 0.0, 0.0], 1.0).unwrap().confidence;
        let threshold = abstain_below(&answers, 1.0, 0.025).unwrap();
        assert_eq!(threshold, Threshold { abstain_below: at(3.0), coverage: 0.8, risk: 0.025 });
        assert_eq!(abstain_below(&answers, 1.0, 0.02).unwrap().abstain_below, at(5.0));
        let all = abstain_below(&answers, 1.0, 0.5).unwrap();
        assert_eq!((all.abstain_below, all.coverage), (at(1.0), 1.0));
    }

    #[test]
    fn a_threshold_needs_twenty_answers() {
        let enough: Vec<Scored> = block(5.0, 20, 0).chain(block(1.0, 0, 30)).collect();
        assert_eq!(abstain_below(&enough, 1.0, 0.0).unwrap().coverage, 0.4);
        assert_eq!(abstain_below(&enough[1..], 1.0, 0.0), None);
        assert_eq!(abstain_below(&[], 1.0, 1.0), None);
    }

    #[test]
    fn a_threshold_that_nothing_reaches_has_no_risk() {
        let answers: Vec<Scored> = block(1.0, 5, 5).collect();
        assert_eq!(Threshold::measured(&answers, 1.0, 0.99), None);
        assert_eq!(Threshold::measured(&answers, 1.0, 0.0).unwrap().risk, 0.5);
    }

    proptest! {
        #[test]
        fn risk_at_the_threshold_meets_the_target_and_no_lower_one_does(
            drawn in proptest::collection::vec((0_usize..3, -3.0_f32..3.0, -3.0_f32..3.0), 0..120),
            temperature in 0.2..5.0,
            target in 0.0..0.6,
        ) {
            let answers: Vec<Scored> = drawn.iter().map(|(t, a, b)| scored(*t, [*a, *b, 0.0])).collect();
            let confidences = answers.iter().map(|one| service_confidence(one, temperature));
            let found = abstain_below(&answers, temperature, target);
            let bound = found.map_or(f64::INFINITY, |found| found.abstain_below);
            if let Some(found) = found {
                prop_assert!(found.risk <= target + 1e-12);
                prop_assert!(found.coverage * answers.len() as f64 > 19.5);
            }
            for lower in confidences.filter(|confidence| *confidence < bound) {
                let lower = Threshold::measured(&answers, temperature, lower).unwrap();
                let is_enough = lower.coverage * answers.len() as f64 > 19.5;
                prop_assert!(!is_enough || lower.risk > target - 1e-12);
            }
        }
    }
}

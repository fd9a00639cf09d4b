//! Is one way of training better than another, or is it chance?

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, FisherSnedecor, StudentsT};

/// Repeats of 5x2 cross-validation: the degrees of freedom of the t statistic.
const REPEATS: usize = 5;
/// Below this p value a difference is called more than chance.
const SIGNIFICANT: f64 = 0.05;

/// Two tests on the ten differences of a figure in 5x2 cross-validation.
///
/// The t test (Dietterich 1998) looks at the first difference only, the F test (Alpaydin 1999) combines
/// all ten, rejects less often by mistake and finds more. Statistics and p values are `None` when the
/// two differences of every repeat are equal: without any scatter there is nothing to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedTest {
    /// The first difference over the scatter; Student's t with 5 degrees of freedom if nothing differs.
    pub t: Option<f64>,
    /// Probability of a `t` at least this far from 0 if nothing differs.
    pub t_p_value: Option<f64>,
    /// All differences over the scatter; F with 10 and 5 degrees of freedom if nothing differs.
    pub f: Option<f64>,
    /// Probability of an `f` at least this large if nothing differs.
    pub f_p_value: Option<f64>,
    /// Mean of the ten differences.
    pub mean_difference: f64,
}

impl PairedTest {
    /// Tests the differences of a figure (one way less the other): a row per repeat, with the two
    /// folds of the repeat, each the test of the other.
    #[must_use]
    pub fn of(differences: &[[f64; 2]; REPEATS]) -> Self {
        let variance = |[first, second]: &[f64; 2]| (first - second).powi(2) / 2.0;
        let scatter: f64 = differences.iter().map(variance).sum();
        let all = || differences.as_flattened().iter();
        let (first, squares) = (differences[0][0], all().map(|difference| difference.powi(2)).sum::<f64>());
        // Differences that are equal but for the rounding of their subtraction have no scatter.
        let is_scattered = scatter > squares * f64::EPSILON;
        let t = is_scattered.then(|| first / (scatter / REPEATS as f64).sqrt());
        let f = is_scattered.then(|| squares / (2.0 * scatter));
        let freedom = REPEATS as f64;
        let student = StudentsT::new(0.0, 1.0, freedom).ok();
        let fisher = FisherSnedecor::new(2.0 * freedom, freedom).ok();
        Self {
            t,
            t_p_value: t.zip(student).map(|(t, student)| 2.0 * student.sf(t.abs())),
            f,
            f_p_value: f.zip(fisher).map(|(f, fisher)| fisher.sf(f)),
            mean_difference: all().sum::<f64>() / all().count() as f64,
        }
    }

    /// The verdict of the F test at the 5 % level.
    #[must_use]
    pub fn is_more_than_chance(&self) -> bool {
        self.f_p_value.is_some_and(|p| p < SIGNIFICANT)
    }

    /// The same verdict in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let difference = format!("difference {:+.3}", self.mean_difference);
        let Some(p) = self.f_p_value else {
            return format!("{difference}, without any scatter to test it against");
        };
        let p_shown = if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") };
        let verdict = if self.is_more_than_chance() { "more than" } else { "not more than" };
        format!("{difference}, {p_shown}: {verdict} chance would give")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found / expected - 1.0).abs() < 1e-8, "{found} instead of {expected}");
    }

    // The expected values are the formulas of the papers in NumPy, with the distributions of SciPy 1.17.
    #[test]
    fn small_differences_that_scatter_are_chance() {
        let test = PairedTest::of(&[[0.03, 0.01], [-0.01, 0.02], [0.04, 0.03], [0.02, -0.02], [0.05, 0.01]]);
        assert_near(test.t, 1.398_757_212_360_470_6);
        assert_near(test.t_p_value, 0.220_753_961_117_014_67);
        assert_near(test.f, 1.608_695_652_173_912_3);
        assert_near(test.f_p_value, 0.312_746_819_039_603_7);
        assert_near(Some(test.mean_difference), 0.018);
        assert_eq!(test.in_words(), "difference +0.018, p = 0.313: not more than chance would give");
    }

    #[test]
    fn differences_far_larger_than_their_scatter_are_not() {
        let test = PairedTest::of(&[[0.11, 0.09], [0.10, 0.12], [0.08, 0.10], [0.12, 0.11], [0.09, 0.10]]);
        assert_near(test.t, 9.296_696_802_013_683);
        assert_near(test.t_p_value, 0.000_242_256_370_971);
        assert_near(test.f, 75.428_571_428_571_43);
        assert_near(test.f_p_value, 0.000_081_016_241_325_991_78);
        assert_eq!(test.in_words(), "difference +0.102, p < 0.001: more than chance would give");
    }

    #[test]
    fn the_sign_says_which_way_is_better_and_the_p_values_do_not_care() {
        let differences = [[0.03, 0.01], [-0.01, 0.02], [0.04, 0.03], [0.02, -0.02], [0.05, 0.01]];
        let (one, other) =
            (PairedTest::of(&differences), PairedTest::of(&differences.map(|row| row.map(|d: f64| -d))));
        assert_eq!(one.t, other.t.map(|t| -t));
        assert_eq!((one.t_p_value, one.f_p_value), (other.t_p_value, other.f_p_value));
        assert!(one.mean_difference > 0.0 && other.mean_difference < 0.0);
    }

    #[test]
    fn differences_without_scatter_give_no_statistic_and_no_nan() {
        for difference in [0.0, 0.1, 0.3 - 0.2] {
            let test = PairedTest::of(&[[difference; 2]; 5]);
            assert_eq!((test.t, test.t_p_value, test.f, test.f_p_value), (None, None, None, None));
            let json = serde_json::to_value(test).unwrap();
            assert!(json["t"].is_null() && json["mean_difference"].is_f64(), "{json}");
            assert!(test.in_words().ends_with("without any scatter to test it against"));
        }
    }
}

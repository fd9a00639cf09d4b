//! What answers are worth, measured against labels.

use serde::Serialize;

use super::{Scored, class_labels};
use crate::domain::{Head, quadratic_kappa};

/// Bins of a reliability diagram (Guo, Pleiss, Sun & Weinberger 2017).
const BINS: usize = 15;

/// How one head did on a set of labelled pictures.
///
/// `Serialize` writes every figure that is not defined for the answers at hand as null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadFigures {
    /// Answers with a label.
    pub images: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean F1 over the classes that occur among the labels: every such class counts the same, however
    /// rare; a class without a label can be answered wrongly, which shows in the F1 of the others.
    pub macro_f1: f64,
    /// Agreement with the labels beyond chance, weighted by the squared distance of the classes (Cohen
    /// 1968): 1 is perfect, 0 is chance. `None` when labels and answers are all of one class.
    pub quadratic_kappa: Option<f64>,
    /// Expected calibration error: the mean distance of confidence and accuracy over 15 bins of equal
    /// width, weighted by their answers (Guo 2017).
    pub ece: f64,
    /// Mean negative logarithm of the probability of the true class, nats.
    pub nll: f64,
    /// One entry per class, in class order.
    pub classes: Vec<ClassFigures>,
    /// Answers by class: a row per true class, a column per answer, in class order.
    pub confusion: Vec<Vec<u64>>,
    /// The bins of `ece` that hold answers, ascending.
    pub reliability: Vec<ReliabilityBin>,
}

/// One class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassFigures {
    /// As it is written in a grade.
    pub class: String,
    /// Pictures of this class.
    pub support: u64,
    /// Share of its answers that are right; `None` when it is never answered.
    pub precision: Option<f64>,
    /// Share of its pictures that are found; `None` when there are none.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall, 0 when one of them is 0 or not defined; `None` when the
    /// class neither occurs nor is answered.
    pub f1: Option<f64>,
    /// Area under the receiver operating characteristic: the chance that a picture of the class gets a
    /// higher probability of it than another picture, ties count half (Hanley & McNeil 1982). `None`
    /// when there are no pictures of the class, or no others.
    pub auc: Option<f64>,
}

/// Answers of similar confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Their mean confidence.
    pub confidence: f64,
    /// Share of right ones.
    pub accuracy: f64,
    /// How many.
    pub images: usize,
}

impl HeadFigures {
    /// Measures the answers of a head, its logits divided by `temperature`.
    ///
    /// `None` when there are no answers, or when one of them is not of this head: another number of
    /// logits, a logit that is not finite, or a true class that does not exist.
    #[must_use]
    pub fn of(head: Head, scored: &[Scored], temperature: f64) -> Option<Self> {
        let labels = class_labels(head);
        let fits = |one: &Scored| {
            one.logits.len() == labels.len()
                && one.truth < labels.len()
                && one.logits.iter().all(|logit| logit.is_finite())
        };
        if scored.is_empty() || !scored.iter().all(fits) {
            return None;
        }
        let mut confusion = vec![vec![0_u64; labels.len()]; labels.len()];
        for one in scored {
            confusion[one.truth][one.answer()] += 1;
        }
        let probabilities: Vec<Vec<f64>> = scored.iter().map(|one| one.probabilities(temperature)).collect();
        let classes: Vec<ClassFigures> = (0..labels.len())
            .map(|class| {
                let of_class = |(p, one): (&Vec<f64>, &Scored)| (p[class], one.truth == class);
                let ranked = probabilities.iter().zip(scored).map(of_class).collect();
                class_figures(labels[class], class, &confusion, auc(ranked))
            })
            .collect();
        let occurring: Vec<f64> =
            classes.iter().filter(|class| class.support > 0).filter_map(|class| class.f1).collect();
        let reliability = reliability(scored, temperature);
        let images = scored.len();
        Some(Self {
            images,
            accuracy: share(scored.iter().filter(|one| one.is_right()).count(), images),
            macro_f1: occurring.iter().sum::<f64>() / occurring.len() as f64,
            quadratic_kappa: quadratic_kappa(&confusion),
            ece: reliability
                .iter()
                .map(|bin| (bin.accuracy - bin.confidence).abs() * share(bin.images, images))
                .sum(),
            nll: scored.iter().map(|one| one.nll(temperature)).sum::<f64>() / images as f64,
            classes,
            confusion,
            reliability,
        })
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn class_figures(label: &str, class: usize, confusion: &[Vec<u64>], auc: Option<f64>) -> ClassFigures {
    let hits = confusion[class][class];
    let support: u64 = confusion[class].iter().sum();
    let answered: u64 = confusion.iter().map(|row| row[class]).sum();
    let of = |hits: u64, whole: u64| (whole > 0).then(|| hits as f64 / whole as f64);
    ClassFigures {
        class: label.to_owned(),
        support,
        precision: of(hits, answered),
        recall: of(hits, support),
        f1: of(2 * hits, support + answered),
        auc,
    }
}

/// From the ranks of the members among all (Mann & Whitney 1947), equal scores sharing their ranks.
fn auc(mut ranked: Vec<(f64, bool)>) -> Option<f64> {
    let members = ranked.iter().filter(|(_, is_member)| *is_member).count() as f64;
    let others = ranked.len() as f64 - members;
    if members == 0.0 || others == 0.0 {
        return None;
    }
    ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (mut below, mut rank_sum) = (0.0, 0.0);
    for equal in ranked.chunk_by(|(a, _), (b, _)| a == b) {
        let mean_rank = below + (equal.len() as f64 + 1.0) / 2.0;
        rank_sum += mean_rank * equal.iter().filter(|(_, is_member)| *is_member).count() as f64;
        below += equal.len() as f64;
    }
    Some((rank_sum - members * (members + 1.0) / 2.0) / (members * others))
}

fn reliability(scored: &[Scored], temperature: f64) -> Vec<ReliabilityBin> {
    let mut bins = [(0.0, 0_usize, 0_usize); BINS];
    for one in scored {
        let confidence = one.confidence(temperature);
        // Intervals are open below and closed above, as in the paper.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 15")]
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let (sum, right, images) = &mut bins[bin];
        *sum += confidence;
        *right += usize::from(one.is_right());
        *images += 1;
    }
    let filled = bins.into_iter().filter(|(_, _, images)| *images > 0);
    filled
        .map(|(sum, right, images)| ReliabilityBin {
            confidence: sum / images as f64,
            accuracy: share(right, images),
            images,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve answers with mistakes, ties and a class that is hard to find.
    fn answers() -> Vec<Scored> {
        let logits = [
            [2.0, 0.5, -1.0],
            [1.0, 1.5, 0.0],
            [3.0, 0.0, 0.0],
            [0.5, 0.25, 0.5],
            [0.0, 2.0, 1.0],
            [1.0, 0.5, 0.0],
            [0.0, 1.0, -0.5],
            [-1.0, 0.5, 2.0],
            [0.0, 2.0, 1.0],
            [-2.0, 0.0, 1.0],
            [0.0, 0.75, 0.5],
            [2.5, 0.0, 0.0],
        ];
        let truth = [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2];
        let one = |(truth, logits): (usize, [f32; 3])| Scored { truth, logits: logits.to_vec() };
        truth.into_iter().zip(logits).map(one).collect()
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    // The expected values are those of scikit-learn 1.9: f1_score(average="macro"), log_loss,
    // cohen_kappa_score(weights="quadratic"), roc_auc_score of each class against the rest,
    // precision_score, recall_score; the calibration error follows its definition in NumPy.
    #[test]
    fn figures_are_those_of_scikit_learn() {
        let figures = HeadFigures::of(Head::Icm, &answers(), 1.0).unwrap();
        assert_eq!(figures.images, 12);
        assert_near(figures.accuracy, 0.583_333_333_333_333_4);
        assert_near(figures.macro_f1, 0.555_555_555_555_555_5);
        assert_near(figures.quadratic_kappa.unwrap(), 0.407_407_407_407_407_44);
        assert_near(figures.nll, 0.893_834_624_925_235_9);
        assert_near(figures.ece, 0.416_142_524_670_326_53);
        assert_eq!(figures.confusion, [[3, 1, 0], [1, 3, 1], [1, 1, 1]]);
        let expected = [
            ("A", 4, 0.6, 0.75, 0.666_666_666_666_666_7, 0.843_75),
            ("B", 5, 0.6, 0.6, 0.6, 0.814_285_714_285_714_3),
            ("C", 3, 0.5, 0.333_333_333_333_333_3, 0.4, 0.629_629_629_629_629_5),
        ];
        for (class, (label, support, precision, recall, f1, auc)) in figures.classes.iter().zip(expected) {
            assert_eq!((class.class.as_str(), class.support), (label, support));
            assert_near(class.precision.unwrap(), precision);
            assert_near(class.recall.unwrap(), recall);
            assert_near(class.f1.unwrap(), f1);
            assert_near(class.auc.unwrap(), auc);
        }
        assert_eq!(figures.reliability.iter().map(|bin| bin.images).sum::<usize>(), 12);
        assert_eq!(figures.reliability[4].images, 3);
        assert_near(figures.reliability[4].accuracy, 1.0);
        assert_near(figures.reliability[4].confidence, 0.653_004_543_587_135_3);
    }

    #[test]
    fn a_temperature_changes_confidences_and_no_answer() {
        let figures = HeadFigures::of(Head::Te, &answers(), 2.0).unwrap();
        assert_near(figures.accuracy, 0.583_333_333_333_333_4);
        assert_near(figures.nll, 0.906_891_453_143_293_9);
        assert_near(figures.ece, 0.320_961_655_494_879_04);
        // Probabilities of different pictures may change places.
        assert_near(figures.classes[1].auc.unwrap(), 0.785_714_285_714_285_7);
    }

    fn certain(head: Head, pairs: &[(usize, usize)]) -> HeadFigures {
        let classes = class_labels(head).len();
        let one = |(truth, answer): &(usize, usize)| {
            let mut logits = vec![0.0; classes];
            logits[*answer] = 9.0;
            Scored { truth: *truth, logits }
        };
        HeadFigures::of(head, &pairs.iter().map(one).collect::<Vec<_>>(), 1.0).unwrap()
    }

    #[test]
    fn a_class_without_a_label_does_not_count_in_the_mean() {
        let figures = certain(Head::Exp, &[(0, 0), (0, 1), (1, 1), (1, 1), (3, 3), (3, 2)]);
        assert_near(figures.macro_f1, 0.711_111_111_111_111_1);
        assert_near(figures.quadratic_kappa.unwrap(), 0.863_636_363_636_363_6);
        let third = &figures.classes[2];
        assert_eq!((third.support, third.recall, third.auc), (0, None, None));
        assert_eq!((third.precision, third.f1), (Some(0.0), Some(0.0)));
        let sixth = &figures.classes[5];
        assert_eq!((sixth.precision, sixth.recall, sixth.f1), (None, None, None));
    }

    #[test]
    fn what_is_not_defined_is_absent_and_never_a_number() {
        let figures = certain(Head::Icm, &[(1, 1), (1, 1)]);
        assert_eq!((figures.macro_f1, figures.quadratic_kappa), (1.0, None));
        assert!(figures.classes.iter().all(|class| class.auc.is_none()));
        let json = serde_json::to_value(&figures).unwrap();
        assert!(json["quadratic_kappa"].is_null() && json["accuracy"].is_f64() && json["nll"].is_f64());
    }

    #[test]
    fn answers_of_another_head_are_not_measured() {
        assert_eq!(HeadFigures::of(Head::Icm, &[], 1.0), None);
        assert_eq!(HeadFigures::of(Head::Exp, &answers(), 1.0), None);
        let mut odd = answers();
        odd[3].truth = 3;
        assert_eq!(HeadFigures::of(Head::Icm, &odd, 1.0), None);
        odd[3] = Scored { truth: 0, logits: vec![f32::NAN, 0.0, 0.0] };
        assert_eq!(HeadFigures::of(Head::Icm, &odd, 1.0), None);
    }
}

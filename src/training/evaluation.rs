//! The result of an evaluation: what `memebg evaluate --json` prints and the report shows.

use serde::Serialize;

use super::figures::ReliabilityBin;
use super::{
    HeadFigures, LabelledImages, OutOfDistribution, PairedTest, Protocol, Scored, Threshold, class_index,
    class_labels,
};
use crate::domain::Head;

/// How good a model, or a way of training one, is on a labelled set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The labelled set.
    pub data: DataSummary,
    /// Name and version of the model.
    pub model: String,
    /// What was done with the encoders: `frozen`, `finetune`, or `bundle` for a finished model.
    pub encoders: String,
    /// How the set was cut; `None` when a finished model answered all of it.
    pub protocol: Option<Protocol>,
    /// Seed of the cuts and of the training; without a protocol it means nothing.
    pub seed: u64,
    /// Duration, seconds.
    pub seconds: f64,
    /// One entry per head that the labels grade.
    pub heads: Vec<HeadEvaluation>,
    /// Saying nothing when unsure, where it was measured.
    pub abstention: Option<Abstention>,
    /// Saying nothing of pictures unlike the training set, where the model has a limit for it.
    pub out_of_distribution: Option<OutOfDistribution>,
    /// What a reader must know of these figures, a sentence each.
    pub notes: Vec<String>,
}

/// What a labelled set holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSummary {
    /// Name of its folder, without the folders above.
    pub name: String,
    /// Names this very set.
    pub sha256: String,
    /// Images.
    pub images: usize,
    /// Different groups (embryos or patients) that the labels name; 0 when they name none.
    pub groups: usize,
    /// One entry per head.
    pub grades: Vec<HeadCounts>,
}

/// Labels of one head.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadCounts {
    /// The head.
    pub head: Head,
    /// One entry per class, in class order.
    pub classes: Vec<ClassCount>,
    /// Images without a grade on this head.
    pub without_grade: usize,
}

/// Labels of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCount {
    /// As it is written in a grade.
    pub class: String,
    /// Images.
    pub images: usize,
}

/// One head, trained together with the others, and alone where that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadEvaluation {
    /// The head.
    pub head: Head,
    /// All heads in one network.
    pub multi: Arm,
    /// A network for this head alone.
    pub single: Option<Arm>,
    /// Test of the macro F1, multi less single; `None` unless both arms have all ten folds of 5x2
    /// cross-validation.
    pub paired: Option<PairedTest>,
}

/// One way of training, over all folds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    /// All test answers together, each after the temperature of its own fold. 5x2 cross-validation
    /// tests every image once a repeat, so it counts five times here. AUC and calibration error compare
    /// probabilities across networks.
    pub figures: HeadFigures,
    /// Calibration error of the same answers before any temperature.
    pub ece_before: f64,
    /// Bins of `ece_before`.
    pub reliability_before: Vec<ReliabilityBin>,
    /// One entry per fold with labels of this head.
    pub folds: Vec<FoldFigures>,
    /// Mean of the macro F1 over the folds.
    pub macro_f1_mean: f64,
    /// Standard deviation of the macro F1 over the folds (n - 1); `None` for a single fold. The folds
    /// share training images, so it is too small for a standard error.
    pub macro_f1_std: Option<f64>,
}

/// The test of one fold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FoldFigures {
    /// Repeat, from 0.
    pub repeat: usize,
    /// Fold within the repeat, from 0.
    pub fold: usize,
    /// Test images with a label of this head.
    pub images: usize,
    /// As in [`HeadFigures`].
    pub macro_f1: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// As in [`HeadFigures`].
    pub quadratic_kappa: Option<f64>,
    /// Calibration error after the temperature.
    pub ece: f64,
    /// Temperature, from a part of the training images.
    pub temperature: f64,
}

/// What the network of one fold says of its test images on one head.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldAnswers {
    /// Repeat, from 0.
    pub repeat: usize,
    /// Fold within the repeat, from 0.
    pub fold: usize,
    /// Temperature of the head, which no test image had a part in.
    pub temperature: f64,
    /// Test images with a label of this head.
    pub scored: Vec<Scored>,
}

/// Saying nothing when unsure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Abstention {
    /// Largest share of wrong answers that the thresholds were chosen for; `None` when they are those
    /// of a finished model.
    pub risk_target: Option<f64>,
    /// One entry per head that was looked at.
    pub heads: Vec<HeadAbstention>,
}

/// The threshold of one head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HeadAbstention {
    /// The head.
    pub head: Head,
    /// `None` when no threshold meets the target, or the model has none.
    pub threshold: Option<Threshold>,
}

impl DataSummary {
    /// Counts the labels of a set.
    #[must_use]
    pub fn of(images: &LabelledImages) -> Self {
        let samples = &images.samples;
        let count = |head: Head, class: Option<usize>| {
            samples.iter().filter(|sample| class_index(&sample.truth, head) == class).count()
        };
        let classes = |head: Head| {
            let one = |(index, class): (usize, &str)| ClassCount {
                class: class.to_owned(),
                images: count(head, Some(index)),
            };
            class_labels(head).into_iter().enumerate().map(one).collect()
        };
        let groups: std::collections::HashSet<&str> =
            samples.iter().filter_map(|sample| sample.group.as_deref()).collect();
        Self {
            name: images.dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            sha256: images.sha256.clone(),
            images: samples.len(),
            groups: groups.len(),
            grades: Head::ALL
                .iter()
                .map(|head| HeadCounts {
                    head: *head,
                    classes: classes(*head),
                    without_grade: count(*head, None),
                })
                .collect(),
        }
    }
}

impl Arm {
    /// Measures the answers of all folds. Folds without a label of this head are left out; `None` when
    /// there are no others, or some answer is not of this head.
    #[must_use]
    pub fn of(head: Head, answers: &[FoldAnswers]) -> Option<Self> {
        let answers: Vec<&FoldAnswers> = answers.iter().filter(|fold| !fold.scored.is_empty()).collect();
        let fold = |answers: &&FoldAnswers| {
            let figures = HeadFigures::of(head, &answers.scored, answers.temperature)?;
            Some(FoldFigures {
                repeat: answers.repeat,
                fold: answers.fold,
                images: figures.images,
                macro_f1: figures.macro_f1,
                accuracy: figures.accuracy,
                quadratic_kappa: figures.quadratic_kappa,
                ece: figures.ece,
                temperature: answers.temperature,
            })
        };
        let folds = answers.iter().map(fold).collect::<Option<Vec<_>>>()?;
        let before: Vec<Scored> = answers.iter().flat_map(|fold| fold.scored.iter().cloned()).collect();
        let after: Vec<Scored> = answers
            .iter()
            .flat_map(|fold| fold.scored.iter().map(|one| cooled(one, fold.temperature)))
            .collect();
        let figures = HeadFigures::of(head, &after, 1.0)?;
        let before = HeadFigures::of(head, &before, 1.0)?;
        let count = folds.len() as f64;
        let macro_f1_mean = folds.iter().map(|fold| fold.macro_f1).sum::<f64>() / count;
        let squares: f64 = folds.iter().map(|fold| (fold.macro_f1 - macro_f1_mean).powi(2)).sum();
        Some(Self {
            figures,
            ece_before: before.ece,
            reliability_before: before.reliability,
            macro_f1_mean,
            macro_f1_std: (folds.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
            folds,
        })
    }

    fn macro_f1(&self, repeat: usize, fold: usize) -> Option<f64> {
        let of = |figures: &&FoldFigures| (figures.repeat, figures.fold) == (repeat, fold);
        self.folds.iter().find(of).map(|figures| figures.macro_f1)
    }
}

/// Logits over the temperature, so that answers of different temperatures may be measured together.
fn cooled(one: &Scored, temperature: f64) -> Scored {
    #[allow(clippy::cast_possible_truncation, reason = "logits are single precision")]
    let logits = one.logits.iter().map(|logit| (f64::from(*logit) / temperature) as f32).collect();
    Scored { truth: one.truth, logits }
}

impl HeadEvaluation {
    /// Measures one head, and compares the two ways of training where there are two. `None` when there
    /// is nothing to measure, as for [`Arm::of`].
    #[must_use]
    pub fn of(head: Head, multi: &[FoldAnswers], single: Option<&[FoldAnswers]>) -> Option<Self> {
        let multi = Arm::of(head, multi)?;
        let single = single.and_then(|answers| Arm::of(head, answers));
        let paired = single.as_ref().and_then(|single| five_by_two(&multi, single));
        Some(Self { head, multi, single, paired: paired.as_ref().map(PairedTest::of) })
    }

    /// Macro F1 of one fold, multi less single, where both were measured.
    #[must_use]
    pub fn difference(&self, repeat: usize, fold: usize) -> Option<f64> {
        difference(&self.multi, self.single.as_ref()?, repeat, fold)
    }
}

fn difference(multi: &Arm, single: &Arm, repeat: usize, fold: usize) -> Option<f64> {
    Some(multi.macro_f1(repeat, fold)? - single.macro_f1(repeat, fold)?)
}

fn five_by_two(multi: &Arm, single: &Arm) -> Option<[[f64; 2]; 5]> {
    let mut differences = [[0.0; 2]; 5];
    for (repeat, row) in differences.iter_mut().enumerate() {
        for (fold, cell) in row.iter_mut().enumerate() {
            *cell = difference(multi, single, repeat, fold)?;
        }
    }
    Some(differences)
}

#[cfg(test)]
mod tests;

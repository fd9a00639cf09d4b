//! A finished bundle on a labelled set, judged as it would be used: with its own temperatures and limits.

use super::evaluation::{Abstention, DataSummary, Evaluation, FoldAnswers, HeadAbstention, HeadEvaluation};
use super::{LabelledImages, OutOfDistribution, Scored, Threshold, class_index};
use crate::domain::Head;
use crate::model::manifest::HeadManifests;
use crate::model::{Answer, Manifest};

/// Measures what a bundle says of every picture of a set: `answers` are in the order of the samples.
/// `seconds` is how long it took.
#[must_use]
pub fn evaluation(
    images: &LabelledImages,
    answers: &[Answer],
    manifest: &Manifest,
    seconds: f64,
) -> Evaluation {
    let fold = |head: Head| FoldAnswers {
        repeat: 0,
        fold: 0,
        temperature: manifest.heads.of(head).temperature,
        scored: scored(images, answers, head),
    };
    let folds: Vec<(Head, FoldAnswers)> = Head::ALL.iter().map(|head| (*head, fold(*head))).collect();
    let out_of_distribution = manifest.out_of_distribution.map(|limit| {
        // A bundle with a limit has a network that gives the distance: loading it has checked that.
        let distances = answers.iter().map(|answer| answer.distance.map_or(f64::NAN, f64::from));
        OutOfDistribution::of(&limit, &images.samples, distances)
    });
    let (abstention, mut unreached) = abstention(&folds, &manifest.heads);
    let mut notes = notes(manifest, out_of_distribution.as_ref());
    notes.append(&mut unreached);
    Evaluation {
        data: DataSummary::of(images),
        model: format!("{} {}", manifest.name, manifest.version),
        encoders: "bundle".to_owned(),
        protocol: None,
        seed: 0,
        seconds,
        heads: folds
            .iter()
            .filter_map(|(head, fold)| HeadEvaluation::of(*head, std::slice::from_ref(fold), None))
            .collect(),
        abstention,
        out_of_distribution,
        notes,
    }
}

/// The answers of one head where the label has a grade, whatever the model says of the other heads.
fn scored(images: &LabelledImages, answers: &[Answer], head: Head) -> Vec<Scored> {
    let one = |(sample, answer): (&super::Sample, &Answer)| {
        let truth = class_index(&sample.truth, head)?;
        let logits = match head {
            Head::Exp => &answer.exp,
            Head::Icm => &answer.icm,
            Head::Te => &answer.te,
        };
        Some(Scored { truth, logits: logits.clone() })
    };
    images.samples.iter().zip(answers).filter_map(one).collect()
}

/// What the bundle's own thresholds do, where it has any, and a sentence for each that no answer reaches.
fn abstention(folds: &[(Head, FoldAnswers)], heads: &HeadManifests) -> (Option<Abstention>, Vec<String>) {
    let (mut measured, mut unreached) = (Vec::new(), Vec::new());
    for (head, fold) in folds.iter().filter(|(_, fold)| !fold.scored.is_empty()) {
        let threshold = match heads.of(*head).abstain_below {
            None => None,
            Some(limit) => match Threshold::measured(&fold.scored, fold.temperature, limit) {
                Some(threshold) => Some(threshold),
                None => {
                    unreached.push(format!(
                        "{}: no answer reaches the confidence of {limit:.4} below which this model gives no \
                         grade.",
                        head.as_str().to_uppercase()
                    ));
                    continue;
                }
            },
        };
        measured.push(HeadAbstention { head: *head, threshold });
    }
    let is_set = measured.iter().any(|head| head.threshold.is_some());
    (is_set.then_some(Abstention { risk_target: None, heads: measured }), unreached)
}

fn notes(manifest: &Manifest, out_of_distribution: Option<&OutOfDistribution>) -> Vec<String> {
    let mut notes = Vec::new();
    if manifest.untrained {
        notes
            .push("UNTRAINED: this model has random weights, so the figures are those of chance.".to_owned());
    }
    if let Some(refused) = out_of_distribution.filter(|refused| refused.is_for_other_pictures()) {
        notes.push(format!(
            "This model was not made for these pictures: it refuses {} of {} blastocysts as unlike its training \
             set.",
            refused.graded.refused, refused.graded.images
        ));
    }
    notes.push(
        "The figures of a head are over every picture whose label grades it, also over those that the service \
         would refuse because the model is unsure or was not made for them."
            .to_owned(),
    );
    notes.push(
        "ICM and TE count wherever the label has them, also where the model sees an expansion below 3, at which \
         the service gives no letters."
            .to_owned(),
    );
    notes.push(
        "The quality gate was not applied: a picture that the service finds too poor to be graded counts too."
            .to_owned(),
    );
    notes
}

#[cfg(test)]
mod tests;

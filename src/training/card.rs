//! The model card of a trained bundle (Mitchell et al. 2019): what was measured, in words and tables.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::HeadEvaluation;
use super::evaluation::{Abstention, Arm, Evaluation, HeadAbstention};
use crate::domain::round4;
use crate::model::Manifest;

/// What a card is written from.
pub struct Card<'a> {
    /// The manifest of the bundle.
    pub manifest: &'a Manifest,
    /// Held-out samples of the training set.
    pub held_out: &'a Evaluation,
    /// Other sets that the finished bundle answered.
    pub tests: &'a [Evaluation],
    /// The command that makes the bundle again.
    pub recipe: &'a str,
    /// What was done with the encoders, in words.
    pub encoders: &'a str,
}

/// Figures for the manifest, by name: `exp_macro_f1`, `icm_ece_before`, ...; those of another set begin
/// with its name.
#[must_use]
pub fn metrics(held_out: &Evaluation, tests: &[Evaluation]) -> BTreeMap<String, Value> {
    let mut metrics = BTreeMap::new();
    if let Some(protocol) = held_out.protocol {
        metrics.insert("protocol".to_owned(), json!(protocol));
    }
    metrics.insert("training_set_sha256".to_owned(), json!(held_out.data.sha256));
    let sets = [(String::new(), held_out)].into_iter();
    for (prefix, evaluation) in sets.chain(tests.iter().map(|test| (format!("{}.", test.data.name), test))) {
        for HeadEvaluation { head, multi: Arm { figures, ece_before, .. }, .. } in &evaluation.heads {
            let mut add = |name: &str, value: f64| {
                metrics.insert(format!("{prefix}{head}_{name}"), json!(round4(value)));
            };
            add("macro_f1", figures.macro_f1);
            add("accuracy", figures.accuracy);
            add("ece", figures.ece);
            add("ece_before", *ece_before);
            if let Some(kappa) = figures.quadratic_kappa {
                add("quadratic_kappa", kappa);
            }
        }
    }
    metrics
}

impl Card<'_> {
    /// The card in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Self { manifest, held_out, tests, .. } = self;
        let mut text = String::new();
        let mut line = |part: &str| {
            text.push_str(part);
            text.push('\n');
        };
        line(&format!("# {} {}\n", manifest.name, manifest.version));
        line("Grades of human blastocysts after Gardner: expansion (EXP) 1-6, inner cell mass (ICM) and");
        line("trophectoderm (TE) A-C. Written by `memebg train` from what it measured.\n");
        line("## Data and protocol\n");
        line(&format!("- {}", manifest.training_data));
        line(&format!("- {}", self.encoders));
        line(&format!("- Labelled set `{}`, sha256 `{}`:", held_out.data.name, held_out.data.sha256));
        line(&counts(held_out));
        line(&format!(
            "- Protocol: {}. Every figure of the first table is of pictures that its network was not trained on.",
            held_out.protocol.map_or("none", super::Protocol::as_str)
        ));
        line("\n## Figures\n");
        line(&format!("Held out of `{}`:\n", held_out.data.name));
        line(&table(held_out));
        for test in tests.iter() {
            line(&format!("`{}`, {} pictures, answered by this bundle:\n", test.data.name, test.data.images));
            line(&table(test));
            for note in &test.notes {
                line(&format!("- {note}"));
            }
            line("");
        }
        line("ECE: expected calibration error over 15 bins, before and after the temperature of the head.\n");
        line("## When it says nothing\n");
        if let Some(abstention) = &held_out.abstention {
            line(&thresholds(abstention));
        }
        if let Some(limit) = &manifest.out_of_distribution {
            line(&format!(
                "- A picture whose DINOv2 embedding is further than {:.2} from the training set (Mahalanobis distance) \
                 gets no grade: {:.0} % of the held-out pictures are nearer.",
                limit.abstain_above,
                100.0 * limit.accepts
            ));
        }
        line("\n## Intended use\n");
        line(
            "Decision support for embryologists: every grade is preliminary and a person decides. Not for ranking,",
        );
        line("selecting or discarding embryos without one.\n");
        line("## Limits\n");
        line(
            "- The figures hold for pictures like those of the sets above: another microscope, magnification or",
        );
        line("  clinic is another set. Measure it: `memebg evaluate --data DIR`.");
        line("- A class with few pictures has a recall that a handful of them decides.");
        line("- One picture, one focal plane: what lies out of focus is not seen.\n");
        line("## How it was made\n");
        line("```sh");
        line(self.recipe);
        line("```\n");
        line("## Licence\n");
        line(&manifest.license);
        text
    }
}

fn counts(evaluation: &Evaluation) -> String {
    let mut lines = Vec::new();
    for counts in &evaluation.data.grades {
        let classes: Vec<String> =
            counts.classes.iter().map(|count| format!("{} {}", count.class, count.images)).collect();
        lines.push(format!(
            "  {}: {}; without a grade {}",
            counts.head.as_str().to_uppercase(),
            classes.join(", "),
            counts.without_grade
        ));
    }
    lines.join("\n")
}

fn table(evaluation: &Evaluation) -> String {
    let mut text = String::from(
        "| head | pictures | macro-F1 | accuracy | quadratic kappa | ECE before -> after | recall by class |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for HeadEvaluation { head, multi, .. } in &evaluation.heads {
        let figures = &multi.figures;
        let kappa = figures.quadratic_kappa.map_or_else(|| "-".to_owned(), |kappa| format!("{kappa:.2}"));
        let recalls: Vec<String> = figures
            .classes
            .iter()
            .map(|class| {
                let recall = class.recall.map_or_else(|| "-".to_owned(), |recall| format!("{recall:.2}"));
                format!("{} {recall} ({})", class.class, class.support)
            })
            .collect();
        text += &format!(
            "| {} | {} | {:.3} | {:.3} | {kappa} | {:.3} -> {:.3} | {} |\n",
            head.as_str().to_uppercase(),
            figures.images,
            figures.macro_f1,
            figures.accuracy,
            multi.ece_before,
            figures.ece,
            recalls.join(", ")
        );
    }
    text
}

fn thresholds(abstention: &Abstention) -> String {
    let target = abstention.risk_target.map_or_else(String::new, |risk| {
        format!(
            "The thresholds were chosen so that at most {:.0} % of the held-out answers given are wrong.\n\n",
            100.0 * risk
        )
    });
    let line = |HeadAbstention { head, threshold }: &HeadAbstention| {
        let head = head.as_str().to_uppercase();
        match threshold {
            Some(threshold) => format!(
                "- {head}: no grade below a confidence of {:.2}; {:.0} % of the held-out answers are given, {:.1} % of them wrong.",
                threshold.abstain_below,
                100.0 * threshold.coverage,
                100.0 * threshold.risk
            ),
            None => format!("- {head}: no confidence reaches that; this head always abstains."),
        }
    };
    let lines: Vec<String> = abstention.heads.iter().map(line).collect();
    target + &lines.join("\n")
}

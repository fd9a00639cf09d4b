//! An evaluation as text for a terminal.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use super::OutOfDistribution;
use super::evaluation::{Abstention, Arm, Evaluation, HeadEvaluation};
use crate::domain::Head;

/// The figures of every head in a table, a line for every test, the thresholds, what is refused as unlike
/// the training set, and the notes.
#[must_use]
pub fn text(evaluation: &Evaluation) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "head",
        "trained",
        "answers",
        "macro F1",
        "accuracy",
        "quadratic kappa",
        "ECE raw → calibrated",
        "recall per class",
    ]);
    for head in &evaluation.heads {
        table.add_row(row(head.head, "multi-task", &head.multi));
        if let Some(single) = &head.single {
            table.add_row(row(head.head, "single-task", single));
        }
    }
    let tests = evaluation.heads.iter().filter_map(test);
    let thresholds = evaluation.abstention.iter().flat_map(thresholds);
    let refused = evaluation.out_of_distribution.iter().map(OutOfDistribution::in_words);
    let notes = evaluation.notes.iter().map(|note| format!("note: {note}"));
    let lines = std::iter::once(table.to_string()).chain(tests).chain(thresholds).chain(refused).chain(notes);
    lines.collect::<Vec<_>>().join("\n")
}

fn name(head: Head) -> String {
    head.as_str().to_uppercase()
}

fn row(head: Head, trained: &str, arm: &Arm) -> [String; 8] {
    let classes = match head {
        Head::Exp => "1 to 6",
        Head::Icm | Head::Te => "A B C",
    };
    let figures = &arm.figures;
    let deviation = arm.macro_f1_std.map(|std| format!(" ± {std:.3}")).unwrap_or_default();
    let recall: Vec<String> = figures.classes.iter().map(|class| number(class.recall, 2)).collect();
    [
        format!("{} {classes}", name(head)),
        trained.to_owned(),
        figures.images.to_string(),
        format!("{:.3}{deviation}", arm.macro_f1_mean),
        format!("{:.3}", figures.accuracy),
        number(figures.quadratic_kappa, 3),
        format!("{:.3} → {:.3}", arm.ece_before, figures.ece),
        recall.join(" "),
    ]
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn test(head: &HeadEvaluation) -> Option<String> {
    let words = head.paired?.in_words();
    Some(format!("{}, macro F1, multi-task less single-task: {words} (5x2cv F test)", name(head.head)))
}

fn thresholds(abstention: &Abstention) -> impl Iterator<Item = String> {
    abstention.heads.iter().map(|head| {
        let name = name(head.head);
        match (head.threshold, abstention.risk_target) {
            (Some(threshold), _) => format!(
                "{name}: no grade below confidence {:.4}: {:.1} % graded, {:.1} % of these wrong",
                threshold.abstain_below,
                threshold.coverage * 100.0,
                threshold.risk * 100.0
            ),
            (None, Some(target)) => {
                format!(
                    "{name}: no confidence that 20 answers reach keeps wrong grades at {:.1} % or below",
                    target * 100.0
                )
            }
            (None, None) => format!("{name}: always a grade"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::report::tests::example;

    #[test]
    fn every_head_has_a_row_per_way_of_training_and_a_verdict() {
        let text = text(&example());
        for head in ["EXP 1 to 6", "ICM A B C", "TE A B C"] {
            assert_eq!(text.lines().filter(|line| line.contains(head)).count(), 2, "{text}");
        }
        assert_eq!(text.lines().filter(|line| line.contains("chance would give")).count(), 3, "{text}");
        assert!(text.contains(" ± 0."), "{text}");
        assert!(text.contains("EXP: no grade below confidence 0.7312: 81.0 % graded, 4.8 %"), "{text}");
        assert!(
            text.contains("TE: no confidence that 20 answers reach keeps wrong grades at 5.0 %"),
            "{text}"
        );
        assert!(
            text.contains(
                "no grade beyond a distance of 24.50 from the training set: 6 of 150 blastocysts (4.0 %) and 45 of \
                 50 pictures of other stages (90.0 %) are refused"
            ),
            "{text}"
        );
        assert!(text.lines().last().unwrap().starts_with("note: "), "{text}");
    }

    #[test]
    fn a_finished_model_has_one_row_a_head_and_nothing_to_compare() {
        let mut evaluation = example();
        for head in &mut evaluation.heads {
            (head.single, head.paired) = (None, None);
        }
        (evaluation.abstention, evaluation.out_of_distribution) = (None, None);
        let text = text(&evaluation);
        assert_eq!(text.lines().filter(|line| line.contains("multi-task")).count(), 3, "{text}");
        for absent in ["single-task", "chance", "refused"] {
            assert!(!text.contains(absent), "{text}");
        }
    }
}

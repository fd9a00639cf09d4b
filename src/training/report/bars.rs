//! Bars of recall by class, and the differences of the folds.

use super::{label, svg};
use crate::training::HeadEvaluation;

const LEFT: f64 = 64.0;
const LENGTH: f64 = 190.0;
const RIGHT: f64 = 54.0;
const BAR: f64 = 11.0;

/// Share of each class that is found, multi-task above single-task.
pub(super) fn recall(id: &str, head: &HeadEvaluation) -> String {
    let arms: Vec<(&str, &crate::training::HeadFigures)> = std::iter::once(("multi", &head.multi.figures))
        .chain(head.single.iter().map(|single| ("single", &single.figures)))
        .collect();
    let step = arms.len() as f64 * (BAR + 2.0) + 14.0;
    let bottom = 14.0 + step * head.multi.figures.classes.len() as f64;
    let mut content = String::new();
    for tick in [0.0, 0.5, 1.0] {
        let x = LEFT + LENGTH * tick;
        content.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"8\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" class=\"grid\"/>"
        ));
        content.push_str(&label(x, bottom + 16.0, "tick mid", &format!("{tick:.1}")));
    }
    let mut words = Vec::new();
    for (index, class) in head.multi.figures.classes.iter().enumerate() {
        let top = 14.0 + step * index as f64;
        let middle = top + (step - 14.0) / 2.0;
        content.push_str(&label(LEFT - 10.0, middle, "class end", &class.class));
        content.push_str(&label(LEFT - 10.0, middle + 12.0, "tiny end", &format!("n {}", class.support)));
        for (arm, (kind, figures)) in arms.iter().enumerate() {
            let y = top + arm as f64 * (BAR + 2.0);
            let Some(recall) = figures.classes.get(index).and_then(|class| class.recall) else {
                content.push_str(&label(LEFT + 6.0, y + BAR - 1.0, "tiny", "no label"));
                continue;
            };
            content.push_str(&format!(
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" class=\"bar {kind}\"/>",
                (LENGTH * recall).max(1.0)
            ));
            let x = LEFT + LENGTH * recall + 6.0;
            content.push_str(&label(x, y + BAR - 1.0, "value", &format!("{recall:.2}")));
            words.push(format!("class {} {kind}-task {recall:.2}", class.class));
        }
    }
    content.push_str(&label(LEFT + LENGTH / 2.0, bottom + 34.0, "axis mid", "recall"));
    let description = format!("Recall: {}.", words.join(", "));
    svg(id, LEFT + LENGTH + RIGHT, bottom + 42.0, "Recall of each class", &description, &content)
}

/// Macro F1 of every fold, multi-task less single-task, one row per repeat; `None` when no fold has
/// both.
pub(super) fn differences(id: &str, head: &HeadEvaluation) -> Option<String> {
    let all: Vec<(usize, usize, f64)> = head
        .multi
        .folds
        .iter()
        .filter_map(|fold| Some((fold.repeat, fold.fold, head.difference(fold.repeat, fold.fold)?)))
        .collect();
    let largest = all.iter().map(|(_, _, difference)| difference.abs()).fold(0.0, f64::max);
    let last = all.iter().map(|(repeat, _, _)| *repeat).max()?;
    // The next of 0.05, 0.1, 0.15, ... so that ticks are round.
    let reach = ((largest / 0.05).ceil() * 0.05).max(0.05);
    let x = |difference: f64| LEFT + LENGTH / 2.0 * (1.0 + difference / reach);
    let bottom = 36.0 + 24.0 * (last + 1) as f64;
    let mut content = String::new();
    for tick in [-reach, 0.0, reach] {
        let class = if tick == 0.0 { "zero" } else { "grid" };
        content.push_str(&format!(
            "<line x1=\"{0:.1}\" y1=\"24\" x2=\"{0:.1}\" y2=\"{bottom:.1}\" class=\"{class}\"/>",
            x(tick)
        ));
        let text = if tick == 0.0 { "0".to_owned() } else { format!("{tick:+.2}") };
        content.push_str(&label(x(tick), bottom + 16.0, "tick mid", &text));
    }
    content.push_str(&label(LEFT, 14.0, "tiny", "◀ single better"));
    content.push_str(&label(LEFT + LENGTH, 14.0, "tiny end", "multi better ▶"));
    for repeat in 0..=last {
        let y = 44.0 + 24.0 * repeat as f64;
        content.push_str(&label(LEFT - 12.0, y + 4.0, "tick end", &format!("repeat {}", repeat + 1)));
        for (_, _, difference) in all.iter().filter(|(of, _, _)| *of == repeat) {
            let kind = if *difference < 0.0 { "single" } else { "multi" };
            content.push_str(&format!(
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5.5\" class=\"dot {kind}\"/>",
                x(*difference)
            ));
        }
    }
    let mean = all.iter().map(|(_, _, difference)| difference).sum::<f64>() / all.len() as f64;
    content.push_str(&format!(
        "<line x1=\"{0:.1}\" y1=\"24\" x2=\"{0:.1}\" y2=\"{bottom:.1}\" class=\"mean\"/>",
        x(mean)
    ));
    let better = all.iter().filter(|(_, _, difference)| *difference > 0.0).count();
    let description =
        format!("Mean {mean:+.3}; multi-task training is better in {better} of {} folds.", all.len());
    let title = "Macro F1 of every fold, multi-task less single-task";
    Some(svg(id, LEFT + LENGTH + RIGHT, bottom + 24.0, title, &description, &content))
}

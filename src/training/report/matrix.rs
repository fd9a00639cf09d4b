//! Confusion matrices.

use super::{label, svg};
use crate::training::HeadFigures;

/// Width and height of the cells together.
const SIDE: f64 = 252.0;
/// Room for the labels on the left and above.
const MARGIN: f64 = 46.0;
/// From this share of a row on, text is white.
const DARK: f64 = 0.5;

/// How much of the cell's colour covers the paper. It jumps at [`DARK`]: with the colours of the style
/// sheet the shades in between give neither black nor white text a contrast of 4.5 to 1.
fn shade(share: f64) -> f64 {
    if share > DARK { 0.76 + 0.48 * (share - DARK) } else { 1.2 * share }
}

/// Rows are true classes, columns answers; a cell is the darker the larger its share of the row.
pub(super) fn confusion(id: &str, title: &str, figures: &HeadFigures) -> String {
    let classes = &figures.classes;
    let cell = SIDE / classes.len() as f64;
    let centre = |index: usize| MARGIN + cell * (index as f64 + 0.5);
    let mut content = label(MARGIN + SIDE / 2.0, 14.0, "axis mid", "answer");
    content.push_str(&format!(
        "<text transform=\"translate(14 {:.1}) rotate(-90)\" class=\"axis mid\">label</text>",
        MARGIN + SIDE / 2.0
    ));
    for (truth, (row, class)) in figures.confusion.iter().zip(classes).enumerate() {
        content.push_str(&label(centre(truth), MARGIN - 10.0, "class mid", &class.class));
        content.push_str(&label(MARGIN - 10.0, centre(truth) + 5.0, "class end", &class.class));
        for (answer, count) in row.iter().enumerate() {
            let share = if class.support == 0 { 0.0 } else { *count as f64 / class.support as f64 };
            let (x, y) = (centre(answer) - cell / 2.0, centre(truth) - cell / 2.0);
            let kind = if truth == answer { "cell hit" } else { "cell" };
            let text = if share > DARK { "count mid on-dark" } else { "count mid" };
            content.push_str(&format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"{kind}\"/>\
                 <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"shade\" \
                 fill-opacity=\"{:.3}\"/>",
                x + 1.0,
                y + 1.0,
                cell - 2.0,
                cell - 2.0,
                x + 1.0,
                y + 1.0,
                cell - 2.0,
                cell - 2.0,
                shade(share)
            ));
            content.push_str(&label(centre(answer), centre(truth) + 1.0, text, &count.to_string()));
            if *count > 0 {
                let text = if share > DARK { "tiny mid on-dark" } else { "tiny mid" };
                let share = format!("{:.0} %", share * 100.0);
                content.push_str(&label(centre(answer), centre(truth) + 14.0, text, &share));
            }
        }
    }
    let right: u64 = figures.confusion.iter().enumerate().filter_map(|(class, row)| row.get(class)).sum();
    let description = format!(
        "{right} of {} answers lie on the diagonal. Rows are labels, columns answers, in class order: {}.",
        figures.images,
        figures.confusion.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>().join(", ")
    );
    svg(id, MARGIN + SIDE + 4.0, MARGIN + SIDE + 4.0, title, &description, &content)
}

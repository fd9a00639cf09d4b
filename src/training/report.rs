//! An evaluation as one HTML file that needs nothing else: no script, no font, no network.
//!
//! Light and dark follow the reader's setting, paper gets the light one. The two ways of training are
//! blue and orange, which every kind of colour blindness tells apart, and differ in shape or hatching.

mod bars;
mod head;
mod matrix;
mod reliability;
mod sections;

use super::{Evaluation, Protocol};
use crate::domain::Head;

const STYLE: &str = include_str!("report/style.css");

/// The report: headline figures, every head in pictures and tables, the folds, the data, the limits.
#[must_use]
pub fn html(evaluation: &Evaluation) -> String {
    let model = escape(&evaluation.model);
    let heads: String = evaluation.heads.iter().map(head::section).collect();
    let body = [
        header(evaluation),
        sections::headline(evaluation),
        heads,
        sections::abstention(evaluation),
        sections::out_of_distribution(evaluation),
        sections::folds(evaluation),
        sections::data(evaluation),
        sections::limits(evaluation),
    ]
    .concat();
    // The policy holds even if some text were not escaped: nothing is loaded and nothing runs.
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{model}: evaluation on {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{PATTERNS}\
         <main>\n{body}</main>\n</body>\n</html>\n",
        escape(&evaluation.data.name)
    )
}

/// The hatching of single-task marks, which every chart refers to.
const PATTERNS: &str = "<svg width=\"0\" height=\"0\" aria-hidden=\"true\" class=\"defs\"><defs>\
    <pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" class=\"hatch-paper\"/>\
    <rect width=\"2.6\" height=\"5\" class=\"hatch-line\"/></pattern></defs></svg>\n";

fn header(evaluation: &Evaluation) -> String {
    let data = &evaluation.data;
    let protocol = match evaluation.protocol {
        Some(Protocol::Holdout) => "holdout, 20 % for the test",
        Some(Protocol::KFold) => "5-fold cross-validation",
        Some(Protocol::FiveByTwo) => "5x2 cross-validation",
        None => "a finished model, asked once per image",
    };
    let seed = evaluation.protocol.map(|_| format!(" · seed {}", evaluation.seed)).unwrap_or_default();
    let notes: String =
        evaluation.notes.iter().map(|note| format!("<p class=\"note\">{}</p>\n", escape(note))).collect();
    format!(
        "<header>\n<p class=\"kind\">Evaluation of a blastocyst grader</p>\n<h1>{}</h1>\n\
         <p class=\"facts\">{} images of <strong>{}</strong> · {protocol} · encoders: {}{seed} · {}</p>\n\
         {notes}</header>\n",
        escape(&evaluation.model),
        data.images,
        escape(&data.name),
        escape(&evaluation.encoders),
        duration(evaluation.seconds),
    )
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

/// Text as HTML, within elements and attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

fn name(head: Head) -> &'static str {
    match head {
        Head::Exp => "Expansion (EXP)",
        Head::Icm => "Inner cell mass (ICM)",
        Head::Te => "Trophectoderm (TE)",
    }
}

/// A figure with three decimals, or a dash where it is not defined.
fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

/// Mean and deviation over the folds.
fn macro_f1(arm: &super::evaluation::Arm) -> String {
    let deviation = arm.macro_f1_std.map(|std| format!(" ± {std:.3}")).unwrap_or_default();
    format!("{:.3}{deviation}", arm.macro_f1_mean)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A picture that says in words what it shows. `id` is unique within the report.
fn svg(id: &str, width: f64, height: f64, title: &str, description: &str, content: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         role=\"img\" aria-labelledby=\"{id}-title {id}-desc\"><title id=\"{id}-title\">{}</title>\
         <desc id=\"{id}-desc\">{}</desc>{content}</svg>",
        escape(title),
        escape(description)
    )
}

/// Text within a picture.
fn label(x: f64, y: f64, class: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text))
}

#[cfg(test)]
pub(super) mod tests;

//! Reliability diagrams: are answers right as often as the model believes?

use super::{label, svg};
use crate::training::evaluation::Arm;
use crate::training::figures::ReliabilityBin;

const SIDE: f64 = 252.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;
/// Radius of a mark that stands for all answers; the area of the others is in proportion.
const FULL_RADIUS: f64 = 15.0;

/// Confidence against accuracy, before the temperature and after it.
pub(super) fn diagram(id: &str, arm: &Arm) -> String {
    let mut content = format!(
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" class=\"frame\"/>\
         <line x1=\"{LEFT}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{TOP}\" class=\"ideal\"/>",
        TOP + SIDE,
        LEFT + SIDE
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let text = format!("{tick:.2}");
        content.push_str(&label(x(tick), TOP + SIDE + 16.0, "tick mid", &text));
        content.push_str(&label(LEFT - 6.0, y(tick) + 4.0, "tick end", &text));
    }
    content.push_str(&label(LEFT + SIDE / 2.0, TOP + SIDE + 36.0, "axis mid", "confidence"));
    content.push_str(&format!(
        "<text transform=\"translate(11 {:.1}) rotate(-90)\" class=\"axis mid\">share right</text>",
        TOP + SIDE / 2.0
    ));
    content.push_str(&curve("before", &arm.reliability_before));
    content.push_str(&curve("after", &arm.figures.reliability));
    let description = format!(
        "Expected calibration error {:.3} before the temperature and {:.3} after it. {}",
        arm.ece_before,
        arm.figures.ece,
        arm.figures
            .reliability
            .iter()
            .map(|bin| format!(
                "At confidence {:.2}, {:.2} of {} are right.",
                bin.confidence, bin.accuracy, bin.images
            ))
            .collect::<Vec<_>>()
            .join(" ")
    );
    svg(id, LEFT + SIDE + 16.0, TOP + SIDE + BOTTOM, "Reliability diagram", &description, &content)
}

fn x(confidence: f64) -> f64 {
    LEFT + SIDE * confidence
}

fn y(accuracy: f64) -> f64 {
    TOP + SIDE * (1.0 - accuracy)
}

fn curve(class: &str, bins: &[ReliabilityBin]) -> String {
    let total: usize = bins.iter().map(|bin| bin.images).sum();
    let points: Vec<String> =
        bins.iter().map(|bin| format!("{:.1},{:.1}", x(bin.confidence), y(bin.accuracy))).collect();
    let marks = bins.iter().map(|bin| {
        let radius = (FULL_RADIUS * (bin.images as f64 / total as f64).sqrt()).max(2.0);
        let (x, y) = (x(bin.confidence), y(bin.accuracy));
        format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" class=\"mark {class}\"/>")
    });
    let marks: String = marks.collect();
    format!("<polyline points=\"{}\" class=\"curve {class}\"/>{marks}", points.join(" "))
}

//! Expansion over time, and below it a line for every reason why a photograph has no grade.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::case::{Case, CaseFrame};
use super::words;
use crate::domain::{AbstainReason, TrajectoryPoint};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
/// Height of the part for expansion.
const PLOT: f64 = 125.0;
/// Height of the line of a reason.
const LANE: f64 = 18.0;
const BOTTOM: f64 = 44.0;
const MAX_TICKS: f64 = 10.0;

pub(super) fn html(case: &Case) -> String {
    let drawn = if case.frames().is_empty() {
        "<p>The summary rests on no photograph.</p>\n".to_owned()
    } else {
        let legend = "<p>Line: expansion at a time, all graded photographs together. Dots: single photographs. \
             Crosses: photographs without a grade, by reason.</p>\n";
        format!("{}{legend}", Chart::of(case).svg())
    };
    format!(
        "<section class=\"whole\" aria-labelledby=\"trajectory\">\n<h2 id=\"trajectory\">Expansion over time</h2>\n{drawn}</section>\n"
    )
}

struct Chart<'a> {
    frames: &'a [CaseFrame],
    trajectory: &'a [TrajectoryPoint],
    reasons: Vec<AbstainReason>,
    hours: RangeInclusive<f64>,
}

impl<'a> Chart<'a> {
    fn of(case: &'a Case) -> Self {
        let summary = case.summary();
        let (frames, trajectory) = (case.frames(), summary.trajectory.as_slice());
        let reasons: BTreeSet<AbstainReason> =
            frames.iter().flat_map(|frame| frame.contribution.reasons.iter().copied()).collect();
        let times = frames.iter().map(CaseFrame::hpi).chain(trajectory.iter().map(|point| point.hpi));
        let times: Vec<f64> = times.chain([summary.window.from_hpi, summary.window.to_hpi]).collect();
        let first = times.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let last = times.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        Self {
            frames,
            trajectory,
            reasons: reasons.into_iter().collect(),
            hours: first..=last.max(first + 1.0),
        }
    }

    fn x(&self, hpi: f64) -> f64 {
        let share = (hpi - self.hours.start()) / (self.hours.end() - self.hours.start());
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(expansion: f64) -> f64 {
        TOP + (6.0 - expansion.clamp(1.0, 6.0)) / 5.0 * PLOT
    }

    /// Middle of the line of the reason with this number.
    fn lane(number: usize) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "there are seven reasons")]
        let number = number as f64;
        TOP + PLOT + LANE * (number + 1.0)
    }

    fn svg(&self) -> String {
        let end = Self::lane(self.reasons.len());
        let height = end + BOTTOM - LANE;
        let points: Vec<String> = self
            .trajectory
            .iter()
            .map(|point| format!("{:.1},{:.1}", self.x(point.hpi), Self::y(point.expansion)))
            .collect();
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"chart-title chart-text\">\n\
             <title id=\"chart-title\">Expansion over time</title>\n<desc id=\"chart-text\">{}</desc>\n{}{}\
             <polyline class=\"line\" points=\"{}\"/>\n{}{}</svg>\n",
            self.in_words(),
            Self::grid(),
            self.hour_marks(end - LANE / 2.0),
            points.join(" "),
            self.dots(),
            self.lanes(),
        )
    }

    fn grid() -> String {
        let line = |class: u32| {
            let y = Self::y(class.into());
            format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text class=\"end\" x=\"{}\" y=\"{}\">{class}</text>\n",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            )
        };
        let lines: String = (1..=6).map(line).collect();
        format!("<text x=\"0\" y=\"{}\">expansion</text>\n{lines}", TOP + 4.0)
    }

    fn hour_marks(&self, y: f64) -> String {
        let (first, last) = (*self.hours.start(), *self.hours.end());
        let every = ((last - first) / MAX_TICKS).ceil().max(1.0);
        let (mut marks, mut hour) = (String::new(), first);
        while hour <= last {
            let x = self.x(hour);
            marks += &format!(
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\"/>\
                 <text class=\"middle\" x=\"{x:.1}\" y=\"{}\">{hour:.0}</text>\n",
                y + 4.0,
                y + 17.0
            );
            hour += every;
        }
        format!(
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\n{marks}\
             <text class=\"end\" x=\"{}\" y=\"{}\">hours post insemination</text>\n",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            y + 32.0
        )
    }

    fn dots(&self) -> String {
        let dot = |frame: &CaseFrame| {
            let (x, y) = (self.x(frame.hpi()), Self::y(frame.expansion()?));
            Some(format!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>\n"))
        };
        self.frames.iter().filter_map(dot).collect()
    }

    fn lanes(&self) -> String {
        let lane = |(number, reason): (usize, &AbstainReason)| {
            let y = Self::lane(number);
            let frames = self.frames.iter().filter(|frame| frame.contribution.reasons.contains(reason));
            let crosses: String = frames
                .map(|frame| {
                    let x = self.x(frame.hpi());
                    format!("<path class=\"cross\" d=\"M{:.1} {}l7 7m0 -7l-7 7\"/>\n", x - 3.5, y - 3.5)
                })
                .collect();
            let name = words::abstention(*reason);
            format!("<text class=\"end\" x=\"{}\" y=\"{}\">{name}</text>\n{crosses}", LEFT - 8.0, y + 4.0)
        };
        self.reasons.iter().enumerate().map(lane).collect()
    }

    fn in_words(&self) -> String {
        let without = self.frames.iter().filter(|frame| frame.contribution.exp.is_none()).count();
        let without = words::count(without, "photograph");
        let (Some(first), Some(last)) = (self.trajectory.first(), self.trajectory.last()) else {
            return format!("Nothing was graded; {without} without a grade.");
        };
        format!(
            "From {:.1} at {:.1} hours to {:.1} at {:.1} hours; {without} without a grade.",
            first.expansion, first.hpi, last.expansion, last.hpi
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::case;

    #[test]
    fn every_frame_is_marked_once_for_its_grade_or_for_each_of_its_reasons() {
        let case = case();
        let svg = Chart::of(&case).svg();
        let graded = case.frames().iter().filter(|frame| frame.contribution.exp.is_some()).count();
        let reasons: usize = case.frames().iter().map(|frame| frame.contribution.reasons.len()).sum();
        assert!(graded > 0 && reasons > 1);
        assert_eq!(svg.matches("class=\"dot\"").count(), graded);
        assert_eq!(svg.matches("class=\"cross\"").count(), reasons);
        assert!(svg.contains(">out of focus</text>") && svg.contains(">model unsure</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn times_that_no_embryo_has_draw_a_chart_that_ends() {
        let mut summary = case().summary().clone();
        summary.window.to_hpi = 1e300;
        let case = Case::new(summary, []).unwrap();
        let svg = Chart::of(&case).svg();
        assert!(svg.matches("class=\"tick\"").count() <= 11 && !svg.contains("NaN"), "{svg}");
    }
}

//! The machine's grade and the reviewer's beside it, and how sure every head is.

use super::case::Case;
use super::escape::text;
use super::words::{self, count, utc};
use crate::domain::{EmbryoSummary, GradeClass, Head, HeadGrade, SummaryReview};

pub(super) fn html(case: &Case) -> String {
    let summary = case.summary();
    let review = summary.review.as_ref();
    let reviewed =
        review.map_or_else(|| "<p>No embryologist has reviewed this embryo yet.</p>\n".to_owned(), reviewers);
    format!(
        "<section aria-labelledby=\"grades\">\n<h2 id=\"grades\">Machine and reviewer</h2>\n<div class=\"pair\">\n\
         <div class=\"card\">\n<h3>Machine</h3>\n{}</div>\n<div class=\"card\">\n<h3>Reviewer</h3>\n{reviewed}</div>\n\
         </div>\n</section>\n<section aria-labelledby=\"probabilities\">\n\
         <h2 id=\"probabilities\">Probabilities of the machine</h2>\n{}</section>\n",
        machines(summary),
        probabilities(summary),
    )
}

fn list(facts: &[(&str, String)]) -> String {
    let facts: String =
        facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")).collect();
    format!("<dl>\n{facts}</dl>\n")
}

fn machines(summary: &EmbryoSummary) -> String {
    let frames = &summary.frames;
    let mut facts = vec![(
        "Photographs",
        format!(
            "{} of {} graded, {} without a grade, in {}{}",
            frames.graded,
            frames.total,
            frames.abstained,
            count(frames.focal_planes, "focal plane"),
            if frames.left_out { "; there were more than a summary holds" } else { "" }
        ),
    )];
    if let Some(confidence) = summary.confidence {
        facts.push(("Confidence", format!("{confidence:.2}, that of the least sure head")));
    }
    if let Some(disagreement) = &summary.disagreement {
        let letters = [("ICM", disagreement.icm), ("TE", disagreement.te)];
        let heads = [("EXP", Some(disagreement.exp))].into_iter().chain(letters);
        let heads: Vec<String> =
            heads.filter_map(|(name, share)| Some(format!("{name} {:.0} %", 100.0 * share?))).collect();
        facts.push(("Photographs that say otherwise", heads.join(", ")));
    }
    let why = summary.abstentions.iter();
    let why: Vec<String> =
        why.map(|(reason, frames)| format!("{} ({frames})", words::abstention(*reason))).collect();
    if !why.is_empty() {
        facts.push(("No grade because", why.join(", ")));
    }
    let grade = summary.gardner.as_deref().map_or_else(|| "no grade".to_owned(), text);
    format!("<p class=\"grade\">{grade}</p>\n{}", list(&facts))
}

fn reviewers(review: &SummaryReview) -> String {
    let blinded = if review.blinded {
        "yes: given before the machine’s grade was seen"
    } else {
        "no: the machine’s grade had been seen"
    };
    let facts = [
        ("Reviewer", format!("<bdi>{}</bdi> (pseudonym)", text(&review.reviewer))),
        ("When", utc(review.reviewed_at)),
        ("Blinded", blinded.to_owned()),
        ("Reason", words::review(review.reason).to_owned()),
        ("Review id", format!("<code>{}</code>", text(&review.id))),
    ];
    format!("<p class=\"grade\">{}</p>\n{}", text(&review.gardner), list(&facts))
}

fn probabilities(summary: &EmbryoSummary) -> String {
    let Some(heads) = &summary.heads else {
        return "<p>There are none: no photograph was graded.</p>\n".to_owned();
    };
    let review = summary.review.as_ref();
    let mut tables = table(Head::Exp, &heads.exp, review.map(|it| it.exp), words::expansion);
    if let Some(icm) = &heads.icm {
        tables += &table(Head::Icm, icm, review.and_then(|it| it.icm), words::icm);
    }
    if let Some(te) = &heads.te {
        tables += &table(Head::Te, te, review.and_then(|it| it.te), words::te);
    }
    let letters = if heads.icm.is_none() && heads.te.is_none() {
        "<p>Inner cell mass and trophectoderm are graded from expansion 3 on.</p>\n"
    } else {
        ""
    };
    format!(
        "<p>Calibrated, over all graded photographs. The full bar is the machine’s grade.</p>\n\
         <div class=\"heads\">\n{tables}</div>\n{letters}"
    )
}

fn table<G: GradeClass>(
    head: Head,
    grade: &HeadGrade<G>,
    reviewers: Option<G>,
    meaning: fn(G) -> &'static str,
) -> String {
    let rows: String = grade
        .probabilities
        .iter()
        .map(|(class, probability)| {
            let chosen = class == grade.grade;
            let said = match (chosen, reviewers == Some(class)) {
                (true, true) => "machine, reviewer",
                (true, false) => "machine",
                (false, true) => "reviewer",
                (false, false) => "",
            };
            format!(
                "<tr{}><th scope=\"row\">{} <span>{}</span></th><td>{}</td><td class=\"number\">{probability:.2}</td>\
                 <td class=\"said\">{said}</td></tr>\n",
                if chosen { " class=\"chosen\"" } else { "" },
                class.label(),
                meaning(class),
                bar(probability),
            )
        })
        .collect();
    format!(
        "<table>\n<caption>{}</caption>\n<thead><tr><th scope=\"col\">Class</th><th scope=\"col\" colspan=\"2\">\
         Probability</th><th scope=\"col\">Given by</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n",
        words::head(head)
    )
}

/// Drawn, not a background: browsers print backgrounds only when they are told to. The number stands beside it.
fn bar(probability: f64) -> String {
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"100\" height=\"10\"/><rect class=\"share\" width=\"{:.1}\" height=\"10\"/></svg>",
        100.0 * probability.clamp(0.0, 1.0)
    )
}

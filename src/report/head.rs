//! Which embryo it is, and what may be believed of it: the first thing that is read.

use super::ReportData;
use super::escape::text;
use super::words::{count, utc};
use crate::domain::{EmbryoSummary, SummaryAssessment, SummaryStatus};

pub(super) fn html(data: &ReportData) -> String {
    let summary = data.case.summary();
    let instrument = data.case.frames().iter().rev().find_map(|frame| frame.event.as_ref()).map(|event| {
        let it = &event.instrument;
        format!("{} {}, serial {}", text(&it.vendor), text(&it.model), text(&it.serial))
    });
    let (kind, container) = match (&summary.slide_id, &summary.dish_id) {
        (Some(slide), _) => ("Slide", text(slide)),
        (None, Some(dish)) => ("Dish", text(dish)),
        (None, None) => ("Slide", "not known".to_owned()),
    };
    let window =
        format!("{:.0} to {:.0} hours post insemination", summary.window.from_hpi, summary.window.to_hpi);
    let last = format!("{:.2} hpi, {}", summary.last_frame.hpi, utc(summary.last_frame.captured_at));
    let facts = [
        ("Site", text(&summary.site_id)),
        ("Instrument", instrument.unwrap_or_else(|| "not known: no grade event is to be had".into())),
        (kind, container),
        ("Well", summary.well.to_string()),
        ("Window", window),
        ("Last photograph", last),
    ];
    let facts: String =
        facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")).collect();
    format!(
        "<header>\n<p class=\"kind\">Embryo report</p>\n<h1><bdi>{}</bdi></h1>\n<dl class=\"facts\">\n{facts}</dl>\n\
         </header>\n{}{}",
        text(&summary.embryo_id),
        untrained(summary),
        verdict(summary),
    )
}

fn untrained(summary: &EmbryoSummary) -> &'static str {
    if summary.models.iter().any(|model| model.untrained) {
        "<p class=\"warning\"><strong>Untrained model.</strong> A network with random weights has a say here: its \
         grades mean nothing.</p>\n"
    } else {
        ""
    }
}

fn verdict(summary: &EmbryoSummary) -> String {
    let (state, note) = match (summary.assessment, &summary.review) {
        (SummaryAssessment::Final, Some(review)) => {
            ("final", format!("Reviewed: {} gave the same grade as the machine.", reviewer(&review.reviewer)))
        }
        (SummaryAssessment::Amended, Some(review)) => (
            "amended",
            format!(
                "Reviewed: {} gave this grade; the machine gave {}. The machine’s numbers below are unchanged.",
                reviewer(&review.reviewer),
                summary.gardner.as_deref().map_or_else(|| "none".to_owned(), text)
            ),
        ),
        _ if summary.gardner.is_none() => (
            "preliminary",
            "Not reviewed: the machine gave no grade, and no embryologist has given one.".into(),
        ),
        _ => (
            "preliminary",
            "Not reviewed: a machine gave this grade, and no embryologist has confirmed it.".into(),
        ),
    };
    let reviewed = summary.review.as_ref().filter(|_| state != "preliminary").map(|it| &it.gardner);
    let grade = reviewed.or(summary.gardner.as_ref()).map_or_else(|| "no grade".to_owned(), |it| text(it));
    let open = match summary.status {
        SummaryStatus::Provisional => {
            "The window is still open: more photographs are expected, and may change it."
        }
        SummaryStatus::Final => "The window has ended: no more photographs are expected.",
    };
    format!(
        "<section class=\"verdict {state}\" aria-labelledby=\"verdict\">\n<h2 id=\"verdict\">Grade</h2>\n\
         <p class=\"gardner\">{grade}</p>\n<div>\n<p class=\"state\">{state}</p>\n<p>{note}</p>\n\
         <p>{open} Version {} of the summary; {}.</p>\n<p><strong>Decision support only.</strong> What becomes of \
         this embryo is decided by an embryologist, who looks at the photographs and not at this page alone.</p>\n\
         </div>\n</section>\n",
        summary.version,
        count(summary.reviews, "review"),
    )
}

fn reviewer(pseudonym: &str) -> String {
    format!("embryologist <bdi>{}</bdi>", text(pseudonym))
}

//! The photographs in order, and where the model looked in the last of them.

use super::escape::text;
use super::words::{self, count};
use super::{Looked, ReportData};
use crate::domain::{GradeEvent, GradeStatus};

pub(super) fn strip(data: &ReportData) -> String {
    let pictured = data.case.pictured();
    let figures: String = pictured.iter().map(|event| figure(data, event)).collect();
    let all = data.case.frames().len();
    let lost = data.case.frames().iter().filter(|frame| frame.event.is_none()).count();
    let mut said = format!("{} of {} shown", pictured.len(), count(all, "photograph"));
    if (1..all).contains(&pictured.len()) {
        said += ", evenly picked in time, of each capture the focal plane nearest to the middle";
    }
    said += if pictured.is_empty() { "." } else { ". Cropped and grey, as the model sees them." };
    if lost > 0 {
        said += &format!(" Of {} the grade event is not to be had any more.", count(lost, "photograph"));
    }
    let figures =
        if figures.is_empty() { figures } else { format!("<div class=\"strip\">\n{figures}</div>\n") };
    format!(
        "<section aria-labelledby=\"photographs\">\n<h2 id=\"photographs\">Photographs</h2>\n<p>{said}</p>\n{figures}</section>\n"
    )
}

fn figure(data: &ReportData, event: &GradeEvent) -> String {
    let graded = event.status == GradeStatus::Graded;
    let grade = match (&event.gardner, &event.heads) {
        (Some(gardner), Some(heads)) if graded => {
            format!("<b>{}</b> {:.2}", text(gardner), heads.confidence())
        }
        _ => format!("<b>no grade</b> {}", words::abstentions(&event.reasons)),
    };
    let said = match (&event.gardner, graded) {
        (Some(gardner), true) => format!("graded {}", text(gardner)),
        _ => format!("not graded: {}", words::abstentions(&event.reasons)),
    };
    let alt = format!("Photograph at {:.2} hours, {}, {said}", event.hpi, plane(event));
    let picture = match data.photographs.get(&event.image_sha256) {
        Some(Ok(jpeg)) => image(jpeg, &alt),
        Some(Err(why)) => format!("<p class=\"missing\">{}</p>", text(why)),
        None => "<p class=\"missing\">not looked for</p>".to_owned(),
    };
    let class = if graded { "" } else { " class=\"doubted\"" };
    format!(
        "<figure{class}>{picture}<figcaption><span>{:.2} hpi</span> <span>{grade}</span></figcaption></figure>\n",
        event.hpi
    )
}

/// Such as `plane 3 of 5, +15 µm`.
pub(super) fn plane(event: &GradeEvent) -> String {
    let plane = &event.focal_plane;
    let (number, count) = (u64::from(plane.index) + 1, plane.count);
    if plane.offset_um.abs() < 0.5 {
        return format!("plane {number} of {count}, 0 µm");
    }
    format!("plane {number} of {count}, {:+.0} µm", plane.offset_um)
}

fn image(jpeg: &[u8], alt: &str) -> String {
    let data = base64_simd::STANDARD.encode_to_string(jpeg);
    format!("<img src=\"data:image/jpeg;base64,{data}\" alt=\"{alt}\">")
}

pub(super) fn maps(data: &ReportData) -> String {
    let shown = match (&data.looked, data.case.latest_graded()) {
        (Looked::Maps { photograph, maps }, Some(event)) => {
            let hpi = event.hpi;
            let mut figures = format!(
                "<figure>{}<figcaption>Photograph</figcaption></figure>\n",
                image(photograph, &format!("The latest graded photograph, at {hpi:.2} hours, without a map"))
            );
            for (head, jpeg) in maps {
                let name = words::head(*head);
                let alt = format!("The same photograph under the map of {name}");
                figures +=
                    &format!("<figure>{}<figcaption>{name}</figcaption></figure>\n", image(jpeg, &alt));
            }
            format!(
                "<p>The latest graded photograph, at {hpi:.2} hpi. The lighter the colour, from violet over red to yellow, the \
                 more that place adds to the class that the head gave; each map to its own maximum. A map says where \
                 the model looked, not whether it was right.</p>\n<div class=\"maps\">\n{figures}</div>\n"
            )
        }
        (Looked::Unknown(why), _) => format!("<p>Not shown: {}</p>\n", text(why)),
        (Looked::Maps { .. }, None) => "<p>Not shown: no photograph was graded.</p>\n".to_owned(),
    };
    format!(
        "<section class=\"whole\" aria-labelledby=\"maps\">\n<h2 id=\"maps\">Where the model looked</h2>\n{shown}</section>\n"
    )
}

//! What the report rests on, down to the digests, and how to check it.

use std::collections::BTreeSet;

use super::ReportData;
use super::escape::text;
use super::photographs::plane;
use super::words;
use crate::domain::{GradeEvent, ModelIdentity};

pub(super) fn html(data: &ReportData) -> String {
    format!(
        "<section aria-labelledby=\"provenance\">\n<h2 id=\"provenance\">Provenance</h2>\n{}{}</section>\n{}",
        models(&data.case.summary().models) + &machinery(data),
        frames(data),
        check(data),
    )
}

fn models(models: &[ModelIdentity]) -> String {
    let row = |model: &ModelIdentity| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td><code>{}</code></td><td>CARD.md in the folder of this \
             bundle{}</td></tr>\n",
            text(&model.name),
            text(&model.version),
            text(&model.digest),
            if model.untrained { "; untrained" } else { "" }
        )
    };
    format!(
        "<table class=\"models\">\n<caption>Models that have a say</caption>\n<thead><tr><th scope=\"col\">Model</th>\
         <th scope=\"col\">Version</th><th scope=\"col\">Digest (SHA-256 of its manifest)</th><th scope=\"col\">Model \
         card</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n",
        models.iter().map(row).collect::<String>()
    )
}

/// Versions, devices and precisions of all frames, each once.
fn machinery(data: &ReportData) -> String {
    let events = || data.case.frames().iter().filter_map(|frame| frame.event.as_ref());
    let versions = data.case.frames().iter().map(|frame| frame.contribution.pipeline_version.as_str());
    let listed = |values: BTreeSet<&str>| {
        let values: Vec<String> = values.into_iter().map(text).collect();
        if values.is_empty() { "not known".to_owned() } else { values.join(", ") }
    };
    format!(
        "<p>Graded by memebg {}; device {}; precision {}.</p>\n",
        listed(versions.collect()),
        listed(events().map(|event| event.device.as_str()).collect()),
        listed(events().map(|event| event.precision.as_str()).collect()),
    )
}

fn frames(data: &ReportData) -> String {
    let pictured = data.case.pictured();
    if pictured.is_empty() {
        return String::new();
    }
    let row = |event: &&GradeEvent| {
        let grade = event.gardner.as_deref().map_or_else(|| words::abstentions(&event.reasons), text);
        format!(
            "<tr><th scope=\"row\">{:.2}</th><td>run {}, {}</td><td>{grade}</td>\
             <td><code>{}</code><br><code>{}</code></td></tr>\n",
            event.hpi,
            event.run,
            plane(event),
            text(event.id.as_str()),
            text(&event.image_sha256),
        )
    };
    format!(
        "<table class=\"frames\">\n<caption>The photographs above</caption>\n<thead><tr><th scope=\"col\">hpi</th>\
         <th scope=\"col\">Frame</th><th scope=\"col\">Grade</th><th scope=\"col\">Grade id, and below it the SHA-256 of \
         the image</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n",
        pictured.iter().map(row).collect::<String>()
    )
}

fn check(data: &ReportData) -> String {
    let how = data.case.latest_graded().map_or_else(
        || "<p>There is no graded photograph whose grade could be made again.</p>\n".to_owned(),
        |event| {
            // Only what its type knows: nothing that an event may carry beside it.
            let json = serde_json::to_vec(event).unwrap_or_default();
            let link = format!(
                "<a download=\"grade.json\" href=\"data:application/json;base64,{}\">grade event</a>",
                base64_simd::STANDARD.encode_to_string(json)
            );
            format!(
                "<p>The latest graded photograph, at {:.2} hpi, is graded again by this command and compared with what \
                 was published. <code>grade.json</code> is its {link} <code>{}</code>; <code>IMAGE</code> is the image \
                 as the incubator sent it, with the SHA-256 <code>{}</code>; <code>BUNDLE</code> is the folder of the model \
                 {} {} with the digest above.</p>\n\
                 <pre><code>memebg verify --set model.bundle=BUNDLE grade.json IMAGE</code></pre>\n",
                event.hpi,
                text(event.id.as_str()),
                text(&event.image_sha256),
                text(&event.model.name),
                text(&event.model.version),
            )
        },
    );
    format!(
        "<section class=\"whole\" aria-labelledby=\"check\">\n<h2 id=\"check\">How to check a grade</h2>\n{how}</section>\n"
    )
}

//! The report of one embryo: a page to print and to keep, in one file that needs nothing else.
//!
//! A pure function of what the events say and of the photographs: no clock, no network, no configuration. Whatever
//! text comes from outside is escaped, and the page forbids scripts and anything from elsewhere by its
//! own policy as well.

mod case;
mod chart;
mod escape;
mod file_name;
mod grades;
mod head;
mod photographs;
mod provenance;
mod words;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::Head;
pub use case::{Case, CaseFrame, MAX_PHOTOGRAPHS};
use escape::{css_string, text};
pub use file_name::file_name;

const STYLE: &str = include_str!("report/report.css");

/// Everything that a report says.
#[derive(Debug, Clone)]
pub struct ReportData {
    /// The embryo: its summary and the grade events behind it.
    pub case: Case,
    /// By the digest of the image that was graded: a small JPEG, or why there is none.
    pub photographs: BTreeMap<String, Result<Vec<u8>, String>>,
    /// Where the model looked in the latest graded frame.
    pub looked: Looked,
    /// When the report was made.
    pub made_at: DateTime<Utc>,
    /// Version of memebg that made it.
    pub made_by: String,
}

/// Where the model looked.
#[derive(Debug, Clone)]
pub enum Looked {
    /// The photograph, and the same under the map of each head that has a grade, as JPEGs.
    Maps {
        /// Without a map.
        photograph: Vec<u8>,
        /// With one.
        maps: Vec<(Head, Vec<u8>)>,
    },
    /// Not known, and why, as a sentence.
    Unknown(String),
}

/// The report as an HTML document.
#[must_use]
pub fn html(data: &ReportData) -> String {
    let id = &data.case.summary().embryo_id;
    let (title, running) = (text(id), css_string(&format!("Embryo {}", escape::visible(id))));
    let body = [
        head::html(data),
        grades::html(&data.case),
        chart::html(&data.case),
        photographs::strip(data),
        photographs::maps(data),
        provenance::html(data),
    ]
    .concat();
    let (made_at, made_by) = (words::utc(data.made_at), text(&data.made_by));
    format!(
        r#"<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Embryo {title}: report</title>
<style>
@page {{ @top-left {{ content: {running}; }} }}
{STYLE}</style>
</head>
<body>
<main>
{body}</main>
<footer>
<p>Made on {made_at} by memebg {made_by} from the summary, the grade events and the photographs of this embryo, and
from nothing else. Ids are pseudonyms. Times are in UTC.</p>
</footer>
</body>
</html>
"#
    )
}

#[cfg(test)]
mod tests;

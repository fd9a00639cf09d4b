//! What a FHIR server says, cut down to what may stand in a log, a header and a probe.

use std::fmt;

use serde::Deserialize;

/// Longest text that is passed on, in characters.
const MAX_CHARS: usize = 300;

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is empty.
    Nothing,
    /// A transaction was done.
    Transaction,
    /// An `OperationOutcome`, without ids.
    Said(String),
    /// Something else.
    Unreadable,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Said(text) = self { write!(formatter, " ({text})") } else { Ok(()) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource_type: String,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    issue: Vec<Issue>,
}

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    code: String,
    #[serde(default)]
    diagnostics: String,
    #[serde(default)]
    details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    text: String,
}

/// Reads a body. `hidden` does not appear in what comes of it.
pub(super) fn read(body: &[u8], hidden: &str) -> Outcome {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Outcome::Nothing;
    }
    let Ok(resource) = serde_json::from_slice::<Resource>(body) else { return Outcome::Unreadable };
    match (resource.resource_type.as_str(), resource.r#type.as_str()) {
        ("Bundle", "transaction-response") => Outcome::Transaction,
        ("OperationOutcome", _) => Outcome::Said(said(&resource.issue, hidden)),
        _ => Outcome::Unreadable,
    }
}

fn said(issues: &[Issue], hidden: &str) -> String {
    let parts = issues.iter().map(|issue| {
        let text = if issue.details.text.is_empty() { &issue.diagnostics } else { &issue.details.text };
        format!("{}: {}", issue.code, without_ids(&text.replace(hidden, "#")))
    });
    let text = parts.collect::<Vec<_>>().join("; ");
    text.chars().take(MAX_CHARS).collect()
}

/// Words with a digit in them may be ids, of embryos or of what they are linked to. The error codes of HAPI FHIR
/// are not, and neither are positions such as `entry[3]`.
fn without_ids(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let in_word = |character: char| character.is_alphanumeric() || "._-@".contains(character);
    for word in text.split_inclusive(|character| !in_word(character)) {
        let bare = word.trim_end_matches(|character| !in_word(character));
        let suspicious = bare.chars().count() > 3 && bare.chars().any(|it| it.is_numeric() || it == '@');
        if suspicious && !bare.starts_with("HAPI-") {
            clean.push('#');
            clean.extend(word.strip_prefix(bare));
        } else {
            clean.extend(word.chars().map(|it| if it.is_control() { ' ' } else { it }));
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(diagnostics: &str) -> Outcome {
        let body = serde_json::json!({
            "resourceType": "OperationOutcome",
            "issue": [{ "severity": "error", "code": "processing", "diagnostics": diagnostics }],
        });
        read(body.to_string().as_bytes(), "P-2 of a dish")
    }

    #[test]
    fn what_a_server_says_is_passed_on_without_ids() {
        for (said, passed_on) in [
            ("HAPI-0550: wrong\ncode at Bundle.entry[3]", "HAPI-0550: wrong code at Bundle.entry[3]"),
            (
                "Invalid match URL \"Specimen?identifier=s|D2026.01_S1_P-2\"",
                "Invalid match URL \"Specimen?identifier=s|#\"",
            ),
            (
                "Observation/1003 of urn:uuid:530bfdee-050d-8386 by a@b.example",
                "Observation/# of urn:uuid:# by #",
            ),
            ("no P-2 of a dish here", "no # here"),
        ] {
            assert_eq!(outcome(said), Outcome::Said(format!("processing: {passed_on}")));
        }
        let Outcome::Said(long) = outcome(&"é".repeat(1_000)) else { panic!("an outcome") };
        assert_eq!(long.chars().count(), MAX_CHARS);
    }

    #[test]
    fn a_transaction_nothing_and_anything_else_are_told_apart() {
        let of = |body: &str| read(body.as_bytes(), "x");
        assert_eq!(of(r#"{"resourceType":"Bundle","type":"transaction-response"}"#), Outcome::Transaction);
        assert_eq!(of(" \r\n"), Outcome::Nothing);
        for other in [r#"{"resourceType":"Bundle","type":"searchset"}"#, "<html>", "{}", "[1]", "\u{0}"] {
            assert_eq!(of(other), Outcome::Unreadable, "{other}");
        }
    }
}

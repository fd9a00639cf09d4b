//! What a record of the dead-letter topic says, read off its headers.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;

use crate::domain::{RejectionCode, Stage, Text};
use crate::kafka::record::error_header;
use crate::pipeline::message::{MessageView, Position};

/// Header of a replayed frame, and of the marker beside it in the dead-letter topic: the letter it was
/// made from, `topic/partition/offset`.
pub const REPLAYED_FROM: &str = "memebg.replayed.from";

/// A record of the dead-letter topic.
#[derive(Debug)]
pub enum Record<'a> {
    /// A frame that was refused.
    Letter(Letter<'a>),
    /// Says that the letter at this position has been replayed.
    Marker(Position),
}

/// A dead letter, borrowed.
#[derive(Debug)]
pub struct Letter<'a> {
    /// Key, value, headers and time of the refused message, and what was added to the headers.
    pub message: &'a MessageView<'a>,
    /// Where in its route the frame was refused; `None` where this version does not know the stage.
    pub stage: Option<Stage>,
    /// Why; `None` where this version does not know the code.
    pub code: Option<RejectionCode>,
    /// Where the frame lay, as far as the letter says it.
    pub origin: Option<Origin<'a>>,
    /// Length of the original value where the letter comes without it.
    pub omitted_bytes: Option<usize>,
}

/// Where a refused frame lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition and offset.
    pub position: Position,
}

impl<'a> Record<'a> {
    /// Reads the headers; the value is not looked at.
    #[must_use]
    pub fn read(message: &'a MessageView<'a>) -> Self {
        let replayed = text(message, REPLAYED_FROM).and_then(|from| {
            let mut parts = from.rsplitn(3, '/');
            let (offset, partition, topic) = (parts.next()?, parts.next()?, parts.next()?);
            let position = Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
            (topic == message.topic).then_some(position)
        });
        replayed.map_or_else(|| Self::Letter(Letter::read(message)), Self::Marker)
    }
}

impl<'a> Letter<'a> {
    fn read(message: &'a MessageView<'a>) -> Self {
        let said = |name| text(message, name);
        let stage = said(error_header::STAGE);
        let code = said(error_header::CODE);
        let origin = || {
            let topic = said(error_header::TOPIC)?;
            let partition = said(error_header::PARTITION)?.parse().ok()?;
            let offset = said(error_header::OFFSET)?.parse().ok()?;
            Some(Origin { topic, position: Position { partition, offset } })
        };
        Self {
            stage: Stage::ALL.iter().copied().find(|it| Some(it.as_str()) == stage),
            code: RejectionCode::ALL.iter().copied().find(|it| Some(it.as_str()) == code),
            origin: origin(),
            omitted_bytes: said(error_header::OMITTED_BYTES).and_then(|bytes| bytes.parse().ok()),
            message,
        }
    }

    /// What was wrong, for a person.
    #[must_use]
    pub fn reason(&self) -> &'a str {
        text(self.message, error_header::MESSAGE).unwrap_or_default()
    }

    /// The site that the frame event names; `None` where the value is absent or no such JSON. The image
    /// is stepped over, not copied.
    #[must_use]
    pub fn site(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow, default)]
            site_id: Option<Text<'a>>,
            /// Of a structured CloudEvent.
            #[serde(borrow, default)]
            data: Option<Data<'a>>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            site_id: Cow<'a, str>,
        }
        let event: Event<'_> = serde_json::from_slice(self.message.value?).ok()?;
        Some(event.site_id.map(|Text(site)| site).or(event.data.map(|data| data.site_id))?.into_owned())
    }
}

/// The first value of a header, if it is text. The error headers come before those of the frame.
fn text<'a>(message: &MessageView<'a>, name: &str) -> Option<&'a str> {
    let found = message.headers.iter().find(|(header, _)| *header == name)?;
    found.1.and_then(|value| std::str::from_utf8(value).ok())
}

/// Which letters are meant. Empty: all of them.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Refused at this stage.
    pub stage: Option<Stage>,
    /// Refused for this reason.
    pub code: Option<RejectionCode>,
    /// Of this site.
    pub site: Option<String>,
    /// With this timestamp or a later one, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// With an earlier timestamp, milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// At one of these positions; empty: at any.
    pub positions: BTreeSet<Position>,
}

impl Filter {
    /// Whether a letter is meant. Its value is looked at only for the site, and last.
    #[must_use]
    pub fn matches(&self, letter: &Letter<'_>) -> bool {
        let at = letter.message.timestamp_ms;
        self.stage.is_none_or(|stage| letter.stage == Some(stage))
            && self.code.is_none_or(|code| letter.code == Some(code))
            && self.since_ms.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until_ms.is_none_or(|until| at.is_some_and(|at| at < until))
            && (self.positions.is_empty() || self.positions.contains(&letter.message.position))
            && (self.site.is_none() || self.site == letter.site())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 7] = [
        ("__connect.errors.topic", "frames"),
        ("__connect.errors.partition", "3"),
        ("__connect.errors.offset", "77"),
        ("__connect.errors.stage", "FETCH"),
        ("__connect.errors.exception.message", "no answer"),
        ("memebg.error.code", "image_unreachable"),
        ("Memebg.Error.Code", "invalid_json"),
    ];

    fn message<'a>(value: Option<&'a str>, headers: &[(&'a str, &'a str)]) -> MessageView<'a> {
        MessageView {
            topic: "dlq",
            position: Position { partition: 0, offset: 17 },
            key: None,
            value: value.map(str::as_bytes),
            headers: headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
            timestamp_ms: Some(1_000),
        }
    }

    fn letter<'a>(message: &'a MessageView<'a>) -> Letter<'a> {
        match Record::read(message) {
            Record::Letter(letter) => letter,
            Record::Marker(position) => panic!("a marker of {position:?}"),
        }
    }

    #[test]
    fn a_letter_says_where_it_came_from_and_why() {
        let message = message(None, &HEADERS);
        let letter = letter(&message);
        assert_eq!((letter.stage, letter.code), (Some(Stage::Fetch), Some(RejectionCode::ImageUnreachable)));
        let position = Position { partition: 3, offset: 77 };
        assert_eq!(letter.origin, Some(Origin { topic: "frames", position }));
        assert_eq!((letter.reason(), letter.omitted_bytes), ("no answer", None));
    }

    #[test]
    fn a_record_of_somebody_else_is_a_letter_that_says_nothing() {
        let message = message(None, &[("__connect.errors.stage", "TASK_PUT"), ("memebg.error.code", "")]);
        let letter = letter(&message);
        assert_eq!((letter.stage, letter.code, letter.origin), (None, None, None));
    }

    #[test]
    fn a_marker_names_its_letter_and_counts_only_for_its_own_topic() {
        let marker = |from: &str| match Record::read(&message(None, &[(REPLAYED_FROM, from)])) {
            Record::Marker(position) => Some(position),
            Record::Letter(_) => None,
        };
        assert_eq!(marker("dlq/2/40"), Some(Position { partition: 2, offset: 40 }));
        for other in ["other/2/40", "2/40", "dlq/2/x", ""] {
            assert_eq!(marker(other), None, "{other}");
        }
    }

    #[test]
    fn the_site_is_found_in_plain_and_structured_events_and_nowhere_else() {
        let site = |value| letter(&message(value, &[])).site();
        let north = Some("north".to_owned());
        assert_eq!(site(Some(r#"{"image":{"data":"AAAA"},"site_id":"north"}"#)), north);
        assert_eq!(site(Some(r#"{"type":"t","data":{"site_id":"nor\u0074h","image":{}}}"#)), north);
        for value in [None, Some(""), Some(r#"{"site_id":"north""#), Some(r#"{"site_id":1}"#), Some("[]")] {
            assert_eq!(site(value), None, "{value:?}");
        }
    }

    #[test]
    fn every_condition_of_a_filter_must_hold() {
        let message = message(Some(r#"{"site_id":"north"}"#), &HEADERS);
        let letter = letter(&message);
        let all = Filter {
            stage: Some(Stage::Fetch),
            code: Some(RejectionCode::ImageUnreachable),
            site: Some("north".into()),
            since_ms: Some(1_000),
            until_ms: Some(1_001),
            positions: BTreeSet::from([Position { partition: 0, offset: 17 }]),
        };
        assert!(Filter::default().matches(&letter) && all.matches(&letter));
        for wrong in [
            Filter { stage: Some(Stage::Infer), ..all.clone() },
            Filter { code: Some(RejectionCode::InvalidJson), ..all.clone() },
            Filter { site: Some("south".into()), ..all.clone() },
            Filter { since_ms: Some(1_001), ..all.clone() },
            Filter { until_ms: Some(1_000), ..all.clone() },
            Filter { positions: BTreeSet::from([Position { partition: 1, offset: 17 }]), ..all.clone() },
        ] {
            assert!(!wrong.matches(&letter), "{wrong:?}");
        }
    }
}

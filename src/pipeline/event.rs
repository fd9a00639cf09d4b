//! From a Kafka message to a frame event: CloudEvents 1.0 in binary and structured mode, and plain
//! JSON.
//!
//! Source: CloudEvents Kafka protocol binding 1.0.2.

mod inline;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::MessageView;
use crate::domain::{FRAME_EVENT_TYPE, FrameEvent, Rejection, RejectionCode, Text};

const SPEC_VERSION: &str = "1.0";

/// A structured-mode CloudEvent. Attributes that are not needed here are not looked at.
#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What a message says.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The frame event. Its `image.data` may be a mark: the text is beside it.
    pub event: FrameEvent<'a>,
    /// The base64 text of an inline image, borrowed from the message unless JSON escapes forbid it.
    pub image: Option<Cow<'a, [u8]>>,
}

/// Reads the frame event out of a message without copying its image, and mostly without parsing it. What surrounds
/// the image may be copied into `scratch`.
///
/// # Errors
/// A [`Rejection`] for a tombstone, an oversized value, an event type or version that is not known,
/// and for what is not a frame event at all.
pub fn read<'a>(
    message: &MessageView<'a>,
    max_value_bytes: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<Incoming<'a>, Rejection> {
    let value = message
        .value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Rejection::new(RejectionCode::EmptyValue, "message has no value"))?;
    if value.len() > max_value_bytes {
        return Err(Rejection::new(
            RejectionCode::ValueTooLarge,
            format!("value of {} bytes is over the limit of {max_value_bytes}", value.len()),
        ));
    }
    if let Some((image, json)) = inline::set_aside(value, scratch)
        && let Ok(event) = parse(message, json)
        && event.image.data.as_ref().is_some_and(|Text(data)| data == inline::ASIDE)
    {
        return Ok(Incoming { event, image: Some(Cow::Borrowed(image)) });
    }
    let event = parse(message, value)?;
    let bytes = |Text(data): &Text<'a>| match data {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.clone().into_bytes()),
    };
    let image = event.image.data.as_ref().map(bytes);
    Ok(Incoming { event, image })
}

/// Reads `value` as the message's headers say.
fn parse<'a>(message: &MessageView<'_>, value: &'a [u8]) -> Result<FrameEvent<'a>, Rejection> {
    let content_type = message.header("content-type").unwrap_or_default();
    if content_type.get(..29).is_some_and(|it| it.eq_ignore_ascii_case("application/cloudevents+json;"))
        || content_type.eq_ignore_ascii_case("application/cloudevents+json")
    {
        // Attributes that are not looked at are JSON only if they are text.
        let text = std::str::from_utf8(value).map_err(|_| {
            Rejection::new(
                RejectionCode::InvalidJson,
                "value is not a structured CloudEvent: it is not UTF-8",
            )
        })?;
        let event: Structured<'a> = serde_json::from_str(text)
            .map_err(|error| Rejection::unreadable("a structured CloudEvent", &error))?;
        known(Some(&event.specversion), Some(&event.event_type))?;
        return FrameEvent::from_json(event.data.get().as_bytes());
    }
    let (version, event_type) = (message.header("ce_specversion"), message.header("ce_type"));
    if version.is_some() || event_type.is_some() {
        known(version, event_type)?;
    }
    FrameEvent::from_json(value)
}

fn known(version: Option<&str>, event_type: Option<&str>) -> Result<(), Rejection> {
    if version == Some(SPEC_VERSION) && event_type == Some(FRAME_EVENT_TYPE) {
        return Ok(());
    }
    // Cut short: a header is somebody else's text and may be of any length.
    let shown = |text: Option<&str>| text.map_or("none".to_owned(), |text| text.chars().take(100).collect());
    Err(Rejection::new(
        RejectionCode::UnknownEventType,
        format!(
            "CloudEvents type {:?} (specversion {:?}) is not {FRAME_EVENT_TYPE} (specversion {SPEC_VERSION})",
            shown(event_type),
            shown(version)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::message::Position;

    const EVENT: &str = r#"{"site_id":"s","instrument":{"vendor":"v","model":"m","serial":"1"},"slide_id":"S1",
        "well":1,"embryo_id":"e","run":1,"focal_plane_index":0,"focal_offset_um":0,"focal_plane_count":1,
        "captured_at":"2026-01-05T20:00:00Z","insemination_time":"2026-01-01T00:00:00Z",
        "insemination_method":"IVF","time_zero_source":"emr","image":{"data":"AAAA","sha256":"x",
        "media_type":"image/jpeg","bytes":3,"width":1,"height":1}}"#;

    fn message<'a>(value: &'a str, headers: &[(&'a str, &'a str)]) -> MessageView<'a> {
        MessageView {
            topic: "frames",
            position: Position { partition: 0, offset: 0 },
            key: None,
            value: Some(value.as_bytes()),
            headers: headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
            timestamp_ms: None,
        }
    }

    fn code(value: &str, headers: &[(&str, &str)]) -> Result<String, RejectionCode> {
        read(&message(value, headers), 10_000, &mut Vec::new())
            .map(|read| read.event.embryo_id.into_owned())
            .map_err(|rejection| rejection.code)
    }

    fn structured(event_type: &str) -> String {
        format!(r#"{{"specversion":"1.0","type":"{event_type}","id":"1","source":"/s","data":{EVENT}}}"#)
    }

    #[test]
    fn binary_structured_and_plain_events_are_read() {
        let binary = [("ce_specversion", "1.0"), ("ce_type", FRAME_EVENT_TYPE)];
        assert_eq!(code(EVENT, &binary), Ok("e".into()));
        assert_eq!(code(EVENT, &[]), Ok("e".into()));
        for content_type in ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"] {
            let headers = [("content-type", content_type)];
            assert_eq!(code(&structured(FRAME_EVENT_TYPE), &headers), Ok("e".into()));
        }
    }

    #[test]
    fn an_event_type_of_another_version_is_not_guessed_at() {
        let v2 = "org.memebg.incubator.frame.v2";
        let unknown = Err(RejectionCode::UnknownEventType);
        assert_eq!(code(EVENT, &[("ce_specversion", "1.0"), ("ce_type", v2)]), unknown);
        assert_eq!(code(EVENT, &[("ce_type", FRAME_EVENT_TYPE)]), unknown);
        assert_eq!(code(&structured(v2), &[("content-type", "application/cloudevents+json")]), unknown);
    }

    #[test]
    fn nothing_that_is_not_an_event_passes() {
        assert_eq!(code("", &[]), Err(RejectionCode::EmptyValue));
        assert_eq!(code("{", &[]), Err(RejectionCode::InvalidJson));
        assert_eq!(code("{}", &[]), Err(RejectionCode::SchemaInvalid));
        let padded = format!("{EVENT}{}", " ".repeat(10_000));
        assert_eq!(code(&padded, &[]), Err(RejectionCode::ValueTooLarge));
        let mut tombstone = message("", &[]);
        tombstone.value = None;
        assert_eq!(read(&tombstone, 10, &mut Vec::new()).unwrap_err().code, RejectionCode::EmptyValue);
    }

    #[test]
    fn a_structured_event_may_escape_its_attributes_and_its_reason_repeats_no_value() {
        let headers = [("content-type", "application/cloudevents+json")];
        let escaped = structured(FRAME_EVENT_TYPE).replace("org.", "org\\u002e");
        assert_eq!(code(&escaped, &headers), Ok("e".into()));
        for value in [r#""Ada Invented""#, r#"{"specversion":"1.0","type":["Ada Invented"]}"#, "{}"] {
            let rejection = read(&message(value, &headers), 10_000, &mut Vec::new()).unwrap_err();
            assert_eq!(rejection.code, RejectionCode::SchemaInvalid, "{value}");
            assert!(!rejection.message.contains("Ada"), "{rejection}");
        }
        assert_eq!(code("{", &headers), Err(RejectionCode::InvalidJson));
    }

    #[test]
    fn a_structured_event_that_is_not_utf8_where_nobody_looks_is_not_json() {
        let value = structured(FRAME_EVENT_TYPE).replace("/s", "/?").into_bytes();
        let value: Vec<u8> = value.into_iter().map(|byte| if byte == b'?' { 0xff } else { byte }).collect();
        let mut damaged = message("", &[("content-type", "application/cloudevents+json")]);
        damaged.value = Some(&value);
        assert_eq!(read(&damaged, 10_000, &mut Vec::new()).unwrap_err().code, RejectionCode::InvalidJson);
    }

    #[test]
    fn the_image_is_borrowed_from_the_message() {
        let view = message(EVENT, &[]);
        let mut scratch = Vec::new();
        let image = read(&view, 10_000, &mut scratch).unwrap().image;
        assert!(matches!(image, Some(Cow::Borrowed(b"AAAA"))));
    }

    /// `EVENT` with an image that is long enough to be set aside, as it is and in structured mode.
    fn long_events() -> [(String, Vec<(&'static str, &'static str)>); 2] {
        let long = EVENT.replace("AAAA", &"QUJD".repeat(500));
        let structured = format!(
            r#"{{"specversion":"1.0","type":"{FRAME_EVENT_TYPE}","id":"1","data":{long},"source":"/s"}}"#
        );
        [(long, Vec::new()), (structured, vec![("content-type", "application/cloudevents+json")])]
    }

    #[test]
    fn a_long_image_is_not_parsed_and_still_borrowed_from_the_message() {
        for (value, headers) in long_events() {
            let (view, mut scratch) = (message(&value, &headers), Vec::new());
            let Some(Cow::Borrowed(image)) = read(&view, 10_000, &mut scratch).unwrap().image else {
                panic!("a copy, or none")
            };
            assert!(value.as_bytes().as_ptr_range().contains(&image.as_ptr()));
            assert_eq!(image, "QUJD".repeat(500).as_bytes());
            assert!((1..1_000).contains(&scratch.len()), "{} bytes were parsed", scratch.len());
        }
    }

    #[test]
    fn a_long_text_under_another_key_data_is_not_taken_for_the_image() {
        let headers = [("content-type", "application/cloudevents+json")];
        let decoy = format!(r#""x\"data":"{}","data""#, "QUJD".repeat(500));
        let structured = structured(FRAME_EVENT_TYPE).replacen("\"data\"", &decoy, 1);
        let (view, mut scratch) = (message(&structured, &headers), Vec::new());
        assert_eq!(read(&view, 10_000, &mut scratch).unwrap().image.unwrap().as_ref(), b"AAAA");
        let marked = structured.replace("AAAA", inline::ASIDE);
        let (view, mut scratch) = (message(&marked, &headers), Vec::new());
        let image = read(&view, 10_000, &mut scratch).unwrap().image.unwrap();
        assert_eq!(image.as_ref(), inline::ASIDE.as_bytes());
    }

    proptest::proptest! {
        /// Whatever happened to an event on its way: with the image set aside it is read, or refused, as the parser
        /// does it.
        #[test]
        fn setting_the_image_aside_changes_nothing(
            which in 0_usize..2,
            damage in proptest::collection::vec((proptest::prelude::any::<u16>(), proptest::prelude::any::<u8>()), 0..3),
            cut in proptest::option::weighted(0.2, proptest::prelude::any::<u16>()),
        ) {
            let (value, headers) = &long_events()[which];
            let mut value = value.clone().into_bytes();
            for (place, byte) in damage {
                let place = usize::from(place) % value.len();
                value[place] = byte;
            }
            if let Some(cut) = cut {
                value.truncate(usize::from(cut) % value.len() + 1);
            }
            let mut view = message("", headers);
            view.value = Some(&value);
            let mut scratch = Vec::new();
            let quick = read(&view, 10_000, &mut scratch).map(|Incoming { mut event, image }| {
                let image = image.map(|image| String::from_utf8(image.into_owned()).unwrap());
                event.image.data = image.map(|image| Text(Cow::Owned(image)));
                event
            });
            proptest::prop_assert_eq!(format!("{:?}", quick), format!("{:?}", parse(&view, &value)));
        }
    }
}

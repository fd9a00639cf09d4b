//! What of a refused message may stand on a screen.
//!
//! Ids are pseudonyms, but a refused event may be just the one that holds a name: of text, only what stands
//! where the schema wants an id, a time or a number, and has no spaces, is shown.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Fields of a frame event and of a CloudEvent around it.
const KNOWN: &[&str] = &[
    "bytes",
    "captured_at",
    "data",
    "datacontenttype",
    "dish_id",
    "embryo_id",
    "focal_offset_um",
    "focal_plane_count",
    "focal_plane_index",
    "height",
    "id",
    "image",
    "insemination_method",
    "insemination_time",
    "instrument",
    "media_type",
    "model",
    "run",
    "serial",
    "sha256",
    "site_id",
    "slide_id",
    "source",
    "specversion",
    "time",
    "time_zero_source",
    "type",
    "um_per_px",
    "uri",
    "vendor",
    "well",
    "width",
];
/// Longest text that is shown, in characters: as long as an id or a URI may be.
const MAX_CHARS: usize = 2_048;

/// The event with its image, and what else must not be seen, replaced by a description.
pub(super) fn masked(value: &[u8]) -> String {
    let event = serde_json::from_slice::<Value>(value).ok().filter(Value::is_object);
    event.map_or_else(|| described(value, "no JSON object"), |event| format!("{:#}", shown("", event)))
}

fn shown(field: &str, value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                if KNOWN.contains(&name.as_str()) {
                    let value = shown(&name, value);
                    (name, value)
                } else {
                    let kind = kind(&value);
                    (printable(&name, MAX_CHARS), json!(format!("({kind}, not in the schema, not shown)")))
                }
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => json!(format!("(list of {}, not shown)", items.len())),
        Value::String(text) if field == "data" => {
            json!(format!("({})", described(text.as_bytes(), "base64")))
        }
        Value::String(text) if !is_id(&text) => {
            json!(format!("(text of {} characters, not shown)", text.chars().count()))
        }
        other => other,
    }
}

fn is_id(text: &str) -> bool {
    text.len() <= MAX_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Length and digest in place of the bytes.
pub(super) fn described(bytes: &[u8], what: &str) -> String {
    format!("{} bytes, {what}, sha256 {}", bytes.len(), hex::encode(Sha256::digest(bytes)))
}

/// Bytes as text if they are, with what would move a terminal's cursor escaped; else their description.
pub(super) fn printable_bytes(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes)
        .map_or_else(|_| format!("({})", described(bytes, "no text")), |text| printable(text, MAX_CHARS))
}

/// Text for one line of a terminal, cut after `max_chars` characters.
pub(super) fn printable(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    for character in text.chars().take(max_chars) {
        match character {
            '\'' | '"' | '\\' => line.push(character),
            other => line.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(max_chars).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_replaced_by_its_length_and_digest() {
        let event = r#"{"embryo_id":"E-1","run":3,"image":{"data":"AAAA","width":320,"um_per_px":0.5}}"#;
        let masked: Value = serde_json::from_str(&masked(event.as_bytes())).unwrap();
        assert_eq!((&masked["embryo_id"], &masked["run"]), (&json!("E-1"), &json!(3)));
        assert_eq!(masked["image"]["width"], 320);
        let digest = hex::encode(Sha256::digest(b"AAAA"));
        assert_eq!(masked["image"]["data"], format!("(4 bytes, base64, sha256 {digest})"));
    }

    #[test]
    fn the_event_inside_a_structured_cloud_event_is_shown_too() {
        let event = r#"{"type":"t","data":{"site_id":"north","image":{"data":"AAAA"}}}"#;
        let masked: Value = serde_json::from_str(&masked(event.as_bytes())).unwrap();
        assert_eq!(masked["data"]["site_id"], "north");
        assert!(masked["data"]["image"]["data"].as_str().unwrap().contains("sha256"));
    }

    #[test]
    fn a_name_is_not_shown_wherever_it_stands() {
        for event in [
            r#"{"patient_name":"Invented"}"#,
            r#"{"slide_id":"Ada Invented"}"#,
            r#"{"data":"Ada Invented"}"#,
            r#"{"image":{"uri":["Invented"]}}"#,
            r#"{"instrument":{"owner":{"name":"Invented"}}}"#,
            r#"["Invented"]"#,
            r#""Invented""#,
            "Invented",
        ] {
            assert!(!masked(event.as_bytes()).contains("Invented"), "{event}");
        }
    }

    #[test]
    fn text_moves_no_cursor_and_bytes_are_not_printed() {
        assert_eq!(printable("a\u{1b}[2J\n\u{202e}é'\"", 100), "a\\u{1b}[2J\\n\\u{202e}é'\"");
        assert_eq!(printable("abcdef", 3), "abc…");
        assert_eq!(printable("abc", 3), "abc");
        assert!(printable_bytes(b"\xff\x00").starts_with("(2 bytes, no text, sha256 "));
    }
}

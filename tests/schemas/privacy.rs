//! No event has room for who a patient is: not in its schema, and not in any sample of it.

use serde_json::Value;

use crate::{examples, folder};

const EVENTS: [&str; 4] = ["frame", "grade", "summary", "review"];
/// Parts of field names under which systems around keep who somebody is, or free text in which it ends up.
const FORBIDDEN: [&str; 16] = [
    "patient",
    "birth",
    "dob",
    "mrn",
    "ssn",
    "surname",
    "first_name",
    "last_name",
    "email",
    "phone",
    "address",
    "sex",
    "comment",
    "note",
    "remark",
    "text",
];
/// Strings that no pattern, format or list bounds, and why they may stay: opaque ids and names of things that the
/// laboratory chooses, bytes of the image, and what this program writes itself.
const UNBOUNDED: [&str; 9] = [
    "frame /$defs/name",
    "frame /properties/image/properties/data",
    "frame /properties/image/properties/uri",
    "grade /$defs/name",
    "grade /properties/gardner",
    "summary /properties/contributions/items/properties/pipeline_version",
    "summary /properties/contributions/items/properties/reasons/items",
    "summary /properties/models/items/properties/name",
    "summary /properties/models/items/properties/version",
];

/// Every object within, with its JSON pointer.
fn objects<'a>(
    value: &'a Value,
    path: String,
    each: &mut dyn FnMut(&str, &'a serde_json::Map<String, Value>),
) {
    match value {
        Value::Object(fields) => {
            each(&path, fields);
            for (name, field) in fields {
                objects(field, format!("{path}/{name}"), each);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, format!("{path}/{index}"), each);
            }
        }
        _ => {}
    }
}

fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|part| name.to_lowercase().contains(part))
}

fn schema(event: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(&format!("{event}.v1.schema.json"))).unwrap())
        .unwrap()
}

#[test]
fn no_schema_has_a_field_for_who_somebody_is_or_takes_one_that_it_does_not_know() {
    for event in EVENTS {
        let schema = schema(event);
        assert_eq!(schema["additionalProperties"], false, "{event}");
        objects(&schema, String::new(), &mut |path, fields| {
            let properties = fields.get("properties").and_then(Value::as_object);
            for name in properties.into_iter().flat_map(|it| it.keys()) {
                assert!(!is_forbidden(name), "{event} {path}: {name}");
            }
            if properties.is_some() && fields.get("type").is_some_and(|it| it == "object") {
                assert_eq!(fields.get("additionalProperties"), Some(&Value::Bool(false)), "{event} {path}");
            }
        });
    }
}

#[test]
fn free_text_has_no_room_in_any_schema() {
    let mut unbounded = Vec::new();
    for event in EVENTS {
        objects(&schema(event), String::new(), &mut |path, fields| {
            let is_text = fields.get("type").is_some_and(|it| {
                it == "string" || it.as_array().is_some_and(|types| types.iter().any(|one| one == "string"))
            });
            let is_bounded = ["enum", "const", "pattern", "format"].iter().any(|it| fields.contains_key(*it));
            if is_text && !is_bounded {
                unbounded.push(format!("{event} {path}"));
            }
        });
    }
    unbounded.sort();
    assert_eq!(unbounded, UNBOUNDED);
}

#[test]
fn no_sample_says_who_somebody_is() {
    let mut seen = 0;
    for event in EVENTS {
        for (name, text) in examples(event) {
            seen += 1;
            objects(&serde_json::from_str(&text).unwrap(), String::new(), &mut |path, fields| {
                for (field, value) in fields {
                    assert!(!is_forbidden(field), "{event} {name} {path}: {field}");
                    let value = value.as_str().unwrap_or_default();
                    assert!(!value.contains('@'), "{event} {name} {path}/{field} may be an e-mail address");
                    // A day without a time is what a birthday looks like.
                    let is_day = value.parse::<chrono::NaiveDate>().is_ok();
                    assert!(!is_day, "{event} {name} {path}/{field} is a date");
                }
            });
        }
    }
    assert!(seen >= 8, "{seen} samples");
}

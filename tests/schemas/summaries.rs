//! Summaries of grade events satisfy their schema, and the examples are what the grade examples make together.

use memebg::domain::{Embryo, EmbryoSummary, GradeEvent, Window};
use serde_json::{Value, json};

use super::{SUMMARY, complaints, examples};

/// The grade examples as frames of one embryo.
fn grades() -> Vec<GradeEvent> {
    let frames = examples("grade").into_values().enumerate();
    frames
        .map(|(number, text)| {
            let mut event: GradeEvent = serde_json::from_str(&text).unwrap();
            event.run = 400 + number as u64;
            event.hpi = 112.0 + number as f64;
            event
        })
        .collect()
}

fn summary(events: &[GradeEvent], ended: bool) -> Value {
    let mut embryo = Embryo::first(Window::new(110.0, 120.0), &events[0]).unwrap().unwrap();
    for event in events {
        embryo.add(event).unwrap();
    }
    if ended {
        embryo.published();
        embryo.end();
    }
    serde_json::to_value(embryo.summary()).unwrap()
}

#[test]
fn summary_examples_satisfy_the_schema_and_are_what_the_grade_examples_make() {
    let events = grades();
    let abstained: Vec<_> = events.iter().filter(|event| event.gardner.is_none()).cloned().collect();
    let made = [("final", summary(&events, true)), ("all_abstained", summary(&abstained, false))];
    if std::env::var_os("WRITE_EXAMPLES").is_some() {
        for (name, value) in &made {
            let text = serde_json::to_string_pretty(value).unwrap() + "\n";
            std::fs::write(super::folder(&format!("examples/summary/{name}.json")), text).unwrap();
        }
    }
    let examples = examples("summary");
    assert_eq!(examples.len(), made.len());
    for (name, value) in made {
        assert_eq!(complaints(&SUMMARY, &value), Vec::<String>::new(), "{name}");
        let example: Value = serde_json::from_str(&examples[name]).unwrap();
        assert_eq!(example, value, "{name}");
        let read: EmbryoSummary = serde_json::from_value(example).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), value, "{name}");
    }
}

#[test]
fn a_summary_that_contradicts_itself_does_not_satisfy_the_schema() {
    let sound = summary(&grades(), true);
    for (path, value) in [
        ("/assessment", json!("final")),
        ("/version", json!(0)),
        ("/status", json!("done")),
        ("/gardner", json!("4AD")),
        ("/exp/grade", json!(2)),
        ("/exp/confidence", json!(1.1)),
        ("/embryo_id", json!("two words")),
        ("/contributions/0/grade_id", json!("x")),
        ("/trajectory/0/expansion", json!(0.5)),
        ("/abstentions", json!({ "tired": 1 })),
    ] {
        let mut wrong = sound.clone();
        *wrong.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        assert_ne!(complaints(&SUMMARY, &wrong), Vec::<String>::new(), "{path}");
    }
}

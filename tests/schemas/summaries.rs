//! Summaries of grade events satisfy their schema, and the examples are what the grade examples make together.

use memebg::domain::{Embryo, EmbryoSummary, GradeEvent, Review, Window};
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

/// The same, with the review examples as reviews of this embryo.
fn reviewed(events: &[GradeEvent]) -> Value {
    let embryo: EmbryoSummary = serde_json::from_value(summary(events, true)).unwrap();
    let mut embryo = Embryo::restore(Window::new(110.0, 120.0), &embryo).unwrap();
    for text in examples("review").values() {
        let review = Review::parse(text.as_bytes()).unwrap();
        embryo.review(&Review { embryo_id: embryo.id().to_owned(), ..review });
    }
    serde_json::to_value(embryo.summary()).unwrap()
}

#[test]
fn summary_examples_satisfy_the_schema_and_are_what_the_grade_examples_make() {
    let events = grades();
    let abstained: Vec<_> = events.iter().filter(|event| event.gardner.is_none()).cloned().collect();
    let made = [
        ("final", summary(&events, true)),
        ("all_abstained", summary(&abstained, false)),
        ("amended", reviewed(&events)),
    ];
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
    let unreviewed = summary(&grades(), true);
    for wrong in ["final", "amended", "reviewed"] {
        let wrong = json!({ "assessment": wrong });
        let mut summary = unreviewed.clone();
        summary.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        assert_ne!(complaints(&SUMMARY, &summary), Vec::<String>::new(), "{wrong}");
    }
    let sound = reviewed(&grades());
    assert_eq!(complaints(&SUMMARY, &sound), Vec::<String>::new());
    for (path, value) in [
        ("/assessment", json!("preliminary")),
        ("/review/reviewer", json!("Jane Invented")),
        ("/review/exp", json!(3)),
        ("/reviews", json!(0)),
        ("/known_reviews/0/id", json!("x")),
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

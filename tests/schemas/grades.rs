//! Whatever grade event can be built satisfies its schema.

use chrono::{DateTime, TimeDelta};
use memebg::domain::{
    AbstainReason, Clocks, Expansion, FocalPlane, Frame, FrameEvent, FrameId, GradeClass, GradeEvent,
    GradeId, GraderIdentity, HeadGrade, Heads, Letter, ModelIdentity, Timings,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{GRADE, complaints, examples, frame_examples, now};

#[test]
fn grade_examples_satisfy_the_schema_and_carry_the_id_of_their_frame() {
    for (name, text) in examples("grade") {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(complaints(&GRADE, &value), Vec::<String>::new(), "{name}");
        let event: GradeEvent = serde_json::from_str(&text).unwrap();
        let frame = FrameId {
            embryo_id: event.embryo_id.clone(),
            run: event.run,
            focal_plane_index: event.focal_plane.index,
        };
        let id = GradeId::new(&frame, &event.image_sha256, &event.model.digest, &event.pipeline_version);
        assert_eq!(event.id, id, "{name}: an id of version 1 never changes");
        assert_eq!(serde_json::to_value(&event).unwrap(), value, "{name}");
    }
}

#[test]
fn a_grade_event_that_contradicts_itself_does_not_satisfy_the_schema() {
    let read = |name: &str| serde_json::from_str::<Value>(&examples("grade")[name]).unwrap();
    let refused = |mut event: Value, path: &str, value: Value| {
        *event.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        assert_ne!(complaints(&GRADE, &event), Vec::<String>::new(), "{path} in {event}");
    };
    let mut doubted = read("graded");
    doubted["status"] = json!("abstained");
    refused(doubted, "/reasons", json!(["low_confidence"]));
    refused(read("graded"), "/assessment", json!("final"));
    refused(read("graded"), "/reasons", json!(["blurred"]));
    refused(read("graded"), "/gardner", json!("4"));
    refused(read("graded"), "/gardner", json!("4AD"));
    refused(read("graded"), "/status", json!("abstained"));
    refused(read("graded"), "/exp/grade", json!(2));
    refused(read("graded"), "/exp/probabilities/6", json!(1.01));
    refused(read("graded_expansion_2_without_letters"), "/exp/grade", json!(3));
    refused(read("abstained_low_confidence"), "/reasons", json!([]));
    refused(read("abstained_low_confidence"), "/status", json!("graded"));
    refused(read("abstained_out_of_distribution"), "/training_distance", json!(-0.1));
    let mut gated = read("abstained_by_quality_gate");
    gated["training_distance"] = json!(1.0);
    refused(gated, "/status", json!("abstained"));
}

fn head<G: GradeClass>(logits: &[f32], temperature: f64) -> HeadGrade<G> {
    HeadGrade::from_logits(logits, temperature).unwrap()
}

prop_compose! {
    fn heads()(
        exp in prop::collection::vec(-30f32..30.0, 6),
        icm in prop::collection::vec(-30f32..30.0, 3),
        te in prop::collection::vec(-30f32..30.0, 3),
        temperature in 0.05f64..20.0,
    ) -> Heads {
        Heads::new(
            head::<Expansion>(&exp, temperature),
            head::<Letter>(&icm, temperature),
            head::<Letter>(&te, temperature),
        )
    }
}

prop_compose! {
    fn frame()(
        example in select(frame_examples()),
        run in 0u64..1 << 53,
        index in 0u32..1_000,
        tenths_um in -10_000i32..10_000,
        captured_ms in 946_684_800_000i64..4_102_444_800_000,
        age_ms in 0i64..10_000_000_000,
    ) -> Frame {
        let json = example.to_string();
        let event = FrameEvent::from_json(json.as_bytes()).unwrap();
        let mut frame = event.to_frame(event.validate(now(), 0).unwrap());
        let captured_at = DateTime::from_timestamp_millis(captured_ms).unwrap();
        frame.clocks = Clocks {
            captured_at,
            insemination_time: captured_at - TimeDelta::milliseconds(age_ms),
            hpi: age_ms as f64 / 3_600_000.0,
        };
        frame.id.run = run;
        frame.id.focal_plane_index = index;
        frame.plane = FocalPlane { index, offset_um: f64::from(tenths_um) / 10.0, count: 1_000 };
        frame
    }
}

prop_compose! {
    fn grade_event()(
        frame in frame(),
        reasons in subsequence(AbstainReason::ALL.to_vec(), 0..=AbstainReason::ALL.len()),
        heads in prop::option::of(heads()),
        digest in "[0-9a-f]{64}",
        untrained in any::<bool>(),
        distance in prop::option::of(0f64..1e6),
        microseconds in prop::array::uniform3(0u32..100_000_000),
    ) -> GradeEvent {
        // A frame without heads was stopped by the quality gate, which gives its reason.
        let unexplained = heads.is_none() && reasons.is_empty();
        let reasons = if unexplained { vec![AbstainReason::Blurred] } else { reasons };
        let [decode_ms, queue_ms, inference_ms] = microseconds.map(|time| f64::from(time) / 1_000.0);
        let grader = GraderIdentity {
            model: ModelIdentity { name: "invented".to_owned(), version: "0.1.0".to_owned(), digest, untrained },
            device: "cuda:0".to_owned(),
            precision: "int8+fp32".to_owned(),
        };
        let timings = Timings { decode_ms, queue_ms, inference_ms };
        let distance = distance.filter(|_| heads.is_some());
        GradeEvent::new(&frame, reasons, heads, &grader, "0.1.0", timings).with_training_distance(distance)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_grade_event_satisfies_the_schema_and_survives_json(event in grade_event()) {
        let json = serde_json::to_string(&event).unwrap();
        let complaints = complaints(&GRADE, &serde_json::from_str(&json).unwrap());
        prop_assert_eq!(complaints, Vec::<String>::new(), "{}", json);
        prop_assert_eq!(serde_json::from_str::<GradeEvent>(&json).unwrap(), event);
    }
}

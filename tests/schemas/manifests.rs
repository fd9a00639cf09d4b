//! The schema of a bundle's manifest and its reader refuse the same manifests.

use memebg::model::Manifest;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::agreement::{change, edge_values};
use super::{MANIFEST, complaints, examples};

fn manifest_examples() -> Vec<Value> {
    examples("manifest").values().map(|text| serde_json::from_str(text).unwrap()).collect()
}

fn assert_agreement(manifest: &Value) {
    let complaints = complaints(&MANIFEST, manifest);
    let read = Manifest::from_json(manifest.to_string().as_bytes());
    assert_eq!(
        read.is_ok(),
        complaints.is_empty(),
        "schema: {complaints:?}\nRust: {:?}\nmanifest: {manifest}",
        read.err()
    );
}

/// Values at and beyond the edge of what some field takes.
fn values() -> Vec<Value> {
    let mut values = edge_values();
    for number in [
        "0.0099",
        "0.01",
        "100",
        "100.5",
        "0.001",
        "0.0009",
        "255",
        "255.5",
        "-255",
        "-256",
        "1e39",
        "4096",
        "4097",
        "224",
        "224.0",
        "223",
        "1073741824",
        "1073741825",
    ] {
        let number: Value = serde_json::from_str(number).unwrap();
        values.push(json!([0.5, number, 0.5]));
        values.push(number);
    }
    values.extend([json!([0.5, 0.5]), json!([0.5, 0.5, 0.5, 0.5]), json!([0.5, null, 0.5])]);
    values.extend([json!(["1", "2", "3", "4", "5", "6"]), json!(["A", "B", "C"]), json!(["C", "B", "A"])]);
    values.extend([
        json!({ "abstain_above": 0.5, "accepts": 1 }),
        json!({ "abstain_above": 0.5, "accepts": 1, "more": 1 }),
        json!({ "abstain_above": 0.5 }),
    ]);
    values.extend([json!({ "grey_replicated": null }), json!({ "int8": null }), json!(false)]);
    for text in [
        "grey_replicated",
        "center_crop",
        "int8",
        "fp16",
        "fp32",
        "bf16",
        "2026-1-31",
        "2026-02-30",
        "2028-02-29",
        "+2026-01-31",
        " 2026-01-31",
        "2026-01-31 ",
        "2026-01-31\n",
        "1999-12-31",
        "2100-01-01",
        "20260131",
        "20é6-1-31",
        "MIT",
        "MIT OR Apache-2.0",
        " MIT",
        "\t",
        "\n",
        "\u{1f}",
        "\u{a0}",
        "\u{feff}",
        ".",
        "..",
        ".onnx",
        "a.onnx",
        "-.onnx",
        "a/b.onnx",
        "a\\b",
        "../a",
        "a.onnx\n",
        "\u{e9}.onnx",
    ] {
        values.push(json!(text));
    }
    values.extend([64, 65, 256, 257].map(|length| json!("x".repeat(length))));
    values
}

/// JSON pointers to every field of a manifest, however deep, and to fields it does not have.
fn fields(manifest: &Value) -> Vec<String> {
    fn below(value: &Value, pointer: &str, found: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let pointer = format!("{pointer}/{name}");
            below(value, &pointer, found);
            found.push(pointer);
        }
    }
    let mut found = Vec::new();
    below(manifest, "", &mut found);
    for absent in [
        "/metrics",
        "/threshold",
        "/input/gamma",
        "/out_of_distribution",
        "/heads/blastocoel",
        "/heads/exp/abstain_below",
        "/heads/te/abstain_below",
        "/heads/te/bias",
        "/files/decoder",
        "/files/embedding/url",
    ] {
        if !found.iter().any(|pointer| pointer == absent) {
            found.push(absent.to_owned());
        }
    }
    found
}

#[test]
fn manifest_examples_satisfy_the_schema_and_the_reader() {
    for (name, text) in examples("manifest") {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(complaints(&MANIFEST, &value), Vec::<String>::new(), "{name}");
        let manifest = Manifest::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        // What the reader writes again is what it has read.
        let mut again = serde_json::to_value(&manifest).unwrap();
        for value in [&mut value, &mut again] {
            value.as_object_mut().unwrap().entry("metrics").or_insert(json!({}));
        }
        assert_eq!(again, value, "{name}");
        value["heads"]["te"]["classes"] = json!(["C", "B", "A"]);
        assert_ne!(complaints(&MANIFEST, &value), Vec::<String>::new(), "another class order");
    }
}

#[test]
fn schema_and_reader_agree_on_every_edge_of_every_field_of_a_manifest() {
    let (values, mut accepted, mut refused) = (values(), 0, 0);
    for example in manifest_examples() {
        for field in fields(&example) {
            for value in values.iter().map(Some).chain([None]) {
                let mut manifest = example.clone();
                change(&mut manifest, &field, value);
                assert_agreement(&manifest);
                if MANIFEST.is_valid(&manifest) { accepted += 1 } else { refused += 1 }
            }
        }
    }
    assert!(
        accepted > 500 && refused > 5_000,
        "{accepted} accepted, {refused} refused: the edges do not bite"
    );
}

#[test]
fn an_array_of_the_fields_in_order_is_no_part_of_a_manifest() {
    for example in manifest_examples() {
        for pointer in fields(&example).into_iter().chain([String::new()]) {
            let mut manifest = example.clone();
            let Some(part) = manifest.pointer_mut(&pointer) else { continue };
            let Some(object) = part.as_object() else { continue };
            *part = object.values().cloned().collect();
            assert_agreement(&manifest);
        }
    }
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(values()),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,80}".prop_map(Value::from),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]".prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-300f64..300.0).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn schema_and_reader_agree_on_manifests_with_several_faults(
        example in select(manifest_examples()),
        changes in prop::collection::vec((any::<Index>(), prop::option::weighted(0.8, anything())), 1..4),
    ) {
        let mut manifest = example;
        for (index, value) in changes {
            let fields = fields(&manifest);
            let field: &String = index.get(&fields);
            change(&mut manifest, field, value.as_ref());
        }
        assert_agreement(&manifest);
    }
}

//! Which part of the house may know which, read off the `use` lines and paths of the source.

#![allow(clippy::unwrap_used, clippy::string_slice, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};

/// Parts, and what each may name of the others. `pipeline` means the wiring and the leaves that are
/// shared with the outside (`grade`, `publish`, ...); single leaves are named with their path.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("telemetry", &["domain"]),
    ("pipeline", &["domain", "telemetry", "pipeline"]),
    ("summaries", &["domain"]),
    // What is said to an EMR is a function of the summary alone, so that it can be printed and checked without one.
    ("fhir", &["domain"]),
    // Knows of offsets only what may be committed, and of Kafka only a trait.
    ("emr", &["domain", "fhir", "pipeline::ledger", "pipeline::message", "pipeline::publish", "telemetry"]),
    (
        "kafka",
        &[
            "domain",
            "emr",
            "summaries",
            "telemetry",
            "pipeline::intake",
            "pipeline::ledger",
            "pipeline::message",
            "pipeline::outbox",
            "pipeline::publish",
            "pipeline::receipt",
        ],
    ),
    ("model", &["domain", "pipeline::grade"]),
    // Where the model looked in a photograph: for the command line and for the board.
    ("heatmap", &["domain", "model", "pipeline::decode", "pipeline::grade"]),
    // It looks on, as the service does it: the same events, limits and places of images. Nothing knows it but the
    // command line, and the configuration its options.
    (
        "board",
        &[
            "domain",
            "heatmap",
            "kafka",
            "model",
            "pipeline::decode",
            "pipeline::event",
            "pipeline::fetch",
            "pipeline::grade",
            "pipeline::message",
            "pipeline::select",
            "telemetry::bounded",
            "telemetry::health",
            "telemetry::seldom",
        ],
    ),
    // From what the events say to a page: pure, so that what is on paper can be tested without a broker or a model.
    // Reading the topics, decoding and looking are joined to it by the command line.
    ("report", &["domain"]),
    ("random", &[]),
    ("glyph", &[]),
    ("incubator", &["domain", "glyph", "random"]),
    ("adapter", &["domain", "incubator"]),
    ("training", &["domain", "model", "pipeline::grade", "random"]),
    (
        "config",
        &["adapter", "board", "emr", "incubator", "kafka", "model", "pipeline", "summaries", "telemetry"],
    ),
    ("service", &["config", "domain", "kafka", "model", "pipeline", "telemetry"]),
    // It looks at what each process will need, with the code by which that process would meet it.
    (
        "doctor",
        &[
            "board::AuthKind",
            "board::BoardSettings",
            "board::access",
            "config",
            "emr",
            "fhir::FhirVersion",
            "kafka",
            "model",
            "pipeline::event",
            "pipeline::fetch",
            "pipeline::message",
            "telemetry::http",
            "telemetry::traces",
        ],
    ),
    (
        "cli",
        &[
            "board",
            "adapter",
            "config",
            "doctor",
            "domain",
            "emr",
            "fhir",
            "glyph",
            "heatmap",
            "incubator",
            "kafka",
            "model",
            "pipeline",
            "report",
            "service",
            "telemetry",
            "training",
        ],
    ),
];

/// Leaves of the pipeline that must not know each other; `pipeline.rs` and `stages.rs` join them.
const LEAVES: &[&str] =
    &["batch", "decode", "fetch", "focus", "grade", "outbox", "publish", "quality", "select"];

/// Crates that only these parts may name.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("rdkafka", &["kafka"]),
    ("ort", &["model"]),
    ("axum", &["board", "telemetry"]),
    ("prometheus", &["telemetry"]),
    ("burn", &["training"]),
];

/// A source file: its part (`kafka`), its path below `src` and its text without comments and strings.
struct Source {
    part: String,
    path: PathBuf,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(&root).unwrap().to_owned();
                let first = below.iter().next().unwrap().to_str().unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let code = shipped.lines().map(without_comment).collect::<Vec<_>>().join("\n");
                found.push(Source { part: first.trim_end_matches(".rs").to_owned(), path: below, code });
            }
        }
    }
    assert!(found.len() > 30, "the source was not found");
    found
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Every `a::b` after `root` (`crate::` or `super::`), with grouped imports spelled out.
fn names(code: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split(root).skip(1) {
        let path: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        match path.strip_suffix("::").or(path.is_empty().then_some("")) {
            Some(prefix) if rest[path.len()..].starts_with('{') => {
                let group: String = rest[path.len() + 1..].chars().take_while(|c| *c != ';').collect();
                for item in group.split([',', '{', '}']).map(str::trim).filter(|item| !item.is_empty()) {
                    names.push(format!("{prefix}::{item}").trim_start_matches("::").to_owned());
                }
            }
            _ => names.push(path),
        }
    }
    names
}

fn is_test(source: &Source) -> bool {
    source.path.ends_with("tests.rs")
}

#[test]
fn no_part_knows_more_than_it_may() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(source)) {
        let Some((_, allowed)) = ARROWS.iter().find(|(part, _)| *part == source.part) else {
            assert!(
                ["lib", "main"].contains(&source.part.as_str()),
                "{} is in no part",
                source.path.display()
            );
            continue;
        };
        for name in names(&source.code, "crate::") {
            let other = name.split("::").next().unwrap_or_default();
            let is_part = ARROWS.iter().any(|(part, _)| *part == other);
            let fits = |allowed: &&str| name == **allowed || name.starts_with(&format!("{allowed}::"));
            if is_part && other != source.part && !allowed.iter().any(fits) {
                wrong.push(format!("{} names crate::{name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_leaf_of_the_pipeline_knows_another() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.part == "pipeline" && !is_test(source)) {
        let leaf = source.path.iter().nth(1).and_then(|name| name.to_str()).unwrap_or_default();
        let leaf = leaf.trim_end_matches(".rs");
        if !LEAVES.contains(&leaf) {
            continue;
        }
        let inside = names(&source.code, "super::");
        let outside = names(&source.code, "crate::");
        let outside = outside.iter().filter_map(|name| name.strip_prefix("pipeline::").map(str::to_owned));
        for name in inside.into_iter().chain(outside) {
            let other = name.split("::").next().unwrap_or_default();
            if other != leaf && LEAVES.contains(&other) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_outside_world_is_named_in_its_part_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (krate, parts) in ONLY_IN {
            let named = source.code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let named = named.clone().any(|word| word.starts_with(&format!("{krate}::")));
            if named && !parts.contains(&source.part.as_str()) {
                wrong.push(format!("{} names {krate}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_is_small_enough_to_hold_in_the_head() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lines = |source: &Source| std::fs::read_to_string(root.join(&source.path)).unwrap().lines().count();
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.path.display().to_string(), lines(source)))
        .filter(|(_, lines)| *lines > 400)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

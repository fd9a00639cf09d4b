//! The dashboards, rules and runbook in `deploy` against what memebg really exports: a demo, scraped by a real Prometheus.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "common/process.rs"]
mod process;
#[path = "common/prometheus.rs"]
mod prometheus;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use process::{Memebg, get, metric, wait_for};
use prometheus::Prometheus;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);

/// What Grafana puts in place of its variables.
const VARIABLES: &[(&str, &str)] = &[
    ("$job", "memebg"),
    ("$instance", ".*"),
    ("$site", ".*"),
    ("$__rate_interval", "15s"),
    ("$__range", "5m"),
];

/// What a demo cannot have: kappa needs thirty reviewed embryos, and there are no jobs of these names.
const NOT_IN_A_DEMO: &[&str] = &["memebg_review_kappa_ratio", "summarizer", "memebg.*emr"];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Content of every file of a folder with this ending, by name.
fn read_all(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let files = fs::read_dir(deploy(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.to_str().unwrap().ends_with(ending));
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    let read: BTreeMap<_, _> =
        files.map(named).map(|(name, path)| (name, fs::read_to_string(path).unwrap())).collect();
    assert!(!read.is_empty(), "no {ending} in {folder}");
    read
}

/// What follows `prefix` in the lines that begin with it.
fn after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(prefix)).map(str::trim).collect()
}

fn alerts() -> BTreeSet<String> {
    let rules = read_all("prometheus/rules", ".yml");
    rules.values().flat_map(|text| after(text, "- alert: ")).map(str::to_owned).collect()
}

/// Every query of every dashboard, as Grafana would send it, with where it stands.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (file, text) in read_all("grafana/dashboards", ".json") {
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(!panel["description"].as_str().unwrap_or_default().is_empty(), "{file}: {title}");
            for target in panel["targets"].as_array().unwrap() {
                let expr =
                    VARIABLES.iter().fold(target["expr"].as_str().unwrap().to_owned(), |expr, variable| {
                        expr.replace(variable.0, variable.1)
                    });
                // "$1" is a group of label_replace.
                assert!(!expr.replace("$1", "").contains('$'), "{file}: {title}: unknown variable in {expr}");
                queries.push((format!("{file}: {title}"), expr));
            }
        }
    }
    queries
}

/// The names of metrics and of recorded series in an expression.
fn names(expr: &str) -> BTreeSet<&str> {
    let words = expr.split(|one: char| !(one.is_ascii_alphanumeric() || one == '_' || one == ':'));
    words.filter(|word| word.starts_with("memebg_") || word.starts_with("memebg:")).collect()
}

/// The metric that a series of a histogram belongs to.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

/// Each metric in an expression with those of its matchers that ask for something: `x{a="b", c!="d"}` as `x{a="b"}`.
fn selectors(expr: &str) -> Vec<String> {
    let braces = expr.match_indices('{').map(|(at, _)| expr.split_at(at));
    let selectors = braces.map(|(before, from)| {
        let name = before.rsplit(|one: char| !(one.is_ascii_alphanumeric() || one == '_')).next().unwrap();
        let matchers = from.trim_start_matches('{').split('}').next().unwrap().split(", ");
        format!("{name}{{{}}}", matchers.filter(|one| !one.contains('!')).collect::<Vec<_>>().join(", "))
    });
    selectors.collect()
}

#[test]
fn the_rules_do_in_promtool_what_their_cases_say() {
    let cases = read_all("prometheus/tests", ".test.yml");
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules"]).args(cases.keys()).current_dir(deploy("prometheus/tests"));
    let output = promtool.output().expect("promtool is not on PATH; Debian's package `prometheus` has it");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_one_in_which_it_does_not_and_a_section_in_the_runbook() {
    let (mut fire, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in read_all("prometheus/tests", ".test.yml") {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let Some(alert) = line.strip_prefix("alertname: ") else { continue };
            match lines.next() {
                Some("exp_alerts: []") => quiet.insert(alert.to_owned()),
                Some("exp_alerts:") => fire.insert(alert.to_owned()),
                other => panic!("{file}: {alert} is followed by {other:?}, not by exp_alerts"),
            };
        }
    }
    let alerts = alerts();
    assert!(!alerts.is_empty());
    assert_eq!(fire, alerts, "left: alerts with a case in which they fire");
    assert_eq!(quiet, alerts, "left: alerts with a case in which they do not");
    let runbook = fs::read_to_string(deploy("RUNBOOK.md")).unwrap();
    let sections: Vec<String> = after(&runbook, "## ").into_iter().map(str::to_owned).collect();
    assert_eq!(sections.len(), alerts.len(), "a section twice");
    assert_eq!(BTreeSet::from_iter(sections), alerts, "left: sections of the runbook");
}

/// Waits until each of `queries` has had a number to show.
fn assert_all_have_data(prometheus: &Prometheus, mut queries: Vec<(String, String)>) {
    let mut missing = String::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        queries.retain(|(_, expr)| prometheus.query(expr).is_empty());
        missing = queries.iter().map(|(place, expr)| format!("\n{place}: {expr}")).collect();
        if missing.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("no data within {PATIENCE:?} in{missing}");
}

fn rules(prometheus: &Prometheus) -> Option<Vec<Value>> {
    let data = prometheus.get("rules", &[])?;
    let groups = data["groups"].as_array()?;
    let rules: Vec<Value> =
        groups.iter().flat_map(|group| group["rules"].as_array()).flatten().cloned().collect();
    // Each has been evaluated.
    (!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")).then_some(rules)
}

#[test]
fn every_panel_and_every_rule_finds_data_in_a_demo_and_no_page_goes_out() {
    let shadow = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let demo = Memebg::start(
        &["demo", "--seconds", "600", "--json"],
        &[
            ("telemetry.listen", "127.0.0.1:0"),
            ("board.listen", "127.0.0.1:0"),
            ("telemetry.log_format", "json"),
            ("telemetry.log_filter", "info"),
            ("select.sites", r#"["demo"]"#),
            ("shadow.bundle", shadow.to_str().unwrap()),
            // Sooner than a person would want it.
            ("drift.min_frames", "5"),
            // A dead letter is one of the things that a dashboard shows.
            ("incubator.damaged_every", "5"),
        ],
    );
    let address = demo.address(PATIENCE);
    wait_for("ready", PATIENCE, || get(address, "/readyz").filter(|(status, _)| *status == 200));
    let prometheus = Prometheus::start("memebg", address, &deploy("prometheus/rules/*.yml"));

    let rules = wait_for("rules", PATIENCE, || rules(&prometheus));
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    wait_for("first dead letter", PATIENCE, || {
        metric(address, "memebg_frames_dead_lettered_total").filter(|letters| *letters > 0.0)
    });
    let (alerting, recording): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule["type"] == "alerting");
    let recorded = recording.iter().map(|rule| rule["query"].as_str().unwrap().to_owned());
    let mut all = queries();
    all.extend(recording.iter().map(|rule| {
        let name = rule["name"].as_str().unwrap().to_owned();
        (format!("rule {name}"), name)
    }));
    // An alert that does not fire shows nothing, so its parts are asked for.
    for rule in &alerting {
        let (name, query) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let parts = names(query).into_iter().map(str::to_owned).chain(selectors(query));
        all.extend(parts.map(|part| (format!("alert {name}"), part)));
    }
    let used: Vec<String> = all.iter().map(|(_, expr)| expr.clone()).chain(recorded).collect();
    all.retain(|(_, expr)| {
        !NOT_IN_A_DEMO.iter().any(|one| expr.replace("!~\".*(board|emr|summarizer)\"", "").contains(one))
    });
    assert_all_have_data(&prometheus, all);

    let named: BTreeSet<String> =
        alerting.iter().map(|rule| rule["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named, alerts(), "left: what Prometheus has read");
    for rule in &alerting {
        let (name, annotations) = (rule["name"].as_str().unwrap(), &rule["annotations"]);
        assert!(["page", "ticket"].map(Value::from).contains(&rule["labels"]["severity"]), "{rule}");
        assert_eq!(annotations["runbook_url"], format!("deploy/RUNBOOK.md#{}", name.to_lowercase()));
        assert!(annotations["summary"].is_string() && annotations["description"].is_string(), "{rule}");
    }

    let known = prometheus.get("label/__name__/values", &[]).unwrap();
    let exported = known.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let used: BTreeSet<&str> = used.iter().flat_map(|expr| names(expr)).map(family).collect();
    let unused: BTreeSet<&str> = exported
        .filter(|name| name.starts_with("memebg_"))
        .map(family)
        .filter(|name| !used.contains(name))
        .collect();
    assert!(unused.is_empty(), "exported and neither shown nor watched: {unused:?}");

    let targets = prometheus.get("targets", &[]).unwrap();
    let targets = targets["activeTargets"].as_array().unwrap();
    assert!(targets.len() == 1 && targets[0]["health"] == "up", "{targets:?}");
    let active = prometheus.get("alerts", &[]).unwrap();
    let pages =
        active["alerts"].as_array().unwrap().iter().filter(|alert| alert["labels"]["severity"] == "page");
    assert_eq!(pages.collect::<Vec<_>>(), Vec::<&Value>::new());
}

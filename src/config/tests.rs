//! Layers of options, and what is refused.

use super::*;

fn load(set: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let layers = Layers { set: set.iter().map(|it| (*it).to_owned()).collect(), ..Layers::default() };
    Config::load(&layers, environment.iter().map(|(name, value)| (name.into(), value.into())))
}

#[test]
fn the_defaults_and_the_demo_are_valid() {
    load(&[], &[]).unwrap();
    Config::load(&Layers { demo: true, ..Layers::default() }, []).unwrap();
}

#[test]
fn the_command_line_beats_the_environment_and_the_environment_beats_the_file() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), "[select]\nmin_hpi = 100.0\nmax_hpi = 130.0\n[batch]\nmax_wait_ms = 7\n")
        .unwrap();
    let layers = Layers {
        file: Some(file.path().into()),
        set: vec!["select.max_hpi=126".into()],
        ..Layers::default()
    };
    let environment = [("MEMEBG__SELECT__MIN_HPI", "104"), ("MEMEBG__SELECT__MAX_HPI", "125"), ("PATH", "/")];
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    let config = Config::load(&layers, environment).unwrap();
    assert_eq!((config.select.min_hpi, config.select.max_hpi), (104.0, 126.0));
    assert_eq!(config.batch.max_wait_ms, 7);
}

#[test]
fn lists_and_kafka_properties_come_from_the_environment_too() {
    let config = load(
        &[],
        &[
            ("MEMEBG__SELECT__SITES", r#"["north", "south"]"#),
            ("MEMEBG__MODEL__BATCH_SIZES", "[1, 2, 16]"),
            ("MEMEBG__KAFKA__PROPERTIES__SASL_PASSWORD", "0123"),
        ],
    )
    .unwrap();
    assert_eq!(config.select.sites, ["north", "south"]);
    assert_eq!(config.model.batch_sizes, [1, 2, 16]);
    assert_eq!(config.kafka.properties.get("sasl_password").map(String::as_str), Some("0123"));
}

#[test]
fn text_that_only_starts_like_a_list_is_text() {
    let config = load(&["kafka.brokers=[::1]:9092"], &[("MEMEBG__TELEMETRY__LISTEN", "[::]:9464")]).unwrap();
    assert_eq!(
        (config.kafka.brokers.as_str(), config.telemetry.listen.as_str()),
        ("[::1]:9092", "[::]:9464")
    );
}

#[test]
fn a_property_with_dots_is_read_from_a_file_unchanged() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), "[kafka.properties]\n\"security.protocol\" = \"SSL\"\n").unwrap();
    let layers = Layers { file: Some(file.path().into()), ..Layers::default() };
    let config = Config::load(&layers, []).unwrap();
    assert_eq!(config.kafka.properties.get("security.protocol").map(String::as_str), Some("SSL"));
}

#[test]
fn an_option_that_nobody_knows_is_refused() {
    let error = load(&[], &[("MEMEBG__SELECT__MIN_HIP", "1")]).unwrap_err().to_string();
    assert!(error.contains("min_hip"), "{error}");
    assert!(load(&["select.min_hpi"], &[]).is_err());
}

#[test]
fn options_that_contradict_each_other_are_refused_by_name() {
    for (set, named) in [
        ("select.min_hpi=130", "select.min_hpi"),
        ("batch.max_frames=100000", "batch.max_frames"),
        ("kafka.max_send_bytes=1", "kafka.max_send_bytes"),
        ("kafka.drain_timeout_ms=100", "kafka.drain_timeout_ms"),
        ("telemetry.poll_timeout_seconds=1", "telemetry.poll_timeout_seconds"),
        ("flow.max_in_flight_frames=0", "flow.max_in_flight_frames"),
        ("kafka.properties.acks=1", "acks"),
        ("kafka.consumer_properties.max_poll_interval_ms=15000", "max.poll.interval.ms 15000"),
        ("kafka.properties.max_poll_interval_ms=soon", "max.poll.interval.ms"),
        ("flow.max_in_flight_bytes=0", "flow.max_in_flight_bytes"),
        ("focus.max_runs=0", "focus.max_runs"),
        ("telemetry.traces.sample_ratio=1.5", "telemetry.traces.sample_ratio"),
        ("telemetry.traces.endpoint=collector:4318", "telemetry.traces.endpoint"),
        ("drift.min_frames=10000", "drift.min_frames"),
        ("shadow.max_waiting_frames=0", "shadow.max_waiting_frames"),
        ("decode.threads=1000000000000000", "decode.threads"),
        ("quality.min_mean_grey=250", "quality.min_mean_grey"),
        ("fetch.attempts=0", "fetch.attempts"),
        ("telemetry.log_filter=memebg=loud", "loud"),
        ("incubator.days=4", "incubator.days"),
        ("summaries.topic=embryo.grades.v1", "summaries.topic"),
        ("summaries.group_id=memebg", "summaries.group_id"),
        ("reviews.topic=embryo.summaries.v1", "reviews.topic"),
        ("adapter.max_depth=0", "adapter.max_depth"),
        ("adapter.focal_offsets_um=[0, -15]", "adapter.focal_offsets_um"),
        ("adapter.plane_names=none", "adapter.focal_offsets_um"),
    ] {
        let error = load(&[set], &[]).unwrap_err().to_string();
        assert!(error.contains(named), "{set}: {error}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let set = [
        "kafka.properties.sasl_password=hunter",
        "kafka.properties.sasl_username=memebg",
        r#"fetch.allowed_uri_prefixes=["https://memebg:hunter@host.example/frames", "s3://frames"]"#,
    ];
    let config = load(&set, &[]).unwrap();
    let shown = config.redacted().unwrap();
    assert!(!shown.contains("hunter") && shown.contains("<redacted>"), "{shown}");
    assert!(shown.contains("sasl_username = \"memebg\"") && shown.contains("s3://frames"), "{shown}");
}

/// `section.key` of every option in a table, however deep.
fn options(table: &toml::Table, section: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let option = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value {
            toml::Value::Table(table) => options(table, &option, found),
            _ => found.push(option),
        }
    }
}

#[test]
fn every_option_of_the_settings_is_in_the_file_of_defaults_right_below_its_reason() {
    let (mut section, mut above, mut explained) = (String::new(), "", Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(above.starts_with('#'), "{section}.{key} has no reason above it");
            explained.push(format!("{section}.{key}"));
        }
        above = line;
    }
    let settings = load(&["select.spacing_minutes=20"], &[]).unwrap();
    let settings: toml::Table = toml::to_string(&settings).unwrap().parse().unwrap();
    let mut known = Vec::new();
    options(&settings, "", &mut known);
    // The one option that may be left out stands there as a comment.
    assert!(DEFAULTS.contains("\n# spacing_minutes = "), "select.spacing_minutes is not explained");
    known.retain(|option| option != "select.spacing_minutes");
    explained.sort_unstable();
    known.sort_unstable();
    assert_eq!(explained, known);
}

#[test]
fn an_adapter_may_not_make_events_that_the_service_refuses_and_without_one_they_may_be_small() {
    let small = "kafka.max_value_bytes=200000";
    let error = load(&[small, "adapter.folder=/exports"], &[]).unwrap_err().to_string();
    assert!(error.contains("adapter.inline_up_to_bytes"), "{error}");
    load(&[small], &[]).unwrap();
}

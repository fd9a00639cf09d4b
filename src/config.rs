//! All options: the settings of every part, layered, checked across parts, printed without secrets.
//!
//! Defaults (`config/memebg.toml`, compiled in) < the demo's overlay < `--config FILE` < environment
//! (`MEMEBG__SECTION__KEY`) < `--set section.key=value`. An option that nobody knows is an error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{ConfigBuilder, File, FileFormat};
use serde::{Deserialize, Serialize};

use crate::incubator::IncubatorSettings;
use crate::kafka::KafkaSettings;
use crate::model::ModelSettings;
use crate::pipeline::batch::BatchSettings;
use crate::pipeline::decode::DecodeSettings;
use crate::pipeline::drift::DriftSettings;
use crate::pipeline::fetch::FetchSettings;
use crate::pipeline::focus::FocusSettings;
use crate::pipeline::publish::PublishSettings;
use crate::pipeline::quality::QualitySettings;
use crate::pipeline::receipt::FlowSettings;
use crate::pipeline::select::SelectSettings;
use crate::pipeline::{PipelineSettings, ShadowSettings};
use crate::telemetry::{TelemetrySettings, logging};

const DEFAULTS: &str = include_str!("../config/memebg.toml");
const DEMO: &str = include_str!("../config/demo.toml");
const ENVIRONMENT_PREFIX: &str = "MEMEBG__";
/// What a dead letter needs beyond the value it carries: key, original and error headers.
const DEAD_LETTER_OVERHEAD_BYTES: usize = 64 * 1024;

/// Every option of the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Cluster, group, topics.
    pub kafka: KafkaSettings,
    /// Which frames are wanted.
    pub select: SelectSettings,
    /// Where images may come from.
    pub fetch: FetchSettings,
    /// What may be decoded.
    pub decode: DecodeSettings,
    /// What is good enough to be graded.
    pub quality: QualitySettings,
    /// How the planes of a run wait for each other.
    pub focus: FocusSettings,
    /// When a batch is closed.
    pub batch: BatchSettings,
    /// How much may be under way.
    pub flow: FlowSettings,
    /// How much may wait for the broker's confirmation.
    pub publish: PublishSettings,
    /// Which model on which device.
    pub model: ModelSettings,
    /// Which model looks on.
    pub shadow: ShadowSettings,
    /// What counts as recent when drift is measured.
    pub drift: DriftSettings,
    /// Logs, metrics, probes.
    pub telemetry: TelemetrySettings,
    /// The synthetic incubators.
    pub incubator: IncubatorSettings,
}

/// What is laid over the defaults.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Whether the demo's overlay applies.
    pub demo: bool,
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// `section.key=value`, strongest last.
    pub set: Vec<String>,
}

/// Options that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An unknown option, a missing one, or a value of the wrong type.
    #[error("configuration: {0}")]
    Read(#[from] config::ConfigError),
    /// `--set` without a value.
    #[error("--set {0:?} is not of the form section.key=value")]
    Set(String),
    /// Options that contradict each other.
    #[error("configuration: {0}")]
    Invalid(String),
}

impl Config {
    /// Reads all layers and checks the result. `environment` is `std::env::vars_os()`, or what a test
    /// wants it to be.
    ///
    /// # Errors
    /// Names the option that cannot be used and why.
    pub fn load(
        layers: &Layers,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if layers.demo {
            builder = builder.add_source(File::from_str(DEMO, FileFormat::Toml));
        }
        if let Some(file) = &layers.file {
            builder = builder.add_source(File::from(Path::new(file)).format(FileFormat::Toml));
        }
        for (name, value) in environment {
            // Other variables need not even be text.
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(ENVIRONMENT_PREFIX)) else {
                continue;
            };
            let option = name.to_lowercase().replace("__", ".");
            let value =
                value.to_str().ok_or_else(|| ConfigError::Invalid(format!("{option} is not UTF-8")))?;
            builder = set(builder, &option, value)?;
        }
        for assignment in &layers.set {
            let (option, value) =
                assignment.split_once('=').ok_or_else(|| ConfigError::Set(assignment.clone()))?;
            builder = set(builder, option.trim(), value.trim())?;
        }
        let config: Self = builder.build()?.try_deserialize()?;
        config.validate()?;
        Ok(config)
    }

    /// The options of the pipeline's stages.
    #[must_use]
    pub fn pipeline(&self) -> PipelineSettings {
        PipelineSettings {
            select: self.select.clone(),
            fetch: self.fetch.clone(),
            decode: self.decode.clone(),
            quality: self.quality.clone(),
            focus: self.focus.clone(),
            batch: self.batch.clone(),
            flow: self.flow.clone(),
            publish: self.publish.clone(),
            drift: self.drift.clone(),
        }
    }

    /// As TOML, with everything that may be a secret replaced.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub fn redacted(&self) -> Result<String, toml::ser::Error> {
        let mut shown = self.clone();
        let kafka = &mut shown.kafka;
        for table in [&mut kafka.properties, &mut kafka.consumer_properties, &mut kafka.producer_properties] {
            for (property, value) in table.iter_mut() {
                let secret = ["password", "secret", "key", "token", "jaas", "pem", "config"];
                if secret.iter().any(|word| property.to_lowercase().contains(word)) {
                    "<redacted>".clone_into(value);
                }
            }
        }
        for prefix in &mut shown.fetch.allowed_uri_prefixes {
            let with_user = |url: url::Url| !url.username().is_empty() || url.password().is_some();
            if url::Url::parse(prefix).is_ok_and(with_user) {
                "<redacted>".clone_into(prefix);
            }
        }
        toml::to_string(&shown)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let check =
            |holds: bool, message: String| if holds { Ok(()) } else { Err(ConfigError::Invalid(message)) };
        let Self {
            kafka,
            select,
            fetch,
            decode,
            quality,
            focus,
            batch,
            flow,
            publish,
            model,
            shadow,
            drift,
            telemetry,
            incubator,
        } = self;
        let invalid = |error: &dyn std::fmt::Display| ConfigError::Invalid(error.to_string());
        kafka.validate().map_err(|error| invalid(&error))?;
        fetch.validate().map_err(|error| invalid(&error))?;
        model.validate().map_err(|error| invalid(&error))?;
        incubator.validate().map_err(|error| invalid(&error))?;
        logging::check_filter(&telemetry.log_filter).map_err(|error| invalid(&error))?;
        check(
            select.min_hpi >= 0.0 && select.min_hpi < select.max_hpi && select.max_hpi.is_finite(),
            format!("select.min_hpi {} is not below select.max_hpi {}", select.min_hpi, select.max_hpi),
        )?;
        check(
            select.spacing_minutes.is_none_or(|minutes| minutes > 0.0 && minutes.is_finite()),
            "select.spacing_minutes is not positive; leave it out to want every run".into(),
        )?;
        for (option, value, most) in [
            ("decode.threads", decode.threads, 1_024),
            ("focus.max_runs", focus.max_runs, 1_000_000),
            ("flow.max_in_flight_frames", flow.max_in_flight_frames, 1_000_000),
            ("publish.max_unconfirmed", publish.max_unconfirmed, 1_000_000),
            ("shadow.max_waiting_frames", shadow.max_waiting_frames, 4_096),
            ("drift.window_frames", drift.window_frames, 1_000_000),
            ("drift.min_frames", drift.min_frames, drift.window_frames),
        ] {
            check((1..=most).contains(&value), format!("{option} {value} is not within 1 and {most}"))?;
        }
        check(
            quality.min_mean_grey < quality.max_mean_grey,
            "quality.min_mean_grey is not below quality.max_mean_grey: every frame would abstain".into(),
        )?;
        check(
            flow.max_in_flight_bytes >= kafka.max_value_bytes,
            format!(
                "flow.max_in_flight_bytes {} is below kafka.max_value_bytes {}",
                flow.max_in_flight_bytes, kafka.max_value_bytes
            ),
        )?;
        let largest = model.batch_sizes.iter().copied().max().unwrap_or(0);
        check(
            (1..=largest).contains(&batch.max_frames),
            format!(
                "batch.max_frames {} is not within 1 and the largest of model.batch_sizes, {largest}",
                batch.max_frames
            ),
        )?;
        check(
            flow.max_in_flight_frames >= batch.max_frames
                && flow.max_held_offsets >= flow.max_in_flight_frames,
            format!(
                "flow.max_in_flight_frames {} is not within batch.max_frames {} and flow.max_held_offsets {}",
                flow.max_in_flight_frames, batch.max_frames, flow.max_held_offsets
            ),
        )?;
        let dead_letter = kafka.max_value_bytes.saturating_add(DEAD_LETTER_OVERHEAD_BYTES);
        check(
            kafka.max_send_bytes >= dead_letter,
            format!(
                "kafka.max_send_bytes {} leaves no room for a dead letter, {dead_letter}",
                kafka.max_send_bytes
            ),
        )?;
        let drain_ms = kafka.drain_timeout_ms;
        check(
            focus.max_wait_ms.max(batch.max_wait_ms) < drain_ms,
            format!(
                "focus.max_wait_ms and batch.max_wait_ms are not below kafka.drain_timeout_ms {drain_ms}"
            ),
        )?;
        let expelled_after_ms = kafka.max_poll_interval_ms().map_err(|error| invalid(&error))?;
        check(
            drain_ms < telemetry.poll_timeout_seconds.saturating_mul(1_000) && drain_ms < expelled_after_ms,
            format!(
                "kafka.drain_timeout_ms {drain_ms} is not below telemetry.poll_timeout_seconds {} and \
                 max.poll.interval.ms {expelled_after_ms}",
                telemetry.poll_timeout_seconds
            ),
        )
    }
}

/// Sets one option from text. A list is written as in TOML: `["a", "b"]`.
fn set(
    builder: ConfigBuilder<DefaultState>,
    option: &str,
    text: &str,
) -> Result<ConfigBuilder<DefaultState>, ConfigError> {
    // Text that starts like a list and is none is text: `[::1]:9092`.
    let list = text.starts_with('[').then(|| format!("list = {text}").parse::<toml::Table>());
    let Some(Ok(list)) = list else { return Ok(builder.set_override(option, text)?) };
    let items = list.get("list").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let items: Vec<String> =
        items.into_iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
    Ok(builder.set_override(option, items)?)
}

#[cfg(test)]
mod tests {
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
        let environment =
            [("MEMEBG__SELECT__MIN_HPI", "104"), ("MEMEBG__SELECT__MAX_HPI", "125"), ("PATH", "/")];
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
        let config =
            load(&["kafka.brokers=[::1]:9092"], &[("MEMEBG__TELEMETRY__LISTEN", "[::]:9464")]).unwrap();
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
            ("flow.max_in_flight_frames=1", "flow.max_in_flight_frames"),
            ("kafka.properties.acks=1", "acks"),
            ("kafka.consumer_properties.max_poll_interval_ms=15000", "max.poll.interval.ms 15000"),
            ("kafka.properties.max_poll_interval_ms=soon", "max.poll.interval.ms"),
            ("flow.max_in_flight_bytes=0", "flow.max_in_flight_bytes"),
            ("focus.max_runs=0", "focus.max_runs"),
            ("decode.threads=1000000000000000", "decode.threads"),
            ("quality.min_mean_grey=250", "quality.min_mean_grey"),
            ("fetch.attempts=0", "fetch.attempts"),
            ("telemetry.log_filter=memebg=loud", "loud"),
            ("incubator.days=4", "incubator.days"),
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
}

//! All options: the settings of every part, layered, checked across parts, printed without secrets.
//!
//! Defaults (`config/memebg.toml`, compiled in) < the demo's overlay < `--config FILE` < environment
//! (`MEMEBG__SECTION__KEY`) < `--set section.key=value`. An option that nobody knows is an error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{ConfigBuilder, File, FileFormat};
use serde::{Deserialize, Serialize};

use crate::adapter::AdapterSettings;
use crate::board::BoardSettings;
use crate::emr::EmrSettings;
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
use crate::summaries::{ReviewsSettings, SummariesSettings};
use crate::telemetry::{TelemetrySettings, logging};

const DEFAULTS: &str = include_str!("../config/memebg.toml");
const DEMO: &str = include_str!("../config/demo.toml");
/// How the names begin of the variables that are options.
pub const ENVIRONMENT_PREFIX: &str = "MEMEBG__";
/// What a dead letter needs beyond the value it carries: key, original and error headers.
pub const DEAD_LETTER_OVERHEAD_BYTES: usize = 64 * 1024;

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
    /// What is said of each embryo.
    pub summaries: SummariesSettings,
    /// What embryologists say of each embryo.
    pub reviews: ReviewsSettings,
    /// The live board.
    pub board: BoardSettings,
    /// Where what is said of each embryo is brought to.
    pub emr: EmrSettings,
    /// Logs, metrics, probes.
    pub telemetry: TelemetrySettings,
    /// The synthetic incubators.
    pub incubator: IncubatorSettings,
    /// The export folder of a real one.
    pub adapter: AdapterSettings,
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
            summaries,
            reviews,
            board,
            emr,
            telemetry,
            incubator,
            adapter,
        } = self;
        let invalid = |error: &dyn std::fmt::Display| ConfigError::Invalid(error.to_string());
        kafka.validate().map_err(|error| invalid(&error))?;
        fetch.validate().map_err(|error| invalid(&error))?;
        model.validate().map_err(|error| invalid(&error))?;
        incubator.validate().map_err(|error| invalid(&error))?;
        adapter.validate().map_err(|error| invalid(&error))?;
        logging::check_filter(&telemetry.log_filter).map_err(|error| invalid(&error))?;
        summaries.validate(&kafka.group_id, &kafka.grades_topic).map_err(ConfigError::Invalid)?;
        reviews
            .validate(&[
                ("kafka.frames_topic", &kafka.frames_topic),
                ("kafka.grades_topic", &kafka.grades_topic),
                ("kafka.dead_letters_topic", &kafka.dead_letters_topic),
                ("summaries.topic", &summaries.topic),
            ])
            .map_err(ConfigError::Invalid)?;
        board.validate().map_err(ConfigError::Invalid)?;
        emr.validate(
            &kafka.group_id,
            &[
                ("kafka.frames_topic", &kafka.frames_topic),
                ("kafka.grades_topic", &kafka.grades_topic),
                ("kafka.dead_letters_topic", &kafka.dead_letters_topic),
                ("summaries.topic", &summaries.topic),
                ("reviews.topic", &reviews.topic),
            ],
        )
        .map_err(ConfigError::Invalid)?;
        telemetry.traces.validate().map_err(ConfigError::Invalid)?;
        check(
            select.min_hpi >= 0.0 && select.min_hpi < select.max_hpi && select.max_hpi.is_finite(),
            format!("select.min_hpi {} is not below select.max_hpi {}", select.min_hpi, select.max_hpi),
        )?;
        check(
            select.spacing_minutes.is_none_or(|minutes| minutes > 0.0 && minutes.is_finite()),
            "select.spacing_minutes is not positive; leave it out to want every run".into(),
        )?;
        for (option, value, most) in [
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
        check(decode.threads <= 1_024, format!("decode.threads {} is above 1024", decode.threads))?;
        let largest = model.largest_batch_frames();
        check(
            batch.max_frames <= largest,
            format!(
                "batch.max_frames {} is above the largest of model.batch_sizes, {largest}",
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
        // In base64, and with what else an event says. Of whoever adapts nothing this is not asked.
        let inline_event = adapter.inline_up_to_bytes / 3 * 4 + 8_192;
        check(
            adapter.folder.as_os_str().is_empty() || inline_event <= kafka.max_value_bytes as u64,
            format!(
                "adapter.inline_up_to_bytes {} makes events of {inline_event} bytes, above kafka.max_value_bytes {}",
                adapter.inline_up_to_bytes, kafka.max_value_bytes
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
#[path = "config/tests.rs"]
mod tests;

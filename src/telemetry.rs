//! What the service says about itself: logs, metrics, traces and probes, all from facts.

pub mod bounded;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod seldom;
pub mod traces;

use serde::{Deserialize, Serialize};

use traces::TraceSettings;

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person at a terminal.
    Text,
    /// One JSON object per line, for a log collector.
    Json,
}

/// Options of logs, metrics and probes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// `address:port` of `/metrics`, `/livez` and `/readyz`; port 0 takes a free one.
    pub listen: String,
    /// Shape of the log lines on standard error.
    pub log_format: LogFormat,
    /// Which log lines are written, e.g. `info,memebg=debug`.
    pub log_filter: String,
    /// A consumer that has not polled for this long is not alive.
    pub poll_timeout_seconds: u64,
    /// A grader that has been busy with one batch for this long is not alive.
    pub inference_timeout_seconds: u64,
    /// Where traces go.
    pub traces: TraceSettings,
}

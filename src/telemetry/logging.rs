//! Log lines on standard error: text for a person, JSON for a collector.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::{LogFormat, TelemetrySettings};

/// Logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("log filter {filter:?} is not valid, write it like \"info,memebg=debug\": {reason}")]
    Filter {
        /// The configured filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in this process logs already.
    #[error("logging has already been started: {0}")]
    AlreadyStarted(#[from] TryInitError),
}

/// Whether a filter is one.
///
/// # Errors
/// [`LoggingError::Filter`] naming it.
pub fn check_filter(log_filter: &str) -> Result<(), LoggingError> {
    filter(log_filter).map(drop)
}

fn filter(log_filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(log_filter)
        .map_err(|error| LoggingError::Filter { filter: log_filter.to_owned(), reason: error.to_string() })
}

/// Starts logging for the whole process. Colours appear only on a terminal.
///
/// # Errors
/// When the filter is not valid or logging has been started before.
pub fn init(settings: &TelemetrySettings) -> Result<(), LoggingError> {
    let colour = std::io::stderr().is_terminal();
    Ok(subscriber(settings, std::io::stderr, colour)?.try_init()?)
}

fn subscriber<W>(
    settings: &TelemetrySettings,
    writer: W,
    colour: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(&settings.log_filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    Ok(match settings.log_format {
        LogFormat::Text => Box::new(lines.finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::traces::TraceSettings;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn settings(log_format: LogFormat, log_filter: &str) -> TelemetrySettings {
        TelemetrySettings {
            listen: "127.0.0.1:0".to_owned(),
            log_format,
            log_filter: log_filter.to_owned(),
            poll_timeout_seconds: 30,
            inference_timeout_seconds: 30,
            traces: TraceSettings { endpoint: String::new(), sample_ratio: 0.0 },
        }
    }

    fn logged(log_format: LogFormat) -> String {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber = subscriber(&settings(log_format, "info"), move || sink.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(frames = 3, "batch closed");
            tracing::debug!("not at this level");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_carry_values_as_fields() {
        let text = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((line["message"].as_str(), line["frames"].as_u64()), (Some("batch closed"), Some(3)));
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn text_has_no_colour_codes_when_it_is_not_for_a_terminal() {
        let text = logged(LogFormat::Text);
        assert!(text.contains("batch closed") && text.contains("frames=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert_eq!(text.lines().count(), 1, "the filter holds: {text}");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = subscriber(&settings(LogFormat::Text, "memebg=loud"), std::io::sink, false);
        let text = error.err().unwrap().to_string();
        assert!(text.contains("\"memebg=loud\""), "{text}");
    }
}

//! Sending spans: a collector that is away costs spans and a log line now and then, never a frame.

use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::telemetry::seldom::Seldom;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends to an OTLP endpoint over HTTP.
///
/// # Errors
/// When the endpoint is no URL, or no client can be made.
pub(super) fn exporter(endpoint: &str) -> Result<impl SpanExporter + 'static, String> {
    let otlp = Otlp::builder().with_http().with_endpoint(endpoint).with_timeout(TIMEOUT).build();
    Ok(Telling { otlp: otlp.map_err(|error| error.to_string())?, complaints: Seldom::default() })
}

/// Sends a request without a span, as spans would be sent: whoever takes it has nothing to keep. Blocks.
///
/// # Errors
/// Why it is not taken, without the endpoint.
pub fn reach(endpoint: &str) -> Result<(), String> {
    let endpoint = endpoint.to_owned();
    let send = move || {
        let otlp = Otlp::builder().with_http().with_endpoint(endpoint).with_timeout(TIMEOUT).build();
        let otlp = otlp.map_err(|error| error.to_string())?;
        // The client blocks, so that there is nothing to wait for.
        let sent = otlp.export(Vec::new()).now_or_never();
        match sent.ok_or("the exporter does not end")? {
            Ok(()) => Ok(()),
            // What the collector has said is not in it.
            Err(OTelSdkError::InternalFailure(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    };
    // Within a runtime that client refuses to block.
    let thread = std::thread::Builder::new().name("traces-doctor".into()).spawn(send);
    let ended = thread.map_err(|error| error.to_string())?.join();
    ended.unwrap_or_else(|_| Err("the exporter panicked".into()))
}

/// Says when spans could not be sent.
#[derive(Debug)]
struct Telling {
    otlp: Otlp,
    complaints: Seldom<()>,
}

impl SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.otlp.export(batch).await;
        if let Err(error) = &sent
            && let Some(suppressed) = self.complaints.due(())
        {
            tracing::warn!(%error, spans, suppressed, "traces were not sent and are lost; see telemetry.traces.endpoint");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

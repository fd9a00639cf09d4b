//! Sending spans: a collector that is away costs spans and a log line now and then, never a frame.

use std::time::Duration;

use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
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

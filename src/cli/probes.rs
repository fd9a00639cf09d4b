//! Metrics and probes of a process that grades nothing itself.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::telemetry::health::Health;
use crate::telemetry::http::TelemetryServer;
use crate::telemetry::metrics::Metrics;

/// Served on `telemetry.listen`.
pub(super) struct Probes {
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    stop: CancellationToken,
    http: JoinHandle<std::io::Result<()>>,
}

impl Probes {
    /// Starts to serve them, before anything else may wait.
    pub(super) async fn start(config: &Config) -> anyhow::Result<Self> {
        let (metrics, health) = (Metrics::new(&config.select.sites)?, health(config));
        let server = TelemetryServer::bind(&config.telemetry.listen).await?;
        tracing::info!(address = %server.address(), "metrics and probes");
        let stop = CancellationToken::new();
        let http = tokio::spawn(server.serve(metrics.clone(), health.clone(), stop.clone()));
        Ok(Self { metrics, health, stop, http })
    }

    /// Serves them no more, once everything else has ended.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.http.await??)
    }
}

/// Facts about a process without a model to wait for.
pub(super) fn health(config: &Config) -> Health {
    let timeout = Duration::from_secs(config.telemetry.poll_timeout_seconds);
    let health = Health::new(timeout, timeout);
    health.warmed_up();
    health
}

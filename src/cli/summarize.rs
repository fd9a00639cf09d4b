//! `memebg summarize`.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::Window;
use crate::kafka::summaries::{self, SummariesParts};
use crate::telemetry::health::Health;
use crate::telemetry::http::TelemetryServer;
use crate::telemetry::metrics::Metrics;

pub(super) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::new(&config.select.sites)?;
    let timeout = Duration::from_secs(config.telemetry.poll_timeout_seconds);
    let health = Health::new(timeout, timeout);
    // There is no model to wait for.
    health.warmed_up();
    let server = TelemetryServer::bind(&config.telemetry.listen).await?;
    tracing::info!(address = %server.address(), "metrics and probes");
    let stop_http = CancellationToken::new();
    let http = tokio::spawn(server.serve(metrics.clone(), health.clone(), stop_http.clone()));
    let parts = SummariesParts {
        window: Window::new(config.select.min_hpi, config.select.max_hpi),
        kafka: config.kafka,
        settings: config.summaries,
        metrics,
        health,
        stop,
    };
    let result =
        tokio::task::spawn_blocking(|| summaries::run(parts)).await.context("the thread panicked")?;
    stop_http.cancel();
    http.await??;
    result?;
    tracing::info!("stopped");
    Ok(())
}

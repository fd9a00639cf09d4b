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

/// Beyond `kafka.drain_timeout_ms`: what librdkafka may take to answer in between.
const SPARE: Duration = Duration::from_secs(10);
/// For leaving the group, which librdkafka now and then does not get done in the middle of a rebalance.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

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
    let deadline = Duration::from_millis(config.kafka.drain_timeout_ms) + SPARE;
    let mut summarizer = summaries::start(SummariesParts {
        window: Window::new(config.select.min_hpi, config.select.max_hpi),
        clock_tolerance_seconds: config.select.clock_tolerance_seconds,
        kafka: config.kafka,
        settings: config.summaries,
        reviews: config.reviews,
        metrics,
        health,
        stop: stop.clone(),
    })?;
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(deadline).await;
    };
    let result = tokio::select! {
        ended = &mut summarizer.end => ended.context("the thread panicked")?,
        () = late => anyhow::bail!(
            "did not end within {} s after it was asked to; what is not committed is read again", deadline.as_secs()
        ),
    };
    if tokio::time::timeout(LEAVE_TIMEOUT, summarizer.left).await.is_err() {
        tracing::warn!("the group was not left in time; the partitions move on when the session has run out");
    }
    stop_http.cancel();
    http.await??;
    result?;
    tracing::info!("stopped");
    Ok(())
}

//! `memebg board`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::board::{BoardParts, BoardServer};
use crate::config::Config;
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
    let http = tokio::spawn(server.serve(metrics, health.clone(), stop_http.clone()));
    let board = BoardServer::bind(parts(&config, health.clone(), stop)).await?;
    tracing::info!(address = %board.address(), "board");
    let result = board.serve().await;
    health.draining();
    stop_http.cancel();
    http.await??;
    result?;
    tracing::info!("stopped");
    Ok(())
}

/// What the board needs of the configuration.
pub(super) fn parts(config: &Config, health: Health, stop: CancellationToken) -> BoardParts {
    BoardParts {
        settings: config.board.clone(),
        kafka: config.kafka.clone(),
        summaries_topic: config.summaries.topic.clone(),
        reviews_topic: config.reviews.topic.clone(),
        select: config.select.clone(),
        fetch: config.fetch.clone(),
        decode: config.decode.clone(),
        model: config.model.clone(),
        health,
        stop,
    }
}

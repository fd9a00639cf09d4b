//! `memebg board`.

use tokio_util::sync::CancellationToken;

use super::probes::Probes;
use crate::board::{BoardParts, BoardServer};
use crate::config::Config;
use crate::telemetry::health::Health;

pub(super) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let probes = Probes::start(&config).await?;
    let board = BoardServer::bind(parts(&config, probes.health.clone(), stop)).await?;
    tracing::info!(address = %board.address(), "board");
    let result = board.serve().await;
    probes.health.draining();
    probes.end().await?;
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

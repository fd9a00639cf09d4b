//! `memebg summarize`.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::probes::Probes;
use crate::config::Config;
use crate::domain::Window;
use crate::kafka::summaries::{self, SummariesParts};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// Beyond `kafka.drain_timeout_ms`: what librdkafka may take to answer in between.
const SPARE: Duration = Duration::from_secs(10);
/// For leaving the group, which librdkafka now and then does not get done in the middle of a rebalance.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let probes = Probes::start(&config).await?;
    let deadline = Duration::from_millis(config.kafka.drain_timeout_ms) + SPARE;
    let parts = parts(&config, probes.metrics.clone(), probes.health.clone(), stop.clone());
    let mut summarizer = summaries::start(parts)?;
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
    probes.end().await?;
    result?;
    tracing::info!("stopped");
    Ok(())
}

/// What the summarizer needs of the configuration.
pub(super) fn parts(
    config: &Config,
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
) -> SummariesParts {
    SummariesParts {
        window: Window::new(config.select.min_hpi, config.select.max_hpi),
        clock_tolerance_seconds: config.select.clock_tolerance_seconds,
        kafka: config.kafka.clone(),
        settings: config.summaries.clone(),
        reviews: config.reviews.clone(),
        metrics,
        health,
        stop,
    }
}

//! `memebg emr`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::probes::Probes;
use crate::config::{Config, ConfigError};
use crate::domain::EmbryoSummary;
use crate::emr::{Desk, Sender, Server};
use crate::fhir;
use crate::kafka::emr::{EmrParts, KafkaBundles, start};

/// Beyond `kafka.drain_timeout_ms`: what librdkafka may take to answer in between.
const SPARE: Duration = Duration::from_secs(10);
/// For leaving the group, which librdkafka now and then does not get done in the middle of a rebalance.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct EmrArgs {
    /// Print the bundle of each of these summaries, as it would be sent, and send nothing. Without Kafka, which says
    /// when a summary was published, the time of its last frame or review stands for that.
    #[arg(long, value_name = "SUMMARY.json", num_args = 1..)]
    dry_run: Vec<PathBuf>,
}

pub(super) async fn run(config: Config, args: EmrArgs, stop: CancellationToken) -> anyhow::Result<()> {
    if args.dry_run.is_empty() {
        return feed(config, stop).await;
    }
    for file in &args.dry_run {
        println!("{}", dry_run(&config, file)?);
    }
    Ok(())
}

fn dry_run(config: &Config, file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let summary: EmbryoSummary =
        serde_json::from_slice(&text).with_context(|| format!("{} is not a summary", file.display()))?;
    let captured_at = summary.last_frame.captured_at;
    let published_at = summary.review.as_ref().map_or(captured_at, |it| it.reviewed_at.max(captured_at));
    Ok(serde_json::to_string_pretty(&fhir::bundle(&summary, published_at, config.emr.version))?)
}

async fn feed(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = config.emr.clone();
    let server = Server::new(&settings).map_err(ConfigError::Invalid)?;
    if server.is_none() && settings.topic.is_empty() {
        let nowhere = "neither emr.server nor emr.topic is set: summaries would go nowhere";
        return Err(ConfigError::Invalid(nowhere.into()).into());
    }
    let probes = Probes::start(&config).await?;
    let (metrics, health) = (probes.metrics.clone(), probes.health.clone());
    let deadline = Duration::from_millis(config.kafka.drain_timeout_ms) + SPARE;
    let desk = Desk::new(metrics.clone());
    let sender = Sender {
        desk: desk.clone(),
        server,
        sink: Arc::new(KafkaBundles::new(&config.kafka, &settings)?),
        settings: settings.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
    };
    let mut reader = start(EmrParts {
        kafka: config.kafka,
        settings,
        summaries_topic: config.summaries.topic,
        desk,
        metrics,
        health: health.clone(),
        stop: stop.clone(),
    })?;
    // Only when the thread has ended: until then what is under way may end.
    let stop_sending = CancellationToken::new();
    let mut sending = tokio::spawn(sender.run(stop_sending.clone()));
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(deadline).await;
    };
    tokio::select! {
        ended = &mut reader.end => ended.context("the thread panicked")??,
        ended = &mut sending => {
            // What is not committed is read again.
            ended.context("the sender panicked")??;
            anyhow::bail!("the sender ended before it was asked to");
        }
        () = late => anyhow::bail!(
            "did not end within {} s after it was asked to; what is not committed is sent again", deadline.as_secs()
        ),
    }
    stop_sending.cancel();
    sending.await??;
    if tokio::time::timeout(LEAVE_TIMEOUT, reader.left).await.is_err() {
        tracing::warn!("the group was not left in time; the partitions move on when the session has run out");
    }
    probes.end().await?;
    tracing::info!("stopped");
    Ok(())
}

//! The part of the demo that is for people: summaries of each embryo, and the board.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::board::BoardServer;
use crate::cli::probes::health;
use crate::cli::{board, summarize};
use crate::config::Config;
use crate::kafka::summaries::{self, Summarizer};
use crate::telemetry::http::TelemetryServer;
use crate::telemetry::metrics::Metrics;

/// For leaving the group, so that its consumer is gone before the broker.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What runs beside the service.
pub(super) struct People {
    /// Where the board is.
    pub(super) board: SocketAddr,
    /// Where the metrics of the summaries are: those of another process, outside the demo.
    pub(super) metrics: SocketAddr,
    stop: CancellationToken,
    tasks: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
}

impl People {
    /// Starts both, on the topics of `config`.
    pub(super) async fn start(config: &Config) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        // Each has its own: the lag of one is not the lag of the other.
        let server = BoardServer::bind(board::parts(config, health(config), stop.clone())).await?;
        let board = server.address();
        let (metrics, summing) = (Metrics::new(&config.select.sites)?, health(config));
        let telemetry = TelemetryServer::bind("127.0.0.1:0").await?;
        let metrics_at = telemetry.address();
        let serving = telemetry.serve(metrics.clone(), summing.clone(), stop.clone());
        let summarizer = summaries::start(summarize::parts(config, metrics, summing, stop.clone()))?;
        let tasks = vec![
            ("board", tokio::spawn(server.serve())),
            ("summaries", tokio::spawn(summarised(summarizer))),
            ("metrics of the summaries", tokio::spawn(async move { Ok(serving.await?) })),
        ];
        Ok(Self { board, metrics: metrics_at, stop, tasks })
    }

    /// Ends when one of them does, which none does by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        let waiting = self.tasks.iter_mut().map(|(name, task)| Box::pin(async move { (*name, task.await) }));
        let ((name, end), _, _) = futures_util::future::select_all(waiting).await;
        end?.with_context(|| format!("the {name} ended"))?;
        anyhow::bail!("the {name} ended by itself")
    }

    /// Ends both.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        for (name, task) in self.tasks {
            task.await?.with_context(|| format!("the {name} ended badly"))?;
        }
        Ok(())
    }
}

async fn summarised(summarizer: Summarizer) -> anyhow::Result<()> {
    let ended = summarizer.end.await.context("the thread panicked")?;
    // Nothing depends on it.
    drop(tokio::time::timeout(LEAVE_TIMEOUT, summarizer.left).await);
    ended
}

//! Start order, supervision of the parts, and the end.
//!
//! Probes first, so that a slow model load can be watched; then the model, warmed; then the
//! connections. A part that ends by itself ends the service: the process exits rather than limp, and
//! what was not settled is read again after the restart.

mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::GraderIdentity;
use crate::kafka::sink::KafkaSink;
use crate::kafka::source::{self, Source, SourceEnd, SourceParts};
use crate::kafka::{Delivery, KafkaSettings};
use crate::model::{self, ModelSettings};
use crate::pipeline::grade::Grader;
use crate::pipeline::publish::Destination;
use crate::pipeline::{self, Parts, Pipeline, Shadow, Task};
use crate::telemetry::health::Health;
use crate::telemetry::http::TelemetryServer;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use reload::{Reload, name_model};

/// How long the parts may take to end once the frames are drained.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How long leaving the group may take. Nothing depends on it but how soon the partitions move on.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A service that runs.
pub struct Service {
    /// Counters.
    pub metrics: Metrics,
    /// Facts behind the probes.
    pub health: Health,
    /// Where `/metrics`, `/livez` and `/readyz` are.
    pub address: SocketAddr,
    /// Model and device.
    pub identity: GraderIdentity,
    drain_timeout: Duration,
    /// Asks the source to drain.
    stop_source: CancellationToken,
    /// Cancelled by whoever wants the service to end.
    stop: CancellationToken,
    /// Cancelled when a frame can no longer be finished.
    broken: CancellationToken,
    stop_http: CancellationToken,
    http: JoinHandle<std::io::Result<()>>,
    source: Source,
    tasks: Vec<Task>,
    reload: JoinHandle<()>,
    traces: Traces,
}

impl Service {
    /// Starts every part. Returns once the graders are warm and the consumer polls.
    ///
    /// # Errors
    /// When a part cannot be started; the message says which and what to do.
    pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Self> {
        let metrics = Metrics::new(&config.select.sites)?;
        metrics.set_device_policy(config.model.device.as_str());
        let hangup = reload::hangup()?;
        let traces = Traces::start(&config.telemetry.traces)?;
        let health = Health::new(
            Duration::from_secs(config.telemetry.poll_timeout_seconds),
            Duration::from_secs(config.telemetry.inference_timeout_seconds),
        );
        let server = TelemetryServer::bind(&config.telemetry.listen).await?;
        let (address, stop_http) = (server.address(), CancellationToken::new());
        let http = tokio::spawn(server.serve(metrics.clone(), health.clone(), stop_http.clone()));
        tracing::info!(%address, "metrics and probes");

        let settings = config.model.clone();
        let load = move || model::load_graders(&settings);
        let graders = tokio::task::spawn_blocking(load).await??;
        health.warmed_up();
        let identity = graders.first().context("no grader was loaded")?.identity().clone();
        name_model(&metrics, &identity);
        let model = &identity.model;
        tracing::info!(
            model = model.name,
            version = model.version,
            digest = model.digest,
            untrained = model.untrained,
            device = identity.device,
            graders = graders.len(),
            "graders are warm"
        );

        let shadow = shadow(&config, &metrics).await?;
        let broken = CancellationToken::new();
        let destination = match config.kafka.delivery {
            Delivery::AtLeastOnce => Destination::Sink(Arc::new(KafkaSink::new(&config.kafka)?)),
            Delivery::ExactlyOnce => Destination::Outbox,
        };
        let Pipeline { intake, ledger, outbox, replace, tasks } = pipeline::start(Parts {
            settings: config.pipeline(),
            max_value_bytes: config.kafka.max_value_bytes,
            graders,
            shadow,
            destination,
            metrics: metrics.clone(),
            traces: traces.clone(),
            health: health.clone(),
            broken: broken.clone(),
        })?;
        let stop_source = CancellationToken::new();
        let digest = identity.model.digest.clone();
        let reload = Reload::new(config.model, replace, metrics.clone(), hangup, digest);
        let reload = tokio::spawn(reload.run(stop_source.clone()));
        let drain_timeout = Duration::from_millis(config.kafka.drain_timeout_ms);
        let source = source::start(SourceParts {
            settings: config.kafka,
            intake,
            ledger,
            outbox,
            metrics: metrics.clone(),
            health: health.clone(),
            stop: stop_source.clone(),
        })?;
        Ok(Self {
            metrics,
            health,
            address,
            identity,
            drain_timeout,
            stop_source,
            stop,
            broken,
            stop_http,
            http,
            source,
            tasks,
            reload,
            traces,
        })
    }

    /// [`Self::start`], unless `interrupt` is cancelled meanwhile and it does not come to an end within the
    /// time for draining: fetching ONNX Runtime may take minutes. A service that did start is there to be run to its end: the
    /// process must not exit while a model warms up, which would tear the runtime down under it.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn start_unless(
        interrupt: &CancellationToken,
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let patience = Duration::from_millis(config.kafka.drain_timeout_ms);
        let mut starting = std::pin::pin!(Self::start(config, stop));
        tokio::select! {
            service = &mut starting => return service.map(Some),
            () = interrupt.cancelled() => {}
        }
        tokio::time::timeout(patience, starting).await.ok().transpose()
    }

    /// Runs until it is asked to stop or a part fails, drains, and ends.
    ///
    /// # Errors
    /// What made it end, when nobody asked for it.
    pub async fn run(mut self) -> anyhow::Result<SourceEnd> {
        let stages: Vec<_> = self.tasks.iter().map(|(name, task)| (*name, task.abort_handle())).collect();
        let mut tasks: FuturesUnordered<_> =
            self.tasks.drain(..).map(|(name, task)| async move { (name, task.await) }).collect();
        // What a part says of its own end explains more than what the others notice of it.
        let (mut causes, mut symptoms) = (Vec::new(), Vec::new());
        let mut source_end = None;
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.broken.cancelled() => symptoms.push(anyhow!("a frame was dropped unfinished")),
            end = &mut self.source.end => {
                source_end = Some(end);
                symptoms.push(anyhow!("the consumer ended by itself"));
            }
            Some((name, end)) = tasks.next() => match outcome(name, end) {
                Err(cause) => causes.push(cause),
                Ok(()) => symptoms.push(anyhow!("stage {name} ended by itself")),
            },
        }
        for failure in causes.iter().chain(&symptoms) {
            self.health.fatal(format!("{failure:#}"));
            tracing::error!(error = format!("{failure:#}"), "stopping");
        }
        self.health.draining();
        self.stop_source.cancel();
        let failed = !causes.is_empty() || !symptoms.is_empty();
        // With Kafka gone the last commit and the goodbye to the group block for the session time-out.
        // After a failure that is not waited for: the frames are read again anyway.
        let deadline = if failed { END_TIMEOUT } else { self.drain_timeout + END_TIMEOUT };
        let end = match source_end {
            Some(end) => Ok(end),
            None => tokio::time::timeout(deadline, &mut self.source.end).await,
        };
        let end = match end {
            Ok(Ok(Ok(end))) => Some(end),
            Ok(Ok(Err(error))) => {
                causes.push(error.into());
                None
            }
            Ok(Err(_)) => {
                causes.push(anyhow!("the poll thread panicked"));
                None
            }
            Err(_) => {
                symptoms.push(anyhow!("the consumer did not end within {deadline:?}"));
                None
            }
        };
        // The source has dropped the door, so every stage runs dry and ends. What did not finish within
        // the drain deadline is not worked on any more, but a grader always finishes its batch: the
        // process must not exit while a model runs.
        let given_up = end.is_none_or(|end| end.unfinished_frames > 0);
        if given_up {
            for (_, stage) in stages.iter().filter(|(name, _)| !pipeline::THREADS.contains(name)) {
                stage.abort();
            }
        }
        let run_dry = async {
            while let Some((name, end)) = tasks.next().await {
                causes.extend(outcome(name, end).err());
            }
        };
        if tokio::time::timeout(END_TIMEOUT, run_dry).await.is_err() && !given_up {
            symptoms.push(anyhow!("a stage did not end within {END_TIMEOUT:?}"));
        }
        // A model that is being warmed must not have the runtime torn down under it.
        if tokio::time::timeout(END_TIMEOUT, self.reload).await.is_err() {
            tracing::warn!("a bundle was still being loaded");
        }
        if tokio::time::timeout(LEAVE_TIMEOUT, self.source.left).await.is_err() {
            tracing::warn!("the group was not left; its partitions wait until the session times out");
        }
        let traces = self.traces;
        if let Err(error) = tokio::task::spawn_blocking(move || traces.flush()).await {
            tracing::warn!(%error, "the last traces were not sent");
        }
        self.stop_http.cancel();
        if let Err(error) = self.http.await.map_err(anyhow::Error::from).and_then(|end| Ok(end?)) {
            tracing::warn!(%error, "metrics and probes ended badly");
        }
        match (causes.into_iter().chain(symptoms).next(), end) {
            (Some(failure), _) => Err(failure),
            (None, Some(end)) => Ok(end),
            (None, None) => Err(anyhow!("the consumer ended without saying how")),
        }
    }
}

/// Loads the shadow bundle, where there is one. One that cannot be used stops the start, as any wrong option does.
async fn shadow(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Shadow>> {
    let shadow = &config.shadow;
    if shadow.bundle.as_os_str().is_empty() {
        return Ok(None);
    }
    let settings = ModelSettings { bundle: shadow.bundle.clone(), ..config.model.clone() };
    let loaded = tokio::task::spawn_blocking(move || model::load_examiner(&settings)).await?;
    let grader: Box<dyn Grader> = Box::new(loaded.context("shadow.bundle")?);
    let model = &grader.identity().model;
    metrics.set_shadow(&model.name, &model.version, &model.digest);
    tracing::info!(
        model = model.name,
        version = model.version,
        digest = model.digest,
        topic = shadow.topic,
        "shadow bundle is warm"
    );
    // Outside any transaction: what the shadow says is for looking at, and must not hold up a grade.
    let kafka = KafkaSettings { grades_topic: shadow.topic.clone(), ..config.kafka.clone() };
    let sink = Arc::new(KafkaSink::new(&kafka)?);
    Ok(Some(Shadow { grader, sink, max_waiting_frames: shadow.max_waiting_frames }))
}

fn outcome(
    name: &'static str,
    end: Result<anyhow::Result<()>, tokio::task::JoinError>,
) -> anyhow::Result<()> {
    match end {
        Err(ended) if ended.is_cancelled() => Ok(()),
        end => end.with_context(|| format!("stage {name} panicked"))?,
    }
    .with_context(|| format!("stage {name} failed"))
}

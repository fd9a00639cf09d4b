//! One summary after the other, each until it is where it should be.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::EmrSettings;
use super::desk::{Delivered, Desk};
use super::queue::Job;
use super::server::{Answer, Server};
use crate::domain::{EmbryoSummary, Rejection, RejectionCode, SUMMARY_EVENT_TYPE};
use crate::fhir;
use crate::pipeline::message::RawMessage;
use crate::pipeline::publish::SinkError;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::seldom::Seldom;

/// How often a conflict with another writer is tried again before the bundle is taken to be at fault.
const MAX_CONFLICTS: u32 = 10;
/// After so long without a poll this process may have been asleep, and others may have its partitions.
const STALE: Duration = Duration::from_secs(5);
/// How soon it is looked again whether it has polled.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where bundles and dead letters go in Kafka. Both resolve only when the broker has confirmed.
pub trait BundleSink: Send + Sync + 'static {
    /// Publishes the bundle of an embryo; `summary_version` is a part of its id.
    fn publish<'a>(
        &'a self,
        embryo_id: &'a str,
        summary_version: u64,
        bundle: &'a [u8],
    ) -> BoxFuture<'a, Result<(), SinkError>>;

    /// Publishes a dead letter: the summary and why it was refused.
    fn reject<'a>(
        &'a self,
        raw: &'a RawMessage,
        rejection: &'a Rejection,
    ) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// What the tasks that send are built from.
pub struct Sender {
    /// What is to be sent.
    pub desk: Desk,
    /// The FHIR server, if bundles go to one.
    pub server: Option<Server>,
    /// Kafka.
    pub sink: Arc<dyn BundleSink>,
    /// Options.
    pub settings: EmrSettings,
    /// Counters.
    pub metrics: Metrics,
    /// Facts for the probes.
    pub health: Health,
}

/// A summary, made ready.
struct Prepared {
    embryo_id: String,
    version: u64,
    bundle: Vec<u8>,
}

impl Sender {
    /// Sends with `emr.max_concurrent` tasks until `stop` is cancelled.
    ///
    /// # Errors
    /// A broker that confirms no bundle or no dead letter.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SinkError> {
        let tasks = self.settings.max_concurrent;
        let (sender, log) = (Arc::new(self), Arc::new(Seldom::default()));
        let tasks = (0..tasks).map(|_| Arc::clone(&sender).work(Arc::clone(&log)));
        tokio::select! {
            result = futures_util::future::try_join_all(tasks.map(tokio::spawn).map(joined)) => result.map(|_| ()),
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn work(self: Arc<Self>, log: Arc<Seldom<()>>) -> Result<(), SinkError> {
        loop {
            let job = self.desk.next().await;
            self.deliver(job, &log).await?;
        }
    }

    async fn deliver(&self, mut job: Job, log: &Seldom<()>) -> Result<(), SinkError> {
        let (mut failures, mut conflicts) = (0, 0);
        loop {
            let prepared = match self.prepare(job.message()) {
                Ok(prepared) => prepared,
                Err(rejection) => return self.refuse(job, &rejection).await,
            };
            let Some(answer) = self.attempt(&prepared, &job).await else {
                self.desk.give_back(job);
                return Ok(());
            };
            let (why, after) = match answer {
                Answer::Taken => return self.taken(job, &prepared).await,
                Answer::Refused(why) => {
                    return self.refuse(job, &Rejection::new(RejectionCode::EmrRefused, why)).await;
                }
                Answer::Conflict(why) if conflicts >= MAX_CONFLICTS => {
                    return self.refuse(job, &Rejection::new(RejectionCode::EmrRefused, why)).await;
                }
                Answer::Conflict(why) => {
                    conflicts += 1;
                    (why, None)
                }
                Answer::Later { why, after } => (why, after),
            };
            let wait = after.unwrap_or_default().max(self.backoff(failures));
            failures += 1;
            self.metrics.emr_retried();
            if let Some(suppressed) = log.due(()) {
                let wait_seconds = wait.as_secs_f64();
                tracing::warn!(wait_seconds, suppressed, "a summary is not sent yet, trying again: {why}");
            }
            self.health.waits(why);
            tokio::select! {
                biased;
                () = job.hold.cancelled() => {
                    self.desk.give_back(job);
                    return Ok(());
                }
                () = sleep(wait) => self.desk.renew(&mut job),
            }
        }
    }

    /// Reads the summary and makes its bundle.
    fn prepare(&self, message: &RawMessage) -> Result<Prepared, Rejection> {
        let view = message.view();
        if view.header("ce_type").is_some_and(|it| it != SUMMARY_EVENT_TYPE) {
            let why = format!("its type is not {SUMMARY_EVENT_TYPE}");
            return Err(Rejection::new(RejectionCode::UnknownEventType, why));
        }
        let value = view.value.unwrap_or_default();
        let summary: EmbryoSummary =
            serde_json::from_slice(value).map_err(|error| Rejection::unreadable("a summary", &error))?;
        if view.key != Some(summary.embryo_id.as_bytes()) {
            return Err(Rejection::new(RejectionCode::SchemaInvalid, "its key is not its embryo_id"));
        }
        let published_at = view
            .timestamp_ms
            .and_then(chrono::DateTime::from_timestamp_millis)
            .unwrap_or(summary.last_frame.captured_at);
        let bundle = fhir::bundle(&summary, published_at, self.settings.version);
        let bundle = serde_json::to_vec(&bundle).map_err(|error| {
            Rejection::new(RejectionCode::SchemaInvalid, format!("cannot be written as FHIR: {error}"))
        })?;
        Ok(Prepared { embryo_id: summary.embryo_id, version: summary.version, bundle })
    }

    /// Nothing when it was broken off, or not begun.
    async fn attempt(&self, prepared: &Prepared, job: &Job) -> Option<Answer> {
        // A process that was frozen for longer than its session lasts must not write an old version over the new one
        // of its successor: first the group is to say whether the partition is still here.
        while self.desk.since_poll() > STALE && !job.hold.is_cancelled() {
            sleep(LOOK_AGAIN).await;
        }
        if job.hold.is_cancelled() {
            return None;
        }
        let Some(server) = &self.server else { return Some(Answer::Taken) };
        tokio::select! {
            biased;
            () = job.abandon.cancelled() => None,
            answer = server.post(prepared.bundle.clone(), &prepared.embryo_id) => Some(answer),
        }
    }

    async fn taken(&self, job: Job, prepared: &Prepared) -> Result<(), SinkError> {
        if !self.settings.topic.is_empty() {
            match self.sink.publish(&prepared.embryo_id, prepared.version, &prepared.bundle).await {
                Ok(()) => {}
                Err(SinkError::TooLarge(why)) => {
                    return self.refuse(job, &Rejection::new(RejectionCode::EmrRefused, why)).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.health.goes_on();
        self.desk.finish(job, Delivered::Sent);
        Ok(())
    }

    async fn refuse(&self, job: Job, rejection: &Rejection) -> Result<(), SinkError> {
        let position = job.message().position;
        tracing::warn!(
            partition = position.partition, offset = position.offset, %rejection,
            "a summary becomes a dead letter"
        );
        self.sink.reject(job.message(), rejection).await?;
        self.health.goes_on();
        self.desk.finish(job, Delivered::Refused);
        Ok(())
    }

    /// Doubles, give or take a half, so that many that failed together do not come again together.
    fn backoff(&self, failures: u32) -> Duration {
        let most = Duration::from_millis(self.settings.max_backoff_ms);
        let least = Duration::from_millis(self.settings.backoff_ms);
        let wait = least.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(most);
        let per_mille = RandomState::new().hash_one(failures) % 1_000;
        wait.mul_f64(0.5 + f64::from(u32::try_from(per_mille).unwrap_or_default()) / 1_000.0)
    }
}

/// A task that panicked has not sent what it had in hand.
async fn joined(task: tokio::task::JoinHandle<Result<(), SinkError>>) -> Result<(), SinkError> {
    task.await
        .unwrap_or_else(|error| Err(SinkError::NotConfirmed(format!("a task that sends ended: {error}"))))
}

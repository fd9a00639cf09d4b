//! A new bundle for a service that runs: loaded and warmed beside the old one, which goes on when the new one
//! cannot be used.

use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::GraderIdentity;
use crate::model::{self, ModelSettings};
use crate::pipeline::Replacement;
use crate::telemetry::metrics::{Metrics, ReloadResult};

/// What reloads the bundle, on SIGHUP and, where `model.watch_seconds` asks for it, when the folder has another manifest.
pub(super) struct Reload {
    settings: ModelSettings,
    replace: mpsc::Sender<Replacement>,
    metrics: Metrics,
    hangup: Signal,
    /// Digest of the bundle in use.
    in_use: String,
    /// Digest of the last one that could not be used: the folder is not tried again until it changes.
    refused: Option<String>,
}

/// SIGHUP, which would end the process before somebody listens to it.
///
/// # Errors
/// When the signal cannot be handled.
pub(super) fn hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Names the bundle and the device in use.
pub(super) fn name_model(metrics: &Metrics, identity: &GraderIdentity) {
    let model = &identity.model;
    metrics.set_model(&model.name, &model.version, &model.digest);
    let provider = identity.device.split(':').next().unwrap_or_default();
    metrics.set_device(provider, &identity.device);
}

impl Reload {
    pub(super) fn new(
        settings: ModelSettings,
        replace: mpsc::Sender<Replacement>,
        metrics: Metrics,
        hangup: Signal,
        in_use: String,
    ) -> Self {
        Self { settings, replace, metrics, hangup, in_use, refused: None }
    }

    /// Waits for reasons to reload until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let watch_seconds = self.settings.watch_seconds;
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = self.hangup.recv() => asked.is_some(),
                () = tokio::time::sleep(Duration::from_secs(watch_seconds)), if watch_seconds > 0 => false,
            };
            self.look(asked).await;
        }
    }

    /// Reloads when the folder holds another bundle. A person who asked is told when it does not.
    async fn look(&mut self, asked: bool) {
        let dir = self.settings.bundle.clone();
        let found = match tokio::task::spawn_blocking(move || model::bundle::digest_of(&dir)).await {
            Ok(Ok(digest)) => digest,
            // A folder that is just being replaced is looked at again.
            Ok(Err(error)) if !asked => return tracing::debug!(%error, "no bundle to reload"),
            Ok(Err(error)) => return self.refuse(None, &error.into()),
            Err(error) => return self.refuse(None, &error.into()),
        };
        if found == self.in_use {
            if asked {
                tracing::info!(digest = found, "bundle is the one in use; nothing to reload");
            }
            return;
        }
        if !asked && self.refused.as_ref() == Some(&found) {
            return;
        }
        match self.switch().await {
            Ok(identity) => {
                self.metrics.model_reload(ReloadResult::Switched);
                name_model(&self.metrics, &identity);
                let model = identity.model;
                tracing::info!(
                    model = model.name,
                    version = model.version,
                    digest = model.digest,
                    replaced = self.in_use,
                    "bundle reloaded"
                );
                self.in_use = model.digest;
                self.refused = None;
            }
            Err(error) => self.refuse(Some(found), &error),
        }
    }

    fn refuse(&mut self, digest: Option<String>, error: &anyhow::Error) {
        self.metrics.model_reload(ReloadResult::Refused);
        let (error, in_use) = (format!("{error:#}"), &self.in_use);
        tracing::error!(error, digest, in_use, "bundle was not reloaded; the one in use goes on");
        self.refused = digest;
    }

    /// Loads and warms the bundle, then lets it take over.
    async fn switch(&self) -> anyhow::Result<GraderIdentity> {
        let settings = self.settings.clone();
        let graders = tokio::task::spawn_blocking(move || model::load_graders(&settings)).await??;
        let identity = graders.first().map(|grader| grader.identity().clone());
        let (switched, answer) = oneshot::channel();
        let ending = || anyhow!("the service is ending");
        self.replace.send(Replacement { graders, switched }).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?.map_err(|reason| anyhow!(reason))?;
        identity.ok_or_else(|| anyhow!("no grader was loaded"))
    }
}

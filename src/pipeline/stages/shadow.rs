//! A second bundle that sees the frames of the first, off their route.
//!
//! Its grades go to a topic of their own and into metrics, never into a grade event. It may be slow or fail: then
//! frames are left out and counted, and nothing waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::graders::event;
use super::milliseconds;
use crate::domain::{Frame, GradeEvent, GradeStatus, Head, Heads, Picture, Timings};
use crate::pipeline::grade::Grader;
use crate::pipeline::message::RawMessage;
use crate::pipeline::publish::{GradeSink, SinkError, traceparent_of};
use crate::telemetry::metrics::{Metrics, ShadowResult};
use crate::telemetry::seldom::Seldom;

/// How long the shadow waits for the broker. Shorter than what the end of the service may take, whatever happens to the
/// topic.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Which bundle looks on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSettings {
    /// Folder of the shadow bundle; empty for none.
    pub bundle: PathBuf,
    /// Topic of its grade events.
    pub topic: String,
    /// Frames that may wait for it; any more are left out.
    pub max_waiting_frames: usize,
}

/// A shadow bundle.
pub struct Shadow {
    /// Warm.
    pub grader: Box<dyn Grader>,
    /// Where its grades go.
    pub sink: Arc<dyn GradeSink>,
    /// Frames that may wait for it; any more are left out.
    pub max_waiting_frames: usize,
}

/// A frame as the shadow sees it.
pub(super) struct Copied {
    frame: Frame,
    picture: Picture,
    traceparent: Option<String>,
    /// The grades of the bundle in use, when it gave any.
    grades: Option<Heads>,
    since: Instant,
}

impl Copied {
    pub(super) fn new(raw: &RawMessage, frame: &Frame, picture: Picture, grades: Option<Heads>) -> Self {
        let traceparent = traceparent_of(raw).map(str::to_owned);
        Self { frame: frame.clone(), picture, traceparent, grades, since: Instant::now() }
    }
}

/// The door of the shadow.
#[derive(Clone)]
pub(in crate::pipeline) struct ShadowQueue {
    frames: mpsc::Sender<Copied>,
    metrics: Metrics,
}

impl ShadowQueue {
    /// Hands over a frame, which is only copied when there is room.
    pub(super) fn offer(&self, copied: impl FnOnce() -> Copied) {
        match self.frames.try_reserve() {
            Ok(place) => place.send(copied()),
            Err(_) => self.metrics.shadow_frame(ShadowResult::Dropped),
        }
    }
}

/// Starts the shadow's thread. It ends when every [`ShadowQueue`] is gone; what waits then is left out.
pub(in crate::pipeline) fn shadow_thread(
    shadow: Shadow,
    metrics: Metrics,
) -> anyhow::Result<(ShadowQueue, tokio::task::JoinHandle<anyhow::Result<()>>)> {
    let Shadow { mut grader, sink, max_waiting_frames } = shadow;
    let (frames, mut waiting) = mpsc::channel(max_waiting_frames);
    let (queue, runtime) = (ShadowQueue { frames, metrics: metrics.clone() }, Handle::current());
    let (ended, end) = tokio::sync::oneshot::channel();
    let run = move || {
        let most = grader.max_batch_frames();
        let (mut batch, complaints) = (Vec::with_capacity(most), Seldom::default());
        while waiting.blocking_recv_many(&mut batch, most) > 0 {
            let frames = std::mem::take(&mut batch);
            let count = frames.len();
            // The service is ending, and must not wait.
            if waiting.is_closed() {
                (0..count).for_each(|_| metrics.shadow_frame(ShadowResult::Dropped));
                continue;
            }
            // Whatever happens to the shadow, the service goes on.
            let shaded = catch_unwind(AssertUnwindSafe(|| {
                shade(grader.as_mut(), frames, sink.as_ref(), &runtime, &metrics)
            }));
            let (failed, error) = match shaded {
                Ok(Ok(None)) => continue,
                // Those that could not be published have been counted.
                Ok(Ok(Some(error))) => (0, error.to_string()),
                Ok(Err(error)) => (count, format!("{error:#}")),
                Err(_) => (count, "it panicked".to_owned()),
            };
            (0..failed).for_each(|_| metrics.shadow_frame(ShadowResult::Failed));
            if let Some(suppressed) = complaints.due(()) {
                tracing::warn!(error, suppressed, "shadow bundle failed");
            }
        }
        ended.send(()).ok();
    };
    std::thread::Builder::new()
        .name("shadow".into())
        .spawn(run)
        .context("cannot start the shadow's thread")?;
    let task = tokio::spawn(async move { end.await.context("the shadow's thread panicked") });
    Ok((queue, task))
}

/// Grades a batch, publishes and counts it. Gives the first error of publishing, if there was one.
///
/// # Errors
/// When the model cannot run.
fn shade(
    grader: &mut dyn Grader,
    frames: Vec<Copied>,
    sink: &dyn GradeSink,
    runtime: &Handle,
    metrics: &Metrics,
) -> anyhow::Result<Option<SinkError>> {
    let identity = grader.identity().clone();
    let started = Instant::now();
    let pictures: Vec<&Picture> = frames.iter().map(|frame| &frame.picture).collect();
    let graded = grader.grade(&pictures)?;
    anyhow::ensure!(
        graded.opinions.len() == frames.len(),
        "the grader answered {} frames",
        graded.opinions.len()
    );
    let inference_ms = milliseconds(started.elapsed());
    let spoken: Vec<(GradeEvent, Copied)> = graded
        .opinions
        .into_iter()
        .zip(frames)
        .filter_map(|(opinion, copied)| {
            let queue_ms = milliseconds(started.saturating_duration_since(copied.since));
            let timings = Timings { decode_ms: 0.0, queue_ms, inference_ms };
            match opinion {
                Ok(opinion) => Some((event(&copied.frame, &opinion, &identity, timings), copied)),
                Err(_) => {
                    metrics.shadow_frame(ShadowResult::Failed);
                    None
                }
            }
        })
        .collect();
    let published = spoken.iter().map(|(event, copied)| sink.publish(event, copied.traceparent.as_deref()));
    let late = || SinkError::NotConfirmed(format!("not within {PUBLISH_TIMEOUT:?}"));
    let published = published
        .map(|published| async { timeout(PUBLISH_TIMEOUT, published).await.unwrap_or_else(|_| Err(late())) });
    let published = runtime.block_on(join_all(published));
    let mut failure = None;
    for ((event, copied), published) in spoken.iter().zip(published) {
        match published {
            Ok(()) => count(event, copied.grades.as_ref(), metrics),
            Err(error) => {
                metrics.shadow_frame(ShadowResult::Failed);
                failure.get_or_insert(error);
            }
        }
    }
    Ok(failure)
}

/// Counts what the shadow said, and beside a grade of the bundle in use, whether it is the same.
fn count(event: &GradeEvent, grades: Option<&Heads>, metrics: &Metrics) {
    let graded = event.status == GradeStatus::Graded;
    metrics.shadow_frame(if graded { ShadowResult::Graded } else { ShadowResult::Abstained });
    let (Some(shadow), Some(used), true) = (&event.heads, grades, graded) else { return };
    metrics.shadow_agreement(Head::Exp, shadow.exp.grade == used.exp.grade);
    for (head, shadow, used) in [(Head::Icm, &shadow.icm, &used.icm), (Head::Te, &shadow.te, &used.te)] {
        if let (Some(shadow), Some(used)) = (shadow, used) {
            metrics.shadow_agreement(head, shadow.grade == used.grade);
        }
    }
}

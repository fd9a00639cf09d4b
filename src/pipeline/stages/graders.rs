//! The grader threads: the first ones, and those that replace them when the bundle is reloaded.
//!
//! A replacement is warm before it comes here. Its graders ask for batches beside the old ones; from the first time
//! one of them asks, the batch stage gives the old ones nothing more, and each ends after the batch it has. So no batch
//! is graded by two models, no frame waits for a model to load, and nothing is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::shadow::{Copied, ShadowQueue};
use super::{Prepared, Spoke, milliseconds};
use crate::domain::{Frame, GradeEvent, GradeStatus, GraderIdentity, Head, Heads, Timings};
use crate::pipeline::PIPELINE_VERSION;
use crate::pipeline::drift::{Drift, DriftSettings};
use crate::pipeline::grade::{self, BatchRequest, Grader, Judged, Opinion};
use crate::pipeline::publish::{Spoken, Verdict};
use crate::pipeline::receipt::Envelope;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// Warm graders of another bundle, to take over from those that run.
pub struct Replacement {
    /// At least one, all of one model.
    pub graders: Vec<Box<dyn Grader>>,
    /// Told once they have started, or why they cannot.
    pub switched: oneshot::Sender<Result<(), String>>,
}

/// What a grader thread is connected to.
#[derive(Clone)]
pub(in crate::pipeline) struct GraderLinks {
    pub(in crate::pipeline) requests: mpsc::Sender<BatchRequest<Envelope<Prepared>>>,
    pub(in crate::pipeline) spoke: Spoke,
    pub(in crate::pipeline) shadow: Option<ShadowQueue>,
    pub(in crate::pipeline) drift: DriftSettings,
    pub(in crate::pipeline) metrics: Metrics,
    pub(in crate::pipeline) health: Health,
    pub(in crate::pipeline) broken: CancellationToken,
}

/// Keeps the graders: starts `first`, and what replaces them. Ends once every grader has.
///
/// # Errors
/// When a grader failed; by then `broken` has been cancelled.
pub(in crate::pipeline) async fn graders_stage(
    first: Vec<Box<dyn Grader>>,
    mut replacements: mpsc::Receiver<Replacement>,
    identity: watch::Sender<Arc<GraderIdentity>>,
    links: GraderLinks,
) -> anyhow::Result<()> {
    let side_px = first.first().context("no grader was loaded")?.input_side_px();
    let mut running = FuturesUnordered::new();
    let mut generation = 0;
    running.extend(start(first, generation, &links)?);
    let mut failure = None;
    let mut open = true;
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "a grader failed");
                    // Its frames may have been those of a partition that is gone, which nobody else would notice.
                    links.broken.cancel();
                    failure.get_or_insert(error);
                }
                None => break,
            },
            replacement = replacements.recv(), if open => {
                let Some(Replacement { graders, switched }) = replacement else {
                    open = false;
                    continue;
                };
                let in_use = Arc::clone(&identity.borrow());
                let result = fits(&graders, &in_use, side_px).and_then(|new| {
                    let started = start(graders, generation + 1, &links).map_err(|error| format!("{error:#}"))?;
                    generation += 1;
                    running.extend(started);
                    identity.send_replace(Arc::new(new));
                    Ok(())
                });
                // Whoever asked may be gone.
                drop(switched.send(result));
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What the events will say of these graders.
///
/// # Errors
/// Why they cannot take over from those in use.
fn fits(
    graders: &[Box<dyn Grader>],
    in_use: &GraderIdentity,
    side_px: usize,
) -> Result<GraderIdentity, String> {
    let first = graders.first().ok_or("there is no grader")?;
    let new = first.identity();
    if first.input_side_px() != side_px {
        let wanted = first.input_side_px();
        return Err(format!(
            "it takes pictures of {wanted} px, the one in use of {side_px} px; restart the service"
        ));
    }
    // With both in its memory a GPU may be full, and `auto` would go on with the CPU.
    if new.device != in_use.device {
        return Err(format!(
            "it runs on {}, the one in use on {}; restart the service",
            new.device, in_use.device
        ));
    }
    Ok(new.clone())
}

type Ended = futures_util::future::BoxFuture<'static, anyhow::Result<()>>;

/// Starts a thread for each grader of a model.
fn start(graders: Vec<Box<dyn Grader>>, generation: u64, links: &GraderLinks) -> anyhow::Result<Vec<Ended>> {
    links.metrics.reset_drift();
    let population = graders.first().and_then(|grader| grader.population());
    let drift = population.map(|population| {
        Arc::new(Mutex::new(Drift::new(population, links.drift.clone(), links.metrics.clone())))
    });
    graders.into_iter().map(|grader| start_one(grader, generation, drift.clone(), links.clone())).collect()
}

fn start_one(
    mut grader: Box<dyn Grader>,
    generation: u64,
    drift: Option<Arc<Mutex<Drift>>>,
    links: GraderLinks,
) -> anyhow::Result<Ended> {
    let (ended, end) = oneshot::channel();
    let run = move || {
        let GraderLinks { requests, spoke, shadow, metrics, health, .. } = links;
        let judge = Judge { identity: grader.identity().clone(), drift, shadow, metrics: metrics.clone() };
        let judged = |judged: Judged<Envelope<Prepared>>| drop(spoke.blocking_send(judge.judge(judged)));
        let result = grade::run(grader.as_mut(), generation, &requests, &judged, &metrics, &health);
        drop(ended.send(result));
    };
    std::thread::Builder::new().name("grader".into()).spawn(run).context("cannot start a grader thread")?;
    Ok(Box::pin(
        async move { end.await.map_err(|_| anyhow!("a grader thread panicked"))?.map_err(Into::into) },
    ))
}

/// What makes an event of an opinion.
struct Judge {
    identity: GraderIdentity,
    drift: Option<Arc<Mutex<Drift>>>,
    shadow: Option<ShadowQueue>,
    metrics: Metrics,
}

impl Judge {
    fn judge(&self, judged: Judged<Envelope<Prepared>>) -> Envelope<Spoken> {
        let Judged { frame, opinion, started, inference } = judged;
        let timings = timings(&frame, started, inference);
        frame.map(|body| {
            let Prepared { raw, frame, picture, trace, batch, .. } = body;
            trace.linked_stage("grade", started, &batch);
            let verdict = match opinion {
                Ok(opinion) => {
                    self.note(&frame, &opinion);
                    let event = event(&frame, opinion, &self.identity, timings);
                    if let Some(shadow) = &self.shadow {
                        shadow.offer(|| {
                            let graded = event.status == GradeStatus::Graded;
                            Copied::new(&raw, &frame, picture, event.heads.clone().filter(|_| graded))
                        });
                    }
                    Verdict::Grade(Box::new(event))
                }
                Err(rejection) => Verdict::Reject(rejection),
            };
            Spoken { raw, frame: Some(frame), verdict, trace }
        })
    }

    fn note(&self, frame: &Frame, opinion: &Opinion) {
        self.metrics.opinion(&confidences(&opinion.heads), opinion.training_distance);
        if let Some(drift) = &self.drift {
            let label = self.metrics.instrument_label(&frame.instrument.vendor, &frame.instrument.model);
            let mut drift = drift.lock().unwrap_or_else(PoisonError::into_inner);
            drift.observe(label, &opinion.heads, &opinion.embedding);
        }
    }
}

/// The event that says what a model thinks of a frame.
pub(super) fn event(
    frame: &Frame,
    opinion: Opinion,
    identity: &GraderIdentity,
    timings: Timings,
) -> GradeEvent {
    let Opinion { heads, reasons, training_distance, .. } = opinion;
    let event = GradeEvent::new(frame, reasons, Some(heads), identity, PIPELINE_VERSION, timings);
    event.with_training_distance(training_distance)
}

fn timings(frame: &Envelope<Prepared>, started: Instant, inference: Duration) -> Timings {
    Timings {
        decode_ms: milliseconds(frame.body.ready_at - frame.received_at),
        queue_ms: milliseconds(started.saturating_duration_since(frame.body.ready_at)),
        inference_ms: milliseconds(inference),
    }
}

/// How sure each head is that is present.
fn confidences(heads: &Heads) -> Vec<(Head, f64)> {
    let letters = [(Head::Icm, heads.icm.as_ref()), (Head::Te, heads.te.as_ref())];
    let letters = letters.into_iter().filter_map(|(head, grade)| Some((head, grade?.confidence)));
    std::iter::once((Head::Exp, heads.exp.confidence)).chain(letters).collect()
}

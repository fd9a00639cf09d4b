//! The loops around the leaves: what each part of the pipeline receives, and where its result goes.
//! Together with `pipeline.rs` the only place that joins the leaves.

pub(super) mod graders;
pub(super) mod shadow;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use futures_util::stream::{FuturesUnordered, StreamExt, poll_fn};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::PIPELINE_VERSION;
use super::batch::Batcher;
use super::decode::{self, DecodeSettings};
use super::event;
use super::fetch::Fetcher;
use super::focus::{Decided, Focus, FocusSettings};
use super::grade::{BatchRequest, HasPicture};
use super::intake::Admitted;
use super::message::RawMessage;
use super::outbox::Outbox;
use super::publish::{self, GradeSink, Spoken, Verdict};
use super::quality::{self, QualitySettings};
use super::receipt::{Envelope, Outcome};
use super::select::Selector;
use crate::domain::{
    AbstainReason, Frame, GradeEvent, GraderIdentity, ImageLocation, Picture, RejectionCode, SkipReason,
    Timings,
};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::seldom::Seldom;
use crate::telemetry::traces::{BatchTrace, FrameTrace, Traces};

/// A frame with its pixels.
pub(super) struct Prepared {
    raw: RawMessage,
    frame: Frame,
    candidate: bool,
    picture: Picture,
    sharpness: f32,
    abstain: Vec<AbstainReason>,
    ready_at: Instant,
    trace: FrameTrace,
    /// The span of the batch it is in.
    batch: BatchTrace,
}

pub(super) type Spoke = mpsc::Sender<Envelope<Spoken>>;

impl HasPicture for Envelope<Prepared> {
    fn picture(&self) -> &Picture {
        &self.body.picture
    }
}

/// What turns a wanted frame into pixels.
pub(super) struct Decoder {
    pub(super) fetcher: Fetcher,
    pub(super) settings: DecodeSettings,
    pub(super) quality: QualitySettings,
    pub(super) side_px: usize,
    pub(super) max_value_bytes: usize,
    pub(super) fetching: Semaphore,
    pub(super) cpu: Semaphore,
    pub(super) metrics: Metrics,
}

/// Turns wanted frames into pixels, several at a time; what is refused goes straight to publishing.
pub(super) async fn decode_stage(
    mut admitted: mpsc::Receiver<Envelope<Admitted>>,
    decoder: Arc<Decoder>,
    prepared: mpsc::Sender<Envelope<Prepared>>,
    spoke: Spoke,
) -> anyhow::Result<()> {
    let frames = poll_fn(move |context| admitted.poll_recv(context));
    let each = |envelope: Envelope<Admitted>| {
        let (decoder, prepared, spoke) = (Arc::clone(&decoder), prepared.clone(), spoke.clone());
        async move {
            let Envelope { body, receipt, received_at } = envelope;
            // A closed channel means that the service is being torn down: the receipt is dropped.
            match decode_one(&decoder, body).await {
                Ok(body) => drop(prepared.send(Envelope { body, receipt, received_at }).await),
                Err(body) => drop(spoke.send(Envelope { body: *body, receipt, received_at }).await),
            }
        }
    };
    // As many as are admitted: a store that does not answer holds up its own images, not inline ones.
    frames.for_each_concurrent(None, each).await;
    Ok(())
}

async fn decode_one(decoder: &Arc<Decoder>, admitted: Admitted) -> Result<Prepared, Box<Spoken>> {
    let Admitted { raw, frame, trace } = admitted;
    let reject = |raw, frame, trace, rejection| {
        Err(Box::new(Spoken { raw, frame, verdict: Verdict::Reject(rejection), trace }))
    };
    let wanted = match frame {
        Ok(wanted) => wanted,
        Err(rejection) => return reject(raw, None, trace, rejection),
    };
    let (frame, candidate) = (wanted.frame, wanted.candidate);
    let (fetched, fetching) = match &frame.image.location {
        ImageLocation::Inline => (None, None),
        ImageLocation::Uri(uri) => {
            // Kept until the image is decoded: it bounds the bytes that wait for a thread, too.
            let fetching = decoder.fetching.acquire().await;
            let started = Instant::now();
            let fetched = decoder.fetcher.fetch(uri, frame.image.bytes).await;
            decoder.metrics.stage_seconds("fetch", started.elapsed());
            trace.stage("fetch", started);
            match fetched {
                Ok(bytes) => (Some(bytes), Some(fetching)),
                Err(rejection) => return reject(raw, Some(frame), trace, rejection),
            }
        }
    };
    let permit = decoder.cpu.acquire().await;
    let pool = Arc::clone(decoder);
    let decoding = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let decoded = match &fetched {
            Some(bytes) => decode::picture(bytes, &frame.image, &pool.settings, pool.side_px),
            None => event::read(&raw.view(), pool.max_value_bytes, &mut Vec::new())
                .and_then(|read| {
                    decode::from_base64(read.image.unwrap_or_default(), pool.settings.max_image_bytes)
                })
                .and_then(|bytes| decode::picture(&bytes, &frame.image, &pool.settings, pool.side_px)),
        };
        pool.metrics.stage_seconds("decode", started.elapsed());
        trace.stage("decode", started);
        match decoded {
            Ok(decoded) => Ok(Prepared {
                abstain: quality::gate(
                    &decoded.statistics,
                    frame.image.width,
                    frame.image.height,
                    &pool.quality,
                ),
                sharpness: decoded.statistics.sharpness,
                picture: decoded.picture,
                raw,
                frame,
                candidate,
                ready_at: Instant::now(),
                trace,
                batch: BatchTrace::default(),
            }),
            Err(rejection) => {
                let verdict = Verdict::Reject(rejection);
                Err(Box::new(Spoken { raw, frame: Some(frame), verdict, trace }))
            }
        }
    });
    let decoded = decoding.await;
    drop((permit, fetching));
    match decoded.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(decoded) => decoded,
        // `decode` contains panics of the image decoders, so this is a defect of ours: stop.
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down; nothing of this frame is settled.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Lets the planes of a run wait for each other, and keeps back what is not good enough to grade.
pub(super) async fn focus_stage(
    mut prepared: mpsc::Receiver<Envelope<Prepared>>,
    settings: FocusSettings,
    identity: watch::Receiver<Arc<GraderIdentity>>,
    sharp: mpsc::Sender<Envelope<Prepared>>,
    spoke: Spoke,
) -> anyhow::Result<()> {
    let mut focus: Focus<Envelope<Prepared>> = Focus::new(settings);
    let mut open = true;
    while open || focus.deadline().is_some() {
        let deadline = focus.deadline().map(tokio::time::Instant::from_std);
        let decided = tokio::select! {
            next = prepared.recv(), if open => match next {
                Some(plane) if plane.body.candidate => {
                    let id = &plane.body.frame.id;
                    let run = (plane.receipt.partition(), plane.receipt.epoch(), id.embryo_id.clone(), id.run);
                    let planes = plane.body.frame.plane.count as usize;
                    focus.push(run, planes, plane.body.sharpness, plane, Instant::now())
                }
                Some(frame) => Some(Decided { sharpest: Some(frame), others: Vec::new() }),
                None => {
                    open = false;
                    None
                }
            },
            () = sleep_until(deadline), if open => focus.expire(Instant::now(), false),
            else => focus.expire(Instant::now(), true),
        };
        let Some(decided) = decided else { continue };
        for other in decided.others {
            other.receipt.settle(Outcome::Skipped(SkipReason::OtherFocalPlane));
        }
        let Some(frame) = decided.sharpest else { continue };
        if frame.body.abstain.is_empty() {
            drop(sharp.send(frame).await);
        } else {
            let event = abstain(frame, &identity.borrow());
            drop(spoke.send(event).await);
        }
    }
    Ok(())
}

fn abstain(frame: Envelope<Prepared>, identity: &GraderIdentity) -> Envelope<Spoken> {
    let decode_ms = milliseconds(frame.body.ready_at - frame.received_at);
    frame.map(|body| {
        let timings = Timings { decode_ms, ..Timings::default() };
        let event = GradeEvent::new(&body.frame, body.abstain, None, identity, PIPELINE_VERSION, timings);
        let verdict = Verdict::Grade(Box::new(event));
        Spoken { raw: body.raw, frame: Some(body.frame), verdict, trace: body.trace }
    })
}

/// Forms batches for graders that are idle.
pub(super) async fn batch_stage(
    mut sharp: mpsc::Receiver<Envelope<Prepared>>,
    mut batcher: Batcher<Envelope<Prepared>>,
    mut requests: mpsc::Receiver<BatchRequest<Envelope<Prepared>>>,
    metrics: Metrics,
    traces: Traces,
) -> anyhow::Result<()> {
    let mut idle: Vec<oneshot::Sender<Vec<Envelope<Prepared>>>> = Vec::new();
    let mut newest = 0;
    let mut open = true;
    while open || batcher.deadline().is_some() {
        if let Some(grader) = idle.pop() {
            match batcher.close(Instant::now(), !open) {
                Some((mut frames, waited)) => {
                    metrics.batch_closed(frames.len(), waited);
                    let batch =
                        traces.batch(frames.iter().map(|frame: &Envelope<Prepared>| &frame.body.trace));
                    frames.iter_mut().for_each(|frame| frame.body.batch = batch.clone());
                    anyhow::ensure!(
                        grader.send(frames).is_ok(),
                        "a grader ended while it waited for a batch"
                    );
                    continue;
                }
                None => idle.push(grader),
            }
        }
        let deadline = batcher.deadline().filter(|_| !idle.is_empty()).map(tokio::time::Instant::from_std);
        tokio::select! {
            request = requests.recv() => {
                let BatchRequest { generation, reply } = request.context("every grader has ended")?;
                if generation > newest {
                    newest = generation;
                    idle.clear();
                }
                if generation == newest {
                    idle.push(reply);
                }
            }
            next = sharp.recv(), if open && !batcher.is_full() => match next {
                Some(frame) => drop(batcher.push(frame, Instant::now())),
                None => open = false,
            },
            () = sleep_until(deadline) => {}
        }
    }
    Ok(())
}

/// Closes the route of a frame whose event the broker has.
pub(super) struct Settler {
    pub(super) selector: Arc<Mutex<Selector>>,
    pub(super) metrics: Metrics,
    pub(super) letters: Seldom<RejectionCode>,
}

impl Settler {
    pub(super) fn settle(&self, envelope: Envelope<Spoken>, outcome: Outcome) {
        let Envelope { body: Spoken { raw, frame, trace, .. }, receipt, received_at } = envelope;
        if let Outcome::DeadLettered(code) = outcome {
            let (partition, offset) = (raw.position.partition, raw.position.offset);
            if let Some(suppressed) = self.letters.due(code) {
                tracing::warn!(stage = %code.stage(), %code, partition, offset, suppressed, "frame was dead-lettered");
            }
            if let Some(frame) = frame {
                self.selector.lock().unwrap_or_else(PoisonError::into_inner).forget(&frame, partition);
            }
        } else {
            self.metrics.frame_age_at_publish(age(&raw, received_at));
        }
        trace.end(outcome.as_str());
        receipt.settle(outcome);
    }
}

/// Publishes, several at a time, and settles each frame once the broker has confirmed.
pub(super) async fn publish_stage(
    mut spoken: mpsc::Receiver<Envelope<Spoken>>,
    sink: Arc<dyn GradeSink>,
    settler: Arc<Settler>,
    max_unconfirmed: usize,
) -> anyhow::Result<()> {
    let confirm = |envelope: Envelope<Spoken>| {
        let (sink, settler) = (Arc::clone(&sink), Arc::clone(&settler));
        async move {
            let started = Instant::now();
            let outcome = publish::publish(sink.as_ref(), &envelope.body).await?;
            settler.metrics.stage_seconds("publish", started.elapsed());
            envelope.body.trace.stage("publish", started);
            settler.settle(envelope, outcome);
            anyhow::Ok(())
        }
    };
    let mut unconfirmed = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(confirmed) = unconfirmed.next(), if !unconfirmed.is_empty() => confirmed?,
            next = spoken.recv(), if unconfirmed.len() < max_unconfirmed => match next {
                Some(envelope) => unconfirmed.push(confirm(envelope)),
                None => break,
            },
        }
    }
    while let Some(confirmed) = unconfirmed.next().await {
        confirmed?;
    }
    Ok(())
}

/// Lets everything wait for its transaction.
pub(super) async fn outbox_stage(
    mut spoken: mpsc::Receiver<Envelope<Spoken>>,
    outbox: Outbox<Spoken>,
) -> anyhow::Result<()> {
    while let Some(envelope) = spoken.recv().await {
        outbox.put(envelope);
    }
    Ok(())
}

/// Age of a frame event: since its Kafka timestamp, or since it was received when it has none.
fn age(raw: &RawMessage, received_at: Instant) -> Duration {
    let sent_at = raw.timestamp_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let since =
        sent_at.and_then(|sent_at| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + sent_at).ok());
    since.unwrap_or_else(|| received_at.elapsed())
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 1e2
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

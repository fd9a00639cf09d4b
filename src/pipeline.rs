//! THE wiring: source -> select -> decode -> focus -> batch -> grade -> publish.
//!
//! ```text
//! poll thread          runtime                                  grader threads      runtime
//! Intake::receive ──▶ decode_stage ──▶ focus_stage ──▶ batch_stage ⇄ grade::run ──▶ publish_stage ──▶ settle
//!      │ skip: settled    │ refused         │ abstained                                  ▲
//!      ▼                  └─────────────────┴────────────────────────────────────────────┘
//! ```
//! Every stage is a leaf that knows none of the others; this file alone joins them. What is under
//! way is bounded by the ledger, which makes the source pause; the channels never hold more than
//! that. A stage ends when the one before it has ended, so closing the intake drains the pipeline.

pub mod batch;
pub mod decode;
pub mod event;
pub mod fetch;
pub mod focus;
pub mod grade;
pub mod intake;
pub mod ledger;
pub mod message;
pub mod publish;
pub mod quality;
pub mod receipt;
pub mod select;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use futures_util::stream::{FuturesUnordered, StreamExt, poll_fn};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::domain::{AbstainReason, Frame, GradeEvent, GraderIdentity, ImageLocation, Picture, Timings};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use batch::{BatchSettings, Batcher};
use decode::DecodeSettings;
use fetch::{FetchSettings, Fetcher};
use focus::{Focus, FocusSettings};
use grade::{BatchRequest, Grader, HasPicture, Judged};
use intake::{Admitted, Intake};
use message::RawMessage;
use publish::{GradeSink, Verdict};
use quality::QualitySettings;
use receipt::{Envelope, FlowSettings, Outcome, SharedLedger, SkipReason};
use select::{SelectSettings, Selector};

/// Version in every grade event and in every grade id.
pub const PIPELINE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Images fetched at a time besides those being decoded: a slow store must not hold up inline images.
const CONCURRENT_FETCHES: usize = 64;

/// What the stages are told, one part each.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// Which frames are wanted.
    pub select: SelectSettings,
    /// Where images may come from.
    pub fetch: FetchSettings,
    /// What may be decoded.
    pub decode: DecodeSettings,
    /// What is good enough to be graded.
    pub quality: QualitySettings,
    /// How the planes of a run wait for each other.
    pub focus: FocusSettings,
    /// When a batch is closed.
    pub batch: BatchSettings,
    /// How much may be under way.
    pub flow: FlowSettings,
    /// How much may wait for the broker's confirmation.
    pub publish: PublishSettings,
}

/// How much may wait for the broker's confirmation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSettings {
    /// Events sent and not yet confirmed.
    pub max_unconfirmed: usize,
}

/// What the pipeline is built from.
pub struct Parts {
    /// What the stages are told.
    pub settings: PipelineSettings,
    /// Largest accepted message value.
    pub max_value_bytes: usize,
    /// Warmed graders, each of which gets a thread.
    pub graders: Vec<Box<dyn Grader>>,
    /// Where events go.
    pub sink: Arc<dyn GradeSink>,
    /// Counters.
    pub metrics: Metrics,
    /// Facts for the probes.
    pub health: Health,
    /// Cancelled when a frame can no longer be finished.
    pub broken: CancellationToken,
}

/// Name of the stage that is a thread, and hence ends only by itself.
pub const GRADER: &str = "grade";

/// A stage that runs: its name, and its end.
pub type Task = (&'static str, tokio::task::JoinHandle<anyhow::Result<()>>);

/// A running pipeline.
pub struct Pipeline {
    /// The door, for the source. Dropping it drains the pipeline.
    pub intake: Intake,
    /// The ledger, for the source.
    pub ledger: SharedLedger,
    /// The stages. Each ends with success once everything before it has ended.
    pub tasks: Vec<Task>,
}

/// A frame with its pixels.
struct Prepared {
    raw: RawMessage,
    frame: Frame,
    candidate: bool,
    picture: Picture,
    sharpness: f32,
    abstain: Vec<AbstainReason>,
    ready_at: Instant,
}

/// What is to be published about a frame.
struct Spoken {
    raw: RawMessage,
    frame: Option<Frame>,
    verdict: Verdict,
}

type Spoke = mpsc::Sender<Envelope<Spoken>>;

impl HasPicture for Envelope<Prepared> {
    fn picture(&self) -> &Picture {
        &self.body.picture
    }
}

/// Starts every stage. Must be called within a tokio runtime.
///
/// # Errors
/// When there is no grader, or the image stores are misconfigured.
pub fn start(parts: Parts) -> anyhow::Result<Pipeline> {
    let Parts { settings, max_value_bytes, graders, sink, metrics, health, broken } = parts;
    let first = graders.first().context("no grader was loaded; set model.graders to 1 or more")?;
    let identity = Arc::new(first.identity().clone());
    let depth = settings.flow.max_in_flight_frames;
    let ledger = SharedLedger::new(settings.flow.clone(), metrics.clone(), broken);
    let selector = Arc::new(Mutex::new(Selector::new(settings.select.clone())));

    let (admit, admitted) = mpsc::channel(depth);
    let (prepare, prepared) = mpsc::channel(depth);
    let (sharpen, sharp) = mpsc::channel(settings.batch.max_frames);
    let (request, requests) = mpsc::channel(graders.len());
    let (speak, spoken) = mpsc::channel(settings.publish.max_unconfirmed);

    let intake = Intake::new(
        ledger.clone(),
        Arc::clone(&selector),
        settings.select.clone(),
        max_value_bytes,
        admit,
        metrics.clone(),
    );
    let decoder = Decoder {
        fetcher: Fetcher::new(&settings.fetch)?,
        settings: settings.decode.clone(),
        quality: settings.quality.clone(),
        side_px: first.input_side_px(),
        max_value_bytes,
        cpu: Semaphore::new(settings.decode.threads.max(1)),
        metrics: metrics.clone(),
    };
    let mut tasks: Vec<Task> = vec![
        ("decode", tokio::spawn(decode_stage(admitted, Arc::new(decoder), prepare, speak.clone()))),
        (
            "focus",
            tokio::spawn(focus_stage(
                prepared,
                settings.focus,
                Arc::clone(&identity),
                sharpen,
                speak.clone(),
            )),
        ),
        ("batch", tokio::spawn(batch_stage(sharp, settings.batch, requests, metrics.clone()))),
    ];
    for grader in graders {
        let (request, speak) = (request.clone(), speak.clone());
        let (metrics, health) = (metrics.clone(), health.clone());
        tasks.push((GRADER, grader_thread(grader, request, speak, metrics, health)?));
    }
    drop((request, speak));
    let publishing = publish_stage(spoken, sink, selector, settings.publish.max_unconfirmed, metrics);
    tasks.push(("publish", tokio::spawn(publishing)));
    Ok(Pipeline { intake, ledger, tasks })
}

struct Decoder {
    fetcher: Fetcher,
    settings: DecodeSettings,
    quality: QualitySettings,
    side_px: usize,
    max_value_bytes: usize,
    cpu: Semaphore,
    metrics: Metrics,
}

/// Turns wanted frames into pixels, several at a time; what is refused goes straight to publishing.
async fn decode_stage(
    mut admitted: mpsc::Receiver<Envelope<Admitted>>,
    decoder: Arc<Decoder>,
    prepared: mpsc::Sender<Envelope<Prepared>>,
    spoke: Spoke,
) -> anyhow::Result<()> {
    let concurrent = decoder.settings.threads.max(1) + CONCURRENT_FETCHES;
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
    frames.for_each_concurrent(concurrent, each).await;
    Ok(())
}

async fn decode_one(decoder: &Arc<Decoder>, admitted: Admitted) -> Result<Prepared, Box<Spoken>> {
    let Admitted { raw, frame } = admitted;
    let reject =
        |raw, frame, rejection| Err(Box::new(Spoken { raw, frame, verdict: Verdict::Reject(rejection) }));
    let wanted = match frame {
        Ok(wanted) => wanted,
        Err(rejection) => return reject(raw, None, rejection),
    };
    let (frame, candidate) = (wanted.frame, wanted.candidate);
    let fetched = match &frame.image.location {
        ImageLocation::Inline => None,
        ImageLocation::Uri(uri) => {
            let started = Instant::now();
            let fetched = decoder.fetcher.fetch(uri, frame.image.bytes).await;
            decoder.metrics.stage_seconds("fetch", started.elapsed());
            match fetched {
                Ok(bytes) => Some(bytes),
                Err(rejection) => return reject(raw, Some(frame), rejection),
            }
        }
    };
    let permit = decoder.cpu.acquire().await;
    let pool = Arc::clone(decoder);
    let decoding = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let decoded = match &fetched {
            Some(bytes) => decode::picture(bytes, &frame.image, &pool.settings, pool.side_px),
            None => event::read(&raw.view(), pool.max_value_bytes)
                .and_then(|event| {
                    let text = event.image.data.as_ref().map_or("", |data| data.0.as_ref());
                    decode::from_base64(text, pool.settings.max_image_bytes)
                })
                .and_then(|bytes| decode::picture(&bytes, &frame.image, &pool.settings, pool.side_px)),
        };
        pool.metrics.stage_seconds("decode", started.elapsed());
        match decoded {
            Ok(decoded) => Ok(Prepared {
                abstain: quality::gate(&decoded, frame.image.width, frame.image.height, &pool.quality),
                sharpness: decoded.sharpness,
                picture: decoded.picture,
                raw,
                frame,
                candidate,
                ready_at: Instant::now(),
            }),
            Err(rejection) => {
                Err(Box::new(Spoken { raw, frame: Some(frame), verdict: Verdict::Reject(rejection) }))
            }
        }
    });
    let decoded = decoding.await;
    drop(permit);
    match decoded {
        Ok(decoded) => decoded,
        // `decode` contains panics of the image decoders, so this is a defect of ours: stop.
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Lets the planes of a run wait for each other, and keeps back what is not good enough to grade.
async fn focus_stage(
    mut prepared: mpsc::Receiver<Envelope<Prepared>>,
    settings: FocusSettings,
    identity: Arc<GraderIdentity>,
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
                Some(frame) => Some(focus::Decided { sharpest: Some(frame), others: Vec::new() }),
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
            drop(spoke.send(abstain(frame, &identity)).await);
        }
    }
    Ok(())
}

fn abstain(frame: Envelope<Prepared>, identity: &GraderIdentity) -> Envelope<Spoken> {
    let decode_ms = milliseconds(frame.body.ready_at - frame.received_at);
    frame.map(|body| {
        let timings = Timings { decode_ms, ..Timings::default() };
        let event = GradeEvent::new(&body.frame, body.abstain, None, identity, PIPELINE_VERSION, timings);
        Spoken { raw: body.raw, frame: Some(body.frame), verdict: Verdict::Grade(Box::new(event)) }
    })
}

/// Forms batches for graders that are idle.
async fn batch_stage(
    mut sharp: mpsc::Receiver<Envelope<Prepared>>,
    settings: BatchSettings,
    mut requests: mpsc::Receiver<BatchRequest<Envelope<Prepared>>>,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let mut batcher = Batcher::new(settings);
    let mut idle: Vec<BatchRequest<Envelope<Prepared>>> = Vec::new();
    let mut open = true;
    while open || batcher.deadline().is_some() {
        if let Some(grader) = idle.pop() {
            match batcher.close(Instant::now(), !open) {
                Some((frames, waited)) => {
                    metrics.batch_closed(frames.len(), waited);
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
            request = requests.recv() => idle.push(request.context("every grader has ended")?),
            next = sharp.recv(), if open && !batcher.is_full() => match next {
                Some(frame) => drop(batcher.push(frame, Instant::now())),
                None => open = false,
            },
            () = sleep_until(deadline) => {}
        }
    }
    Ok(())
}

/// Runs a grader on a thread of its own and turns its answers into events.
fn grader_thread(
    mut grader: Box<dyn Grader>,
    requests: mpsc::Sender<BatchRequest<Envelope<Prepared>>>,
    spoke: Spoke,
    metrics: Metrics,
    health: Health,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let (ended, end) = tokio::sync::oneshot::channel();
    let run = move || {
        let identity = grader.identity().clone();
        let judged = |judged: Judged<Envelope<Prepared>>| drop(spoke.blocking_send(judge(judged, &identity)));
        let result = grade::run(grader.as_mut(), &requests, &judged, &metrics, &health);
        drop(ended.send(result));
    };
    std::thread::Builder::new().name("grader".into()).spawn(run).context("cannot start a grader thread")?;
    Ok(tokio::spawn(async move { Ok(end.await.context("a grader thread panicked")??) }))
}

fn judge(judged: Judged<Envelope<Prepared>>, identity: &GraderIdentity) -> Envelope<Spoken> {
    let Judged { frame, opinion, inference } = judged;
    let timings = Timings {
        decode_ms: milliseconds(frame.body.ready_at - frame.received_at),
        queue_ms: milliseconds(frame.body.ready_at.elapsed().saturating_sub(inference)),
        inference_ms: milliseconds(inference),
    };
    frame.map(|body| {
        let verdict = match opinion {
            Ok(opinion) => {
                let (reasons, heads) = (opinion.reasons, Some(opinion.heads));
                let event = GradeEvent::new(&body.frame, reasons, heads, identity, PIPELINE_VERSION, timings);
                Verdict::Grade(Box::new(event))
            }
            Err(rejection) => Verdict::Reject(rejection),
        };
        Spoken { raw: body.raw, frame: Some(body.frame), verdict }
    })
}

/// Publishes, several at a time, and settles each frame once the broker has confirmed.
async fn publish_stage(
    mut spoken: mpsc::Receiver<Envelope<Spoken>>,
    sink: Arc<dyn GradeSink>,
    selector: Arc<Mutex<Selector>>,
    max_unconfirmed: usize,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let confirm = |envelope: Envelope<Spoken>| {
        let (sink, selector, metrics) = (Arc::clone(&sink), Arc::clone(&selector), metrics.clone());
        async move {
            let Envelope { body: Spoken { raw, frame, verdict }, receipt, received_at } = envelope;
            let started = Instant::now();
            let outcome = publish::publish(sink.as_ref(), &raw, &verdict).await?;
            metrics.stage_seconds("publish", started.elapsed());
            match (outcome, &frame) {
                (Outcome::DeadLettered(stage, code), frame) => {
                    let (partition, offset) = (raw.position.partition, raw.position.offset);
                    tracing::warn!(%stage, %code, partition, offset, "frame was dead-lettered");
                    if let Some(frame) = frame {
                        let mut selector = selector.lock().unwrap_or_else(PoisonError::into_inner);
                        selector.forget(frame, partition);
                    }
                }
                _ => metrics.frame_age_at_publish(age(&raw, received_at)),
            }
            receipt.settle(outcome);
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

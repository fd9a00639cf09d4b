//! THE wiring: source -> select -> decode -> focus -> batch -> grade -> publish.
//!
//! ```text
//! poll thread          runtime                                  grader threads      runtime
//! Intake::receive ──▶ decode_stage ──▶ focus_stage ──▶ batch_stage ⇄ grade::run ──▶ publish_stage ──▶ settle
//!      │ skip: settled    │ refused         │ abstained                                  ▲
//!      ▼                  └─────────────────┴────────────────────────────────────────────┘
//! ```
//! Every part is a leaf that knows none of the others; this file and the loops around the leaves in
//! `stages` alone join them. What is under way is bounded by the ledger, which makes the source pause; the channels never hold more than
//! that. A stage ends when the one before it has ended, so closing the intake drains the pipeline.

pub mod batch;
pub mod decode;
pub mod drift;
pub mod event;
pub mod fetch;
pub mod focus;
pub mod grade;
pub mod intake;
pub mod ledger;
pub mod message;
pub mod outbox;
pub mod publish;
pub mod quality;
pub mod receipt;
pub mod select;

mod stages;

use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::seldom::Seldom;
use crate::telemetry::traces::Traces;
use batch::{BatchSettings, Batcher};
use decode::DecodeSettings;
use drift::DriftSettings;
use fetch::{FetchSettings, Fetcher};
use focus::FocusSettings;
use grade::Grader;
use intake::Intake;
use outbox::Outbox;
use publish::{Destination, PublishSettings, Spoken};
use quality::QualitySettings;
use receipt::{FlowSettings, SharedLedger};
use select::{SelectSettings, Selector};
pub use stages::graders::Replacement;
use stages::graders::{GraderLinks, graders_stage};
use stages::shadow::shadow_thread;
pub use stages::shadow::{Shadow, ShadowSettings};
use stages::{Decoder, Settler, batch_stage, decode_stage, focus_stage, outbox_stage, publish_stage};

/// Version in every grade event and in every grade id.
pub const PIPELINE_VERSION: &str = env!("CARGO_PKG_VERSION");

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
    /// What counts as recent when drift is measured.
    pub drift: DriftSettings,
}

/// What the pipeline is built from.
pub struct Parts {
    /// What the stages are told.
    pub settings: PipelineSettings,
    /// Largest accepted message value.
    pub max_value_bytes: usize,
    /// Warmed graders, each of which gets a thread.
    pub graders: Vec<Box<dyn Grader>>,
    /// A second bundle that sees the same frames.
    pub shadow: Option<Shadow>,
    /// Where events go.
    pub destination: Destination,
    /// Counters.
    pub metrics: Metrics,
    /// Spans.
    pub traces: Traces,
    /// Facts for the probes.
    pub health: Health,
    /// Cancelled when a frame can no longer be finished.
    pub broken: CancellationToken,
}

/// Names of the stages that are threads, and hence end only by themselves.
pub const THREADS: [&str; 2] = ["grade", "shadow"];

/// A stage that runs: its name, and its end.
pub type Task = (&'static str, tokio::task::JoinHandle<anyhow::Result<()>>);

/// A running pipeline.
pub struct Pipeline {
    /// The door, for the source. Dropping it drains the pipeline.
    pub intake: Intake,
    /// The ledger, for the source.
    pub ledger: SharedLedger,
    /// What waits for the source to publish it; stays empty with a sink.
    pub outbox: Outbox<Spoken>,
    /// Takes graders of another bundle.
    pub replace: mpsc::Sender<Replacement>,
    /// The stages. Each ends with success once everything before it has ended.
    pub tasks: Vec<Task>,
}

/// Starts every stage. Must be called within a tokio runtime.
///
/// # Errors
/// When there is no grader, or the image stores are misconfigured.
pub fn start(parts: Parts) -> anyhow::Result<Pipeline> {
    let Parts { settings, max_value_bytes, graders, shadow, destination, metrics, traces, health, broken } =
        parts;
    let first = graders.first().context("no grader was loaded; set model.graders to 1 or more")?;
    let batch = settings.batch.for_model(first.max_batch_frames(), settings.flow.max_in_flight_frames)?;
    let (identify, identity) = watch::channel(Arc::new(first.identity().clone()));
    let depth = settings.flow.max_in_flight_frames;
    let ledger = SharedLedger::new(settings.flow.clone(), metrics.clone(), broken.clone());
    let selector = Arc::new(Mutex::new(Selector::new(settings.select.clone())));

    let (admit, admitted) = mpsc::channel(depth);
    let (prepare, prepared) = mpsc::channel(depth);
    let (sharpen, sharp) = mpsc::channel(batch.max_frames);
    let batcher = Batcher::new(batch, graders.len());
    let (request, requests) = mpsc::channel(graders.len());
    let (speak, spoken) = mpsc::channel(settings.publish.max_unconfirmed);

    let intake = Intake::new(
        ledger.clone(),
        Arc::clone(&selector),
        settings.select.clone(),
        max_value_bytes,
        admit,
        metrics.clone(),
        traces.clone(),
    );
    let decoder = Decoder {
        fetcher: Fetcher::new(&settings.fetch, settings.decode.max_image_bytes)?,
        fetching: Semaphore::new(settings.fetch.max_concurrent),
        settings: settings.decode.clone(),
        quality: settings.quality.clone(),
        side_px: first.input_side_px(),
        max_value_bytes,
        cpu: Semaphore::new(settings.decode.threads_on(available_parallelism().map_or(1, usize::from))),
        metrics: metrics.clone(),
    };
    let mut tasks: Vec<Task> = vec![
        ("decode", tokio::spawn(decode_stage(admitted, Arc::new(decoder), prepare, speak.clone()))),
        ("focus", tokio::spawn(focus_stage(prepared, settings.focus, identity, sharpen, speak.clone()))),
        ("batch", tokio::spawn(batch_stage(sharp, batcher, requests, metrics.clone(), traces))),
    ];
    let shadow = match shadow {
        Some(shadow) => {
            let (queue, task) = shadow_thread(shadow, metrics.clone())?;
            tasks.push(("shadow", task));
            Some(queue)
        }
        None => None,
    };
    let links = GraderLinks {
        requests: request,
        spoke: speak,
        shadow,
        drift: settings.drift,
        metrics: metrics.clone(),
        health,
        broken,
    };
    let (replace, replacements) = mpsc::channel(1);
    tasks.push(("grade", tokio::spawn(graders_stage(graders, replacements, identify, links))));
    let settler = Arc::new(Settler { selector, metrics, letters: Seldom::default() });
    let settle = Arc::clone(&settler);
    let outbox = Outbox::new(ledger.clone(), move |envelope, outcome| settle.settle(envelope, outcome));
    let publishing = match destination {
        Destination::Sink(sink) => {
            tokio::spawn(publish_stage(spoken, sink, settler, settings.publish.max_unconfirmed))
        }
        Destination::Outbox => tokio::spawn(outbox_stage(spoken, outbox.clone())),
    };
    tasks.push(("publish", publishing));
    Ok(Pipeline { intake, ledger, outbox, replace, tasks })
}

//! `memebg demo`: embedded broker, synthetic incubators or a folder, the service and a live view, in
//! one process, over the real Kafka protocol.

mod people;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::incubate;
use super::view::View;
use crate::config::Config;
use crate::domain::{GradeEvent, ModelIdentity, Truth};
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::feed::{FeedProgress, feed};
use crate::kafka::tail;
use crate::service::Service;
use crate::telemetry::metrics::{Metrics, Totals};
use people::People;

/// Partitions of the frames topic.
const PARTITIONS: i32 = 4;
/// What the embedded broker may hold unread: it forgets a partition's messages beyond 5 MiB.
const MAX_UNREAD_BYTES: usize = 3 << 20;
/// How long the frames that were sent may take to be finished once the incubators stop.
const FINISH_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Stop the incubators after this many seconds, finish, and end. Otherwise Ctrl-C does.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// No live view; one line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Grade the images of this folder, once each, instead of synthetic embryos.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Their grades, a CSV of image,stage,exp,icm,te, shown beside ours.
    #[arg(long, value_name = "FILE", requires = "images")]
    labels: Option<PathBuf>,
}

/// The machine-readable end of the demo. received = graded + abstained + skipped + duplicate +
/// dead_lettered + in_flight.
#[derive(Debug, Serialize)]
struct Summary {
    seconds: f64,
    sent: u64,
    received: u64,
    graded: u64,
    abstained: u64,
    skipped: u64,
    duplicate: u64,
    dead_lettered: u64,
    in_flight: i64,
    skipped_by_reason: std::collections::BTreeMap<String, u64>,
    /// Grade events read back from the grades topic.
    grade_events: usize,
    grade_ids: usize,
    embryos: usize,
    agreement_with_truth: Agreement,
    mean_batch_frames: f64,
    untrained: bool,
    model: ModelIdentity,
    device: String,
    precision: String,
}

/// What was read back from the grades topic.
#[derive(Default)]
struct ReadBack {
    events: usize,
    ids: HashSet<String>,
    embryos: HashSet<String>,
    agreement: Agreement,
}

/// How often the grades are those that the photographs really show.
#[derive(Debug, Default, Serialize)]
struct Agreement {
    /// Graded frames of which the expansion is known.
    known: u64,
    exp: u64,
    icm: u64,
    te: u64,
}

impl Agreement {
    fn count(&mut self, event: &GradeEvent, truth: Option<Truth>) {
        let (Some(heads), Some(truth)) = (&event.heads, truth.filter(|truth| truth.exp.is_some())) else {
            return;
        };
        self.known += 1;
        self.exp += u64::from(truth.exp == Some(heads.exp.grade));
        self.icm += u64::from(truth.icm == heads.icm.as_ref().map(|head| head.grade));
        self.te += u64::from(truth.te == heads.te.as_ref().map(|head| head.grade));
    }
}

pub(super) async fn run(mut config: Config, args: DemoArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let broker = EmbeddedBroker::start(&[
        (&config.kafka.frames_topic, PARTITIONS),
        (&config.kafka.grades_topic, 1),
        (&config.kafka.dead_letters_topic, 1),
        (&config.shadow.topic, 1),
        (&config.summaries.topic, 1),
        (&config.reviews.topic, 1),
    ])?;
    broker.bootstrap_servers().clone_into(&mut config.kafka.brokers);
    let (frames, truths) =
        incubate::frames(&config.incubator, args.images.as_deref(), args.labels.as_deref())?;
    if !args.json {
        println!("embedded Kafka at {}; loading the models", broker.bootstrap_servers());
    }

    let mut people = People::start(&config).await?;
    if !args.json {
        println!("board at http://{}/", people.board);
        println!("metrics of the summaries at http://{}/metrics", people.metrics);
    }
    let stop_service = CancellationToken::new();
    let starting = Service::start_unless(&stop, config.clone(), stop_service.clone());
    let Some(service) = starting.await? else { return people.stop().await };
    let (metrics, identity) = (service.metrics.clone(), service.identity.clone());
    let mut view = View::new(metrics.clone(), args.json);
    view.say(&format!("metrics at http://{}/metrics", service.address));
    view.say(&format!(
        "{} {} on {}{}",
        identity.model.name,
        identity.model.version,
        identity.device,
        if identity.model.untrained { " - UNTRAINED: the grades mean nothing yet" } else { "" }
    ));
    let mut service = tokio::spawn(service.run());

    let (stop_tail, (graded, mut grades)) = (CancellationToken::new(), mpsc::channel(256));
    let (kafka, tail_until) = (config.kafka.clone(), stop_tail.clone());
    let mut tailing = tokio::task::spawn_blocking(move || {
        tail::grades(&kafka, &tail_until, |event: GradeEvent| drop(graded.blocking_send(event)))
    });

    let started = Instant::now();
    let progress = FeedProgress::default();
    let stop_feed = stop.child_token();
    let (kafka, sent, feed_until) = (config.kafka.clone(), progress.clone(), stop_feed.clone());
    let feeding =
        tokio::task::spawn_blocking(move || feed(&kafka, frames, Some(MAX_UNREAD_BYTES), &sent, &feed_until));
    if let Some(seconds) = args.seconds {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            stop_feed.cancel();
        });
    }

    // Until the feed has ended and everything it sent is settled and read back.
    let mut read_back = ReadBack::default();
    let mut finish_by = None;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            Some(event) = grades.recv() => {
                let truth = truths.of(&event);
                view.grade(&event, truth);
                read_back.agreement.count(&event, truth);
                read_back.events += 1;
                read_back.ids.insert(event.id.as_str().to_owned());
                read_back.embryos.insert(event.embryo_id);
            }
            _ = ticks.tick() => view.tick(),
            ended = &mut tailing => {
                view.finish();
                ended??;
                anyhow::bail!("reading the grades back ended by itself");
            }
            ended = people.ended() => {
                view.finish();
                return ended;
            }
            ended = &mut service => {
                view.finish();
                ended??;
                anyhow::bail!("the service ended by itself");
            }
        }
        if feeding.is_finished() {
            let finish_by = *finish_by.get_or_insert_with(|| Instant::now() + FINISH_TIMEOUT);
            if is_finished(&metrics, progress.sent_frames(), read_back.events) || Instant::now() > finish_by {
                break;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    view.finish();
    feeding.await??;
    stop_tail.cancel();
    // The tail may be blocked on a full channel.
    drop(grades);
    tailing.await??;
    stop_service.cancel();
    service.await??;
    people.stop().await?;

    let Totals { received, graded, abstained, skipped, duplicate, dead_lettered, in_flight } =
        metrics.totals();
    let summary = Summary {
        seconds: (seconds * 10.0).round() / 10.0,
        sent: progress.sent_frames(),
        received,
        graded,
        abstained,
        skipped: skipped.values().sum(),
        duplicate,
        dead_lettered,
        in_flight,
        skipped_by_reason: skipped,
        grade_events: read_back.events,
        grade_ids: read_back.ids.len(),
        embryos: read_back.embryos.len(),
        agreement_with_truth: read_back.agreement,
        mean_batch_frames: (metrics.mean_batch_frames() * 100.0).round() / 100.0,
        untrained: identity.model.untrained,
        model: identity.model,
        device: identity.device,
        precision: identity.precision,
    };
    report(&summary, args.json)
}

fn is_finished(metrics: &Metrics, sent: u64, read_back: usize) -> bool {
    let totals = metrics.totals();
    if totals.received < sent || totals.in_flight > 0 {
        return false;
    }
    // Once more: the figures above are read one after the other.
    let totals = metrics.totals();
    read_back as u64 >= totals.graded + totals.abstained
}

fn report(summary: &Summary, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
    } else {
        println!(
            "{} frames in {:.0} s: {} graded, {} abstained, {} skipped, {} duplicate, {} dead-lettered",
            summary.received,
            summary.seconds,
            summary.graded,
            summary.abstained,
            summary.skipped,
            summary.duplicate,
            summary.dead_lettered
        );
    }
    let unfinished =
        summary.sent.saturating_sub(summary.received) + u64::try_from(summary.in_flight).unwrap_or(0);
    anyhow::ensure!(unfinished == 0, "{unfinished} frames were not finished within {FINISH_TIMEOUT:?}");
    Ok(())
}

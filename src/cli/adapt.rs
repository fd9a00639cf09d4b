//! `memebg adapt`: photographs in an export folder onto the frames topic.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::adapter::{Adapter, Outgoing, Outlet, Tally};
use crate::config::Config;
use crate::kafka::frames::{FramePublisher, FrameRecord};

/// Longest sleep before a stop is noticed.
const NAP: Duration = Duration::from_millis(50);
/// `ce_source` of what it sends.
const SOURCE: &str = "/memebg/adapter";

#[derive(Debug, clap::Args)]
pub(super) struct AdaptArgs {
    /// Publish what is there, wait for nothing but files that are still being written, and end: exit code 1 when
    /// anything was refused.
    #[arg(long)]
    once: bool,
}

struct Frames(FramePublisher);

impl Outlet for Frames {
    fn publish(&mut self, frames: Vec<Outgoing>) -> anyhow::Result<Vec<usize>> {
        let record = |Outgoing { id, embryo_id, event }| FrameRecord { id, embryo_id, event };
        let records: Vec<FrameRecord> = frames.into_iter().map(record).collect();
        Ok(self.0.publish(&records)?)
    }
}

pub(super) async fn run(config: Config, args: AdaptArgs, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || watch(&config, args.once, &stop)).await?
}

fn watch(config: &Config, once: bool, stop: &CancellationToken) -> anyhow::Result<()> {
    let poll = Duration::from_secs(config.adapter.poll_seconds);
    let mut adapter = Adapter::open(config.adapter.clone(), config.select.clock_tolerance_seconds)?;
    let mut outlet = Frames(FramePublisher::open(&config.kafka, SOURCE)?);
    let started = Instant::now();
    let (mut last, mut sent) = (None, 0);
    while !stop.is_cancelled() {
        let tally = adapter.look(started.elapsed(), Utc::now(), &mut outlet, &|| stop.is_cancelled())?;
        let Tally { published, done, waiting, refused } = tally;
        sent += published;
        if last != Some(tally) {
            tracing::info!(published, done, waiting, refused, "export folder");
            last = Some(tally);
        }
        if once && waiting == 0 {
            break;
        }
        // Whoever waits for the end looks more often than whoever waits for the next photograph.
        let pause = if once { poll.min(Duration::from_secs(1)) } else { poll };
        let until = Instant::now() + pause;
        while !stop.is_cancelled() && Instant::now() < until {
            std::thread::sleep(NAP.min(until.saturating_duration_since(Instant::now())));
        }
    }
    let refused = last.map_or(0, |tally| tally.refused);
    println!("{sent} frames sent, {refused} files or folders refused");
    anyhow::ensure!(!once || refused == 0, "{refused} files or folders were refused: the log says why");
    Ok(())
}

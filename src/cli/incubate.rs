//! `memebg incubate`: frames of synthetic incubators, or of a folder, onto the frames topic.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::incubator::{Incubator, IncubatorError, IncubatorSettings, Photograph, replay};
use crate::kafka::feed::{FeedProgress, FrameMessage, feed};

#[derive(Debug, clap::Args)]
pub(super) struct IncubateArgs {
    /// Send the images of this folder as day-5 frames, one each, and end.
    #[arg(long, value_name = "DIR")]
    pub(super) images: Option<PathBuf>,
    /// Check the grades of these images: a CSV of image,stage,exp,icm,te.
    #[arg(long, value_name = "FILE", requires = "images")]
    pub(super) labels: Option<PathBuf>,
    /// End after this many seconds.
    #[arg(long, value_name = "N")]
    pub(super) seconds: Option<u64>,
}

/// The frames to send.
pub(super) type Frames = Box<dyn Iterator<Item = Result<FrameMessage, IncubatorError>> + Send>;

pub(super) fn frames(settings: &IncubatorSettings, args: &IncubateArgs) -> anyhow::Result<Frames> {
    let message = |photograph: Photograph| FrameMessage {
        due: photograph.due,
        embryo_id: photograph.embryo_id,
        event: photograph.event,
    };
    Ok(match &args.images {
        Some(images) => {
            let photographs = replay(images, args.labels.as_deref(), &settings.site_id, Utc::now())?;
            Box::new(photographs.map(move |photograph| photograph.map(message)))
        }
        None => {
            let photographs = Incubator::new(settings, Utc::now())?;
            Box::new(photographs.map(move |photograph| photograph.map(message)))
        }
    })
}

pub(super) async fn run(config: Config, args: IncubateArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let frames = frames(&config.incubator, &args)?;
    let progress = FeedProgress::default();
    let (sent, feeding_stop) = (progress.clone(), stop.clone());
    let feeding =
        tokio::task::spawn_blocking(move || feed(&config.kafka, frames, None, &sent, &feeding_stop));
    if let Some(seconds) = args.seconds {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            stop.cancel();
        });
    }
    feeding.await??;
    println!("{} frames sent", progress.sent_frames());
    Ok(())
}

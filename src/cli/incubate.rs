//! `memebg incubate`: frames of synthetic incubators, or of a folder, onto the frames topic.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use lru::LruCache;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::GradeEvent;
use crate::incubator::{Incubator, IncubatorError, IncubatorSettings, Photograph, Truth, replay};
use crate::kafka::feed::{FeedProgress, FrameMessage, feed};

#[derive(Debug, clap::Args)]
pub(super) struct IncubateArgs {
    /// Send the images of this folder as day-5 frames, one each, and end.
    #[arg(long, value_name = "DIR")]
    pub(super) images: Option<PathBuf>,
    /// Their grades, a CSV of image,stage,exp,icm,te; an impossible one is an error before anything is sent.
    #[arg(long, value_name = "FILE", requires = "images")]
    pub(super) labels: Option<PathBuf>,
    /// End after this many seconds.
    #[arg(long, value_name = "N")]
    pub(super) seconds: Option<u64>,
}

/// The frames to send.
pub(super) type Frames = Box<dyn Iterator<Item = Result<FrameMessage, IncubatorError>> + Send>;

/// What the photographs that were sent last really show.
#[derive(Clone)]
pub(super) struct Truths(Arc<Mutex<LruCache<(String, u64), Truth>>>);

impl Truths {
    /// Enough for all frames that can be under way.
    const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    fn remember(&self, photograph: &Photograph) {
        if let Some(truth) = photograph.truth {
            let key = (photograph.embryo_id.clone(), centihours(photograph.hpi));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, truth);
        }
    }

    /// What the graded photograph shows, where that is known.
    pub(super) fn of(&self, event: &GradeEvent) -> Option<Truth> {
        let key = (event.embryo_id.clone(), centihours(event.hpi));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }
}

/// Grade events carry hours with two decimals.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few hundred hours, never negative"
)]
fn centihours(hpi: f64) -> u64 {
    (hpi * 100.0).round() as u64
}

pub(super) fn frames(settings: &IncubatorSettings, args: &IncubateArgs) -> anyhow::Result<(Frames, Truths)> {
    let truths = Truths(Arc::new(Mutex::new(LruCache::new(Truths::REMEMBERED))));
    let remembered = truths.clone();
    let message = move |photograph: Photograph| {
        remembered.remember(&photograph);
        FrameMessage { due: photograph.due, embryo_id: photograph.embryo_id, event: photograph.event }
    };
    let frames: Frames = match &args.images {
        Some(images) => {
            let photographs = replay(images, args.labels.as_deref(), &settings.site_id, Utc::now())?;
            Box::new(photographs.map(move |photograph| photograph.map(&message)))
        }
        None => {
            let photographs = Incubator::new(settings, Utc::now())?;
            Box::new(photographs.map(move |photograph| photograph.map(&message)))
        }
    };
    Ok((frames, truths))
}

pub(super) async fn run(config: Config, args: IncubateArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let (frames, _) = frames(&config.incubator, &args)?;
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

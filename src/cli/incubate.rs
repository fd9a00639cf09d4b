//! `memebg incubate`: frames of synthetic incubators, or of a folder, onto the frames topic.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use indicatif::ProgressBar;
use lru::LruCache;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::{GradeEvent, Label, Truth};
use crate::incubator::{
    Incubator, IncubatorError, IncubatorSettings, LabelledPicture, LabelledSet, Photograph, replay,
};
use crate::kafka::feed::{FeedProgress, FrameMessage, feed};

#[derive(Debug, clap::Args)]
pub(super) struct IncubateArgs {
    /// Send the images of this folder as day-5 frames, one each, and end.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Their grades, a CSV of image,stage,exp,icm,te; an impossible one is an error before anything is sent.
    #[arg(long, value_name = "FILE", requires = "images")]
    labels: Option<PathBuf>,
    /// End after this many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Write a labelled set of synthetic embryos here instead, for `train` and `evaluate`, without Kafka.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["images", "seconds"])]
    out: Option<PathBuf>,
    /// Pictures of the labelled set.
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "out",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pictures: u32,
    /// Seed of the labelled set: another seed shares no embryo with it.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "out")]
    seed: u64,
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

pub(super) fn frames(
    settings: &IncubatorSettings,
    images: Option<&Path>,
    labels: Option<&Path>,
) -> anyhow::Result<(Frames, Truths)> {
    let truths = Truths(Arc::new(Mutex::new(LruCache::new(Truths::REMEMBERED))));
    let remembered = truths.clone();
    let message = move |photograph: Photograph| {
        remembered.remember(&photograph);
        FrameMessage { due: photograph.due, embryo_id: photograph.embryo_id, event: photograph.event }
    };
    let frames: Frames = match images {
        Some(images) => {
            let photographs = replay(images, labels, &settings.site_id, Utc::now())?;
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
    if let Some(out) = args.out {
        let side_px = config.incubator.image_side_px;
        return tokio::task::spawn_blocking(move || {
            write_labelled_set(&out, args.seed, args.pictures, side_px, &stop)
        })
        .await?;
    }
    let (frames, _) = frames(&config.incubator, args.images.as_deref(), args.labels.as_deref())?;
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

/// `labels.csv` is written last: a folder without it is unfinished.
fn write_labelled_set(
    out: &Path,
    seed: u64,
    pictures: u32,
    side_px: u32,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let labels_path = out.join("labels.csv");
    anyhow::ensure!(!labels_path.exists(), "{} exists: choose a new folder", labels_path.display());
    let images = out.join("images");
    fs::create_dir_all(&images).with_context(|| format!("{} cannot be made", images.display()))?;
    let progress = ProgressBar::new(u64::from(pictures));
    let mut labels = Vec::new();
    for picture in LabelledSet::new(seed, side_px).take(usize::try_from(pictures)?) {
        anyhow::ensure!(!stop.is_cancelled(), "stopped before the set was complete");
        let LabelledPicture { label, jpeg, .. } = picture?;
        let path = images.join(&label.image);
        fs::write(&path, jpeg).with_context(|| format!("{} cannot be written", path.display()))?;
        labels.push(label);
        progress.inc(1);
    }
    progress.finish_and_clear();
    fs::write(&labels_path, Label::write_all(&labels))
        .with_context(|| format!("{} cannot be written", labels_path.display()))?;
    println!("{pictures} pictures in {}", out.display());
    Ok(())
}

//! `memebg reviews`: what embryologists have said of the embryos, as a labelled set that `memebg train` takes.

mod choice;
mod labelled;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::published::{grades, images, summaries};
use crate::config::Config;
use crate::kafka::history::History;
use choice::{Choice, Chosen, choose};
use labelled::LabelledSet;

#[derive(Debug, Subcommand)]
pub(super) enum ReviewsCommand {
    /// Write one photograph of each reviewed embryo with the reviewer's grade.
    ///
    /// The newest review of an embryo counts, and the photograph is the last one with a grade before it; where there is
    /// none, the last one. Left out is whom a reviewer could not grade because the photographs do not show enough.
    /// DIR/labels.csv and DIR/images are what `memebg evaluate --data` and `memebg train --data` take; its groups are
    /// hashes of the embryo ids. Exit code 1 if an image or an event is not to be had any more.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Folder for the labelled set; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only grades that were given before memebg's was seen: whoever has seen it leans towards it.
    #[arg(long)]
    blinded: bool,
    /// Exit code 0 also where something is not to be had any more.
    #[arg(long)]
    allow_missing: bool,
    /// How long reading the topics may take, all together.
    #[arg(long, value_name = "N", default_value_t = 300)]
    timeout_seconds: u64,
}

pub(super) async fn run(
    config: Config,
    command: ReviewsCommand,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let ReviewsCommand::Export(args) = command;
    tokio::task::spawn_blocking(move || export(&config, &args, &stop)).await?
}

fn export(config: &Config, args: &ExportArgs, stop: &CancellationToken) -> anyhow::Result<()> {
    let out = &args.out;
    let cannot = || format!("cannot write to {}", out.display());
    fs::create_dir_all(out).with_context(cannot)?;
    anyhow::ensure!(
        out.read_dir().with_context(cannot)?.next().is_none(),
        "{} is not empty: choose a new folder, so that no other label is mixed in",
        out.display()
    );
    let history = History::new(&config.kafka, Duration::from_secs(args.timeout_seconds), stop);
    let choices = summaries(&history, &config.summaries.topic, |_| true, |it| choose(&it, args.blinded))?;
    let (mut chosen, mut left_out, mut unreadable) = (Vec::new(), BTreeMap::new(), 0);
    for choice in choices.into_values() {
        match choice {
            Ok(Choice::NotReviewed) => {}
            Ok(Choice::Chosen(one)) => chosen.push(one),
            Ok(Choice::LeftOut(why)) => *left_out.entry(why).or_insert(0) += 1,
            Err(why) => {
                tracing::warn!("{why}");
                unreadable += 1;
            }
        }
    }
    let reviewed = chosen.len() + left_out.values().sum::<usize>();
    let labels = found(config, &history, chosen, out).with_context(cannot)?;
    let missing = reviewed - left_out.values().sum::<usize>() - labels.len() + unreadable;
    labels.write().with_context(cannot)?;
    println!("{}: {} of {reviewed} reviewed embryos", out.display(), labels.len());
    for (why, embryos) in left_out {
        println!("left out: {embryos}, {why}");
    }
    if missing > 0 {
        println!("missing: {missing}, whose summary, grade event or image is not to be had any more");
    }
    anyhow::ensure!(
        missing == 0 || args.allow_missing,
        "the set lacks {missing} embryos; --allow-missing if that is meant"
    );
    Ok(())
}

/// Finds the photographs and writes them.
fn found(
    config: &Config,
    history: &History,
    chosen: Vec<Chosen>,
    out: &std::path::Path,
) -> anyhow::Result<LabelledSet> {
    let since = chosen.iter().map(|it| it.since_ms).min();
    let embryos: BTreeSet<String> = chosen.iter().map(|it| it.embryo_id.clone()).collect();
    let mut by_grade: BTreeMap<String, Chosen> =
        chosen.into_iter().map(|it| (it.grade_id.clone(), it)).collect();
    let mut set = LabelledSet::new(out, &config.decode)?;
    let wanted = by_grade.keys().cloned().collect();
    grades(history, &config.kafka.grades_topic, since, wanted, |event| {
        if let Some(chosen) = by_grade.remove(event.id.as_str()) {
            set.want(event.image_sha256, chosen);
        }
    })?;
    let embryos = embryos.iter().map(String::as_str).collect();
    images(config, history, (&embryos, since), &mut set)?;
    set.settled()
}

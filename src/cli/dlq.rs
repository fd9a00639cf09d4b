//! `memebg dlq`: what lies in the dead-letter topic, and sending it back once the cause is gone.

mod args;
mod event;
mod ls;
mod show;

use std::io::{self, Write};

use chrono::Utc;
use clap::{ArgGroup, Args, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::KafkaSettings;
use crate::kafka::dead_letters::{Fate, ReplayOptions, replay};
use crate::pipeline::message::Position;
use args::{FilterArgs, position};

#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List the newest dead letters, and count all by stage and code.
    Ls(ls::LsArgs),
    /// Show everything that is known of one dead letter, but its image.
    Show(show::ShowArgs),
    /// Send the frames of dead letters back to the frames topic, each once.
    ///
    /// Key, value, headers and timestamp are those of the refused frame. Beside each frame goes a marker into
    /// the dead-letter topic, in one transaction, so that the next replay leaves its letter alone. A letter
    /// without its value is sent from where the value was left, if it still lies there. A frame that fails
    /// again becomes a new letter.
    ///
    /// What the service then does with a frame: it is graded only if it is selected, as at first. Where
    /// select.spacing_minutes is set and a later run of its embryo has been selected meanwhile, it is skipped
    /// as spaced_out; where select.focal_planes is "sharpest", the other planes of its run have been decided
    /// without it, so the run may get a second grade. A frame that has been graded gets the same grade id.
    ///
    /// Ctrl-C sends what was begun and stops. Exit code 1 if any letter could not be replayed.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true)
    .args(["positions", "all", "stage", "code", "site", "since", "until"]))]
pub(super) struct ReplayArgs {
    /// The letters at these positions of the dead-letter topic, as `ls` shows them.
    #[arg(value_name = "PARTITION:OFFSET", value_parser = position)]
    positions: Vec<Position>,
    /// Every letter.
    #[arg(long, conflicts_with_all = ["positions", "stage", "code", "site", "since", "until"])]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Send what has been replayed before, too.
    #[arg(long)]
    again: bool,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(config: Config, command: DlqCommand, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = config.kafka;
    let work = move || {
        let mut out = io::stdout().lock();
        match command {
            DlqCommand::Ls(args) => ls::run(&settings, &args, &stop, &mut out),
            DlqCommand::Show(args) => show::run(&settings, &args, &stop, &mut out),
            DlqCommand::Replay(args) => replay_letters(&settings, args, &stop, &mut out),
        }
    };
    let done = tokio::task::spawn_blocking(work).await?;
    // Whoever reads the first lines only has seen what they wanted.
    let is_cut = |error: &anyhow::Error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    done.or_else(|error| if is_cut(&error) { Ok(()) } else { Err(error) })
}

fn replay_letters(
    settings: &KafkaSettings,
    args: ReplayArgs,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut filter = args.filter.filter(Utc::now())?;
    filter.positions.extend(args.positions);
    let options = ReplayOptions { again: args.again, dry_run: args.dry_run };
    let sent = if args.dry_run { "would be replayed" } else { "replayed" };
    let tally = replay(settings, &filter, options, stop, |Position { partition, offset }, fate| {
        let said = match fate {
            Fate::Replayed => writeln!(out, "{partition}:{offset}  {sent}"),
            Fate::NotReplayable(why) => writeln!(out, "{partition}:{offset}  not replayable: {why}"),
        };
        // What is sent is sent, whoever listens.
        drop(said);
    })?;
    writeln!(
        out,
        "{} {sent}, {} replayed before, {} not replayable",
        tally.replayed, tally.replayed_before, tally.not_replayable
    )?;
    anyhow::ensure!(tally.not_replayable == 0, "{} letters could not be replayed", tally.not_replayable);
    Ok(())
}

//! `memebg emr`.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::EmbryoSummary;
use crate::fhir;

#[derive(Debug, clap::Args)]
pub(super) struct EmrArgs {
    /// Print the bundle of each of these summaries, as it would be sent, and send nothing. Without Kafka, which says
    /// when a summary was published, the time of its last frame or review stands for that.
    #[arg(long, value_name = "SUMMARY.json", num_args = 1..)]
    dry_run: Vec<PathBuf>,
}

pub(super) async fn run(config: Config, args: EmrArgs, _stop: CancellationToken) -> anyhow::Result<()> {
    for file in &args.dry_run {
        println!("{}", dry_run(&config, file)?);
    }
    Ok(())
}

fn dry_run(config: &Config, file: &std::path::Path) -> anyhow::Result<String> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let summary: EmbryoSummary =
        serde_json::from_slice(&text).with_context(|| format!("{} is not a summary", file.display()))?;
    let captured_at = summary.last_frame.captured_at;
    let published_at = summary.review.as_ref().map_or(captured_at, |it| it.reviewed_at.max(captured_at));
    Ok(serde_json::to_string_pretty(&fhir::bundle(&summary, published_at, config.emr.version))?)
}

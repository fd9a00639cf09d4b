//! `memebg report`: per embryo, one page to print and to keep.

mod files;
mod looked;
mod photographs;
mod topics;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::heatmap::Looker;
use crate::pipeline::PIPELINE_VERSION;
use crate::report::{Case, ReportData, file_name, html};
use photographs::Photographs;

#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// Embryos whose summary, grade events and photographs are read from Kafka.
    #[arg(value_name = "EMBRYO_ID", required_unless_present = "summary")]
    embryos: Vec<String>,
    /// Folder for the reports; it is made where it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long reading the topics may take, all together.
    #[arg(long, value_name = "N", default_value_t = 300)]
    timeout_seconds: u64,
    /// Without Kafka: a file with the value of a summary.
    #[arg(long, value_name = "FILE", conflicts_with = "embryos", requires = "grades")]
    summary: Option<PathBuf>,
    /// Without Kafka: a file with the values of grade events, one a line.
    #[arg(long, value_name = "FILE", requires = "summary")]
    grades: Option<PathBuf>,
    /// Without Kafka: a folder with the images that were graded, under any names.
    #[arg(long, value_name = "DIR", requires = "summary")]
    images: Option<PathBuf>,
}

/// What was found: a case for every embryo of which there is a summary, the pictures for it, and whose was not found.
struct Found {
    cases: Vec<Case>,
    photographs: Photographs,
    /// Embryos without a report, and why.
    without: Vec<String>,
}

pub(super) async fn run(config: Config, args: ReportArgs, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || make(&config, &args, &stop)).await?
}

fn make(config: &Config, args: &ReportArgs, stop: &CancellationToken) -> anyhow::Result<()> {
    let found = match (&args.summary, &args.grades) {
        (Some(summary), Some(grades)) => files::read(config, summary, grades, args.images.as_deref())?,
        _ => {
            let embryos: BTreeSet<&str> = args.embryos.iter().map(String::as_str).collect();
            topics::read(config, &embryos, args.timeout_seconds, stop)?
        }
    };
    let Found { cases, photographs, without } = found;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut looker = Looker::new(&config.model);
    for case in cases {
        anyhow::ensure!(!stop.is_cancelled(), "stopped before every report was made");
        let looked = looked::look(&mut looker, &case, &photographs, &config.decode);
        let photographs = photographs.of(&case);
        let made_by = PIPELINE_VERSION.to_owned();
        let name = file_name(&case.summary().embryo_id);
        let page = html(&ReportData { case, photographs, looked, made_at: Utc::now(), made_by });
        println!("{}", write(&args.out, &name, &page)?.display());
    }
    anyhow::ensure!(without.is_empty(), "no report of {}", without.join("; "));
    Ok(())
}

/// Whoever opens the file finds all of it, or the one before.
fn write(folder: &Path, name: &str, page: &str) -> anyhow::Result<PathBuf> {
    let (path, unfinished) = (folder.join(name), folder.join(format!("{name}.unfinished")));
    fs::write(&unfinished, page)
        .and_then(|()| fs::rename(&unfinished, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

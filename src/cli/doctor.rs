//! `memebg doctor`: what works, what does not, and what to do.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::doctor::{Check, Fault, Origin, Process, Report, Status, examine};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Of which processes, separated by commas or each with its own --of.
    #[arg(long, value_name = "PROCESS", value_delimiter = ',', default_value = "serve", value_parser = processes())]
    of: Vec<Process>,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
    /// How long each check may take.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout_seconds: u64,
}

fn processes() -> impl TypedValueParser<Value = Process> {
    let names = PossibleValuesParser::new(Process::ALL.iter().map(|process| process.as_str()));
    names.try_map(|name| {
        let known = Process::ALL.iter().copied().find(|process| process.as_str() == name);
        known.ok_or("no such process")
    })
}

/// Some check failed.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {checks} checks failed")]
pub(super) struct Unhealthy {
    failed: usize,
    checks: usize,
    /// Whose fault it is.
    pub(super) fault: Fault,
}

#[derive(Serialize)]
struct Document<'a> {
    checks: &'a [Check],
    healthy: bool,
}

pub(super) async fn run(
    config: Config,
    origin: Origin,
    args: DoctorArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let timeout = Duration::from_secs(args.timeout_seconds);
    let report = tokio::select! {
        report = examine(&config, &origin, &args.of, timeout) => report,
        () = stop.cancelled() => anyhow::bail!("stopped before everything was looked at"),
    };
    let fault = report.fault();
    let text = if args.json {
        let document = Document { checks: &report.checks, healthy: fault.is_none() };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        lines(&report, io::stdout().is_terminal())
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    match fault {
        None => Ok(()),
        Some(fault) => {
            Err(Unhealthy { failed: report.count("fail"), checks: report.checks.len(), fault }.into())
        }
    }
}

/// A line per check, what to do below it, and how many ended how.
fn lines(report: &Report, colour: bool) -> String {
    let paint = |status: Status| {
        let code = match status {
            Status::Ok => "32",
            Status::Warn => "33",
            Status::Fail(_) => "31",
            Status::Skipped => "2",
        };
        let text = status.as_str();
        if colour { format!("\x1b[{code}m{text:7}\x1b[0m") } else { format!("{text:7}") }
    };
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, status, found, advice } in &report.checks {
        // What others say may have more than one line.
        let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
        // Writing to a string cannot fail.
        writeln!(text, "{}  {name:width$}  {found}", paint(*status)).ok();
        if let Some(advice) = advice {
            writeln!(text, "{:7}  {:width$}  -> {advice}", "", "").ok();
        }
    }
    let count = |status| report.count(status);
    let (ok, warn, fail, skipped) = (count("ok"), count("warn"), count("fail"), count("skipped"));
    writeln!(text, "{ok} ok, {warn} to look at, {fail} failed, {skipped} skipped").ok();
    text
}

//! The command line: what a person or a container starts.

mod adapt;
mod board;
mod demo;
mod dlq;
mod doctor;
mod emr;
mod evaluate;
mod explain;
mod grade;
mod incubate;
mod labelled;
mod probes;
mod progress;
mod published;
mod report;
mod reviews;
mod serve;
mod summarize;
#[cfg(feature = "train")]
mod train;
mod verify;
mod view;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::adapter::AdapterError;
use crate::config::{Config, ConfigError, ENVIRONMENT_PREFIX, Layers};
use crate::doctor::{Fault, Origin};
use crate::kafka;
use crate::pipeline::fetch::{FetchSetupError, Fetcher};
use crate::pipeline::publish::SinkError;
use crate::telemetry::logging;
use crate::training::DataError;

/// Failed.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// An external part was lost: Kafka does not answer or does not confirm.
const LOST: u8 = 3;

/// Grades human blastocysts as time-lapse incubators photograph them.
///
/// Decision support: every grade is preliminary until an embryologist signs.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Cli {
    /// TOML file with the options that differ from the defaults.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One option, e.g. --set select.min_hpi=108. Repeatable; beats file and environment.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process: embedded Kafka, synthetic incubators, the service, live grades.
    Demo(demo::DemoArgs),
    /// The service: frame events in, grade events out.
    Serve,
    /// Per embryo, what all its grades of day 5 say together: grade events in, summaries out.
    Summarize,
    /// A page that shows every well with its last photograph and grade, and takes reviews.
    Board,
    /// Bring an EMR to what the summaries say: summaries in, HL7 FHIR transactions out, to a server or a topic.
    Emr(emr::EmrArgs),
    /// Grade image files, without Kafka.
    Grade(grade::GradeArgs),
    /// Make a published grade again from its image and its bundle, and say whether it is the same.
    Verify(verify::VerifyArgs),
    /// Per embryo, one page to print and to keep: photographs, grades, where the model looked, and what it all rests on.
    Report(report::ReportArgs),
    /// Measure a model, or a way of training one, on a labelled set.
    Evaluate(evaluate::EvaluateArgs),
    /// Put the frames of synthetic incubators, or of a folder, onto the frames topic.
    Incubate(incubate::IncubateArgs),
    /// Put the photographs that an incubator exports into a folder onto the frames topic.
    ///
    /// For incubators that write files and not to Kafka: section [adapter] of the configuration. The folder is only
    /// read; what was sent is remembered over restarts.
    Adapt(adapt::AdaptArgs),
    /// What embryologists have said of the embryos, as a labelled set to train on.
    #[command(subcommand)]
    Reviews(reviews::ReviewsCommand),
    /// Look through the dead-letter topic and send frames back from it.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Look at everything that the service, or a process beside it, will need: what is wrong, and what to do.
    ///
    /// Kafka, its topics and access rights, clocks, ONNX Runtime, model, device, image stores, ports, memory, FHIR server,
    /// collector of traces. With --of summarize,board and the like of other processes. Joins no group, writes to no
    /// topic and fetches nothing, so it may run beside all of them. Exit code 0 when nothing failed, 1 when something
    /// has to be mended, 2 when the configuration cannot be used, 3 when something outside cannot be reached and nothing
    /// else is wrong.
    Doctor(doctor::DoctorArgs),
    /// Train a model on labelled images and write it as a bundle.
    #[cfg(feature = "train")]
    Train(train::TrainArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration, without secrets.
    Show,
    /// Say whether the configuration is usable.
    Check,
}

/// Runs the command and says how it ended.
pub fn run(cli: Cli) -> ExitCode {
    let result = start(cli);
    let Err(error) = result else { return ExitCode::SUCCESS };
    // `eprintln!` and not a log line: the log may not have been started.
    eprintln!("error: {error:#}");
    ExitCode::from(exit_code(&error))
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let demo = matches!(cli.command, Command::Demo(_));
    let layers = Layers { demo, file: cli.config, set: cli.set };
    let config = Config::load(&layers, std::env::vars_os())?;
    let origin = origin(&layers);
    match cli.command {
        Command::Config(ConfigCommand::Show) => {
            print!("{}", config.redacted()?);
            return Ok(());
        }
        Command::Config(ConfigCommand::Check) => {
            Fetcher::new(&config.fetch, config.decode.max_image_bytes)?;
            println!("configuration is usable");
            return Ok(());
        }
        // It says itself what it finds, and whoever reads it has no use for the lines of the parts.
        Command::Doctor(_) => {}
        _ => logging::init(&config.telemetry)?,
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = stop_on_signal()?;
        match cli.command {
            Command::Demo(args) => demo::run(config, args, stop).await,
            Command::Serve => serve::run(config, stop).await,
            Command::Summarize => summarize::run(config, stop).await,
            Command::Board => board::run(config, stop).await,
            Command::Emr(args) => emr::run(config, args, stop).await,
            Command::Grade(args) => grade::run(config, args, stop).await,
            Command::Verify(args) => verify::run(config, args, stop).await,
            Command::Report(args) => report::run(config, args, stop).await,
            Command::Evaluate(args) => evaluate::run(config, args, stop).await,
            Command::Incubate(args) => incubate::run(config, args, stop).await,
            Command::Adapt(args) => adapt::run(config, args, stop).await,
            Command::Reviews(command) => reviews::run(config, command, stop).await,
            Command::Dlq(command) => dlq::run(config, command, stop).await,
            Command::Doctor(args) => doctor::run(config, origin, args, stop).await,
            #[cfg(feature = "train")]
            Command::Train(args) => train::run(config, args, stop).await,
            Command::Config(_) => Ok(()),
        }
    });
    // What still blocks a thread has been given its time by the command itself.
    runtime.shutdown_background();
    result
}

fn origin(layers: &Layers) -> Origin {
    let is_option = |name: &OsString| name.to_str().is_some_and(|it| it.starts_with(ENVIRONMENT_PREFIX));
    Origin {
        file: layers.file.clone(),
        variables: std::env::vars_os().filter(|(name, _)| is_option(name)).count(),
        assignments: layers.set.len(),
    }
}

/// Cancelled by SIGTERM or Ctrl-C. A second one ends the process at once, which loses nothing either:
/// what is not committed is read again.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            cancelled.cancel();
            if last {
                std::process::exit(i32::from(FAILED));
            }
        }
    });
    Ok(stop)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(unhealthy) = error.downcast_ref::<doctor::Unhealthy>() {
        return match unhealthy.fault {
            Fault::ToMend => FAILED,
            Fault::Configuration => USAGE,
            Fault::Unreachable => LOST,
        };
    }
    let lost = |cause: &(dyn std::error::Error + 'static)| {
        let gone = |error: &kafka::Error| {
            matches!(error, kafka::Error::Client { .. } | kafka::Error::Transaction(..))
        };
        cause.is::<SinkError>() || cause.downcast_ref().is_some_and(gone)
    };
    let usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<ConfigError>()
            || cause.is::<FetchSetupError>()
            || cause.is::<DataError>()
            || matches!(cause.downcast_ref(), Some(AdapterError::Setting { .. }))
            || matches!(cause.downcast_ref(), Some(kafka::Error::Settings(_)))
    };
    if error.chain().any(usage) {
        USAGE
    } else if error.chain().any(lost) {
        LOST
    } else {
        FAILED
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;
    use crate::training::LabelledImages;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_exit_code_says_whose_fault_it_is() {
        let config =
            Config::load(&Layers { set: vec!["batch.max_frames=65".into()], ..Layers::default() }, []);
        assert_eq!(exit_code(&config.unwrap_err().into()), USAGE);
        let unlabelled = LabelledImages::read(Path::new("no/such/folder"), |_| Err(String::new()));
        assert_eq!(exit_code(&unlabelled.unwrap_err().into()), USAGE);
        let lost =
            anyhow::Error::new(SinkError::NotConfirmed("timed out".into())).context("stage publish failed");
        assert_eq!(exit_code(&lost), LOST);
        assert_eq!(exit_code(&anyhow::anyhow!("no model")), FAILED);
    }
}

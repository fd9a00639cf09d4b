//! `memebg evaluate`: how good a model, or a way of training one, is on a labelled set.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use tokio_util::sync::CancellationToken;

use super::labelled;
use crate::config::Config;
use crate::training::{
    DataError, Evaluation, LabelledImages, Protocol, finished, population, report, set_population, table,
};

#[derive(Debug, clap::Args)]
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "some options matter to training only"))]
pub(super) struct EvaluateArgs {
    /// Folder with labels.csv (image,stage,exp,icm,te and optionally group) and the images, there or in images/.
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Train networks on parts of the set and test each on what it has not seen; without it, the model
    /// of `model.bundle` answers all of the set.
    #[arg(long, value_parser = protocols())]
    pub(super) protocol: Option<Protocol>,
    /// Whether training changes the encoders.
    #[arg(long, value_enum, default_value_t = Encoders::Frozen, requires = "protocol")]
    pub(super) encoders: Encoders,
    /// Initial weights of the ResNet: a file, or `scratch` for random ones.
    #[arg(long, value_name = "FILE|scratch", requires = "protocol")]
    pub(super) init: Option<Init>,
    /// Largest share of wrong grades that thresholds are chosen for.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share, requires = "protocol")]
    pub(super) risk_target: f64,
    /// Seed of the cuts and of the training.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "protocol")]
    pub(super) seed: u64,
    /// Keep what the model says of these pictures in its bundle, as what drift is measured against. Take pictures of the
    /// incubators and patients that it is used for; the bundle's digest changes.
    #[arg(long, conflicts_with = "protocol")]
    pub(super) set_population: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the report for a browser: one file that needs nothing else.
    #[arg(long, value_name = "FILE.html", value_parser = writable)]
    pub(super) report: Option<PathBuf>,
}

/// What is done with the encoders, ResNet and DINOv2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Encoders {
    /// Nothing: only what follows them is trained.
    Frozen,
    /// The ResNet is trained too.
    Finetune,
}

#[cfg(feature = "train")]
impl Encoders {
    /// As it is written on the command line and in an evaluation.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Finetune => "finetune",
        }
    }
}

/// Where the ResNet starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Init {
    /// Random weights.
    Scratch,
    /// The weights of a file.
    File(PathBuf),
}

impl From<&str> for Init {
    fn from(text: &str) -> Self {
        if text == "scratch" { Self::Scratch } else { Self::File(PathBuf::from(text)) }
    }
}

fn protocols() -> impl clap::builder::TypedValueParser<Value = Protocol> {
    let names = PossibleValuesParser::new(Protocol::ALL.iter().map(|protocol| protocol.as_str()));
    names.try_map(|name| {
        let known = Protocol::ALL.iter().copied().find(|protocol| protocol.as_str() == name);
        known.ok_or("no such protocol")
    })
}

/// A share of wrong grades that thresholds are chosen for.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a share of 0 to 1".to_owned()),
    }
}

/// Found out beforehand, not after hours of training.
fn writable(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        return Err("not a file in a folder that exists".to_owned());
    }
    Ok(path)
}

pub(super) async fn run(config: Config, args: EvaluateArgs, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        evaluated = tokio::task::spawn_blocking(move || evaluate(&config, &args)) => evaluated?,
        () = stop.cancelled() => anyhow::bail!("stopped before the evaluation was complete"),
    }
}

fn evaluate(config: &Config, args: &EvaluateArgs) -> anyhow::Result<()> {
    let evaluation = match args.protocol {
        None => examine(config, args)?,
        Some(protocol) => cross_validate(config, args, protocol)?,
    };
    if let Some(path) = &args.report {
        fs::write(path, report::html(&evaluation))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&evaluation)?);
        return Ok(());
    }
    println!("{}", table::text(&evaluation));
    if let Some(path) = &args.report {
        println!("report: {}", path.display());
    }
    println!("{} on {} images of {}", evaluation.model, evaluation.data.images, evaluation.data.name);
    Ok(())
}

/// Everything that is wrong with the set is known before a model is loaded.
fn read(config: &Config, args: &EvaluateArgs) -> Result<LabelledImages, DataError> {
    LabelledImages::read(&args.data, labelled::decode(config))
}

/// Asks the model of the configuration.
fn examine(config: &Config, args: &EvaluateArgs) -> anyhow::Result<Evaluation> {
    let began = Instant::now();
    let images = read(config, args)?;
    let (answers, mut manifest) = labelled::asked(&config.model, &images, ("pictures", args.json))?;
    let evaluation = finished::evaluation(&images, &answers, &manifest, began.elapsed().as_secs_f64());
    if args.set_population {
        let population = population(&images, &answers, &manifest)
            .context("too few graded blastocysts with letters for a population")?;
        set_population(&config.model.bundle, &mut manifest, &population)?;
    }
    Ok(evaluation)
}

/// Trains networks and tests them.
#[cfg(feature = "train")]
fn cross_validate(config: &Config, args: &EvaluateArgs, protocol: Protocol) -> anyhow::Result<Evaluation> {
    super::train::cross_validate(config, args, &read(config, args)?, protocol)
}

#[cfg(not(feature = "train"))]
fn cross_validate(_: &Config, _: &EvaluateArgs, _: Protocol) -> anyhow::Result<Evaluation> {
    anyhow::bail!("--protocol trains networks: build with `cargo build --release --features train`")
}

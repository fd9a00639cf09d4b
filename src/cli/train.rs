//! `memebg train`: from labelled pictures to a bundle; and the trainings of `memebg evaluate`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::evaluate::{Encoders, EvaluateArgs, Init, share};
use super::labelled;
use super::progress::{bar, counted};
use crate::config::Config;
use crate::domain::Head;
use crate::model::{Bundle, Manifest, ModelSettings, bundle::Network, cache_dir, onnx::read_weights};
use crate::training::bundle::Trained;
use crate::training::card::{Card, metrics};
use crate::training::cross_validate::{self, Set};
use crate::training::encode::{self, features};
use crate::training::end_to_end::{self, Stage, stages};
use crate::training::evaluation::{Abstention, DataSummary};
use crate::training::finetune::Normalisation;
use crate::training::fit::Progress;
use crate::training::frozen::Features;
use crate::training::trainer::{self, Outcome};
use crate::training::weights::{Weight, Weights};
use crate::training::written::{write, write_manifest};
use crate::training::{
    Evaluation, HeadEvaluation, LabelledImages, Protocol, Sample, finished, population, set_population,
};

#[derive(Debug, clap::Args)]
pub(super) struct TrainArgs {
    /// Folder with labels.csv (image,stage,exp,icm,te and optionally group) and the images, there or in images/.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The bundle to make, a new folder; its name is the model's.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Whether training changes the encoders: `finetune` takes hours on a CPU.
    #[arg(long, value_enum, default_value_t = Encoders::Frozen)]
    encoders: Encoders,
    /// Initial weights of the ResNet: a torchvision safetensors file, a bundle, or `scratch` for random
    /// ones. Otherwise those of the configured bundle, which also gives the embedding network.
    #[arg(long, value_name = "PATH|scratch")]
    init: Option<Init>,
    /// Largest share of wrong grades among those given, that the thresholds are chosen for.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    risk_target: f64,
    /// Seed of everything random: the same seed and set make the same bundle.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Another labelled set that the finished bundle is measured on, for its card. Repeatable.
    #[arg(long, value_name = "DIR")]
    test: Vec<PathBuf>,
    /// Version of the bundle.
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    model_version: String,
    /// Licence of the bundle, an SPDX expression.
    #[arg(long, value_name = "SPDX", default_value = "LicenseRef-Proprietary")]
    license: String,
    /// What the pictures are and where they come from, a sentence for the manifest and the card.
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,
}

pub(super) async fn run(config: Config, args: TrainArgs, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        trained = tokio::task::spawn_blocking(move || train(&config, &args)) => trained?,
        () = stop.cancelled() => anyhow::bail!("stopped; the same command goes on from here"),
    }
}

fn train(config: &Config, args: &TrainArgs) -> anyhow::Result<()> {
    anyhow::ensure!(!args.out.exists(), "{} exists: choose a new folder", args.out.display());
    let name = args.out.file_name().context("--out has no name")?.to_string_lossy().into_owned();
    let images = LabelledImages::read(&args.data, labelled::decode(config))?;
    let tests = args
        .test
        .iter()
        .map(|dir| LabelledImages::read(dir, labelled::decode(config)))
        .collect::<Result<Vec<_>, _>>()?;
    let prepared = Prepared::new(config, &images, args.init.as_ref(), args.seed, false)?;
    let began = Instant::now();
    let outcome = match args.encoders {
        Encoders::Frozen => {
            let bar = bar("networks", false)?;
            let done = |done, of| counted(&bar, done, of);
            trainer::frozen(prepared.set(), args.seed, args.risk_target, &done)?
        }
        Encoders::Finetune => {
            let folder = sibling(&args.out, "training");
            prepared.end_to_end(args.seed, args.risk_target, &folder, false)?
        }
    };
    let about = args.about.as_deref().unwrap_or("Labelled by whoever trained it");
    let training_data = format!(
        "{about}. {} graded pictures of the labelled set {}, sha256 {}",
        prepared.graded.len(),
        DataSummary::of(&images).name,
        images.sha256
    );
    let Outcome { heads, abstention, protocol, .. } = outcome;
    let course = (args.encoders, protocol, args.seed);
    let evaluation = evaluation(&images, course, began, (heads, Some(abstention)), Vec::new());
    let mut weights = prepared.resnet.clone();
    weights.extend(outcome.weights);
    let trained = Trained {
        weights: weights.rounded_to_half(),
        references: outcome.references,
        out_of_distribution: outcome.out_of_distribution,
        calibration: outcome.calibration,
        base: &prepared.base,
        name,
        version: args.model_version.clone(),
        license: args.license.clone(),
        training_data,
        created: Utc::now().date_naive(),
    };

    // Whole or not at all: a bundle without its card never has its name.
    let unfinished = sibling(&args.out, "unfinished");
    let mut manifest = trained.write(&unfinished)?;
    let settings = ModelSettings { bundle: unfinished.clone(), ..config.model.clone() };
    let measured = |test| {
        let began = Instant::now();
        let (answers, manifest) = labelled::asked(&settings, test, ("pictures of a test set", false))?;
        anyhow::Ok(finished::evaluation(test, &answers, &manifest, began.elapsed().as_secs_f64()))
    };
    let tests = tests.iter().map(measured).collect::<Result<Vec<_>, _>>()?;
    manifest.metrics = metrics(&evaluation, &tests);
    let (answers, _) = labelled::asked(&settings, &images, ("pictures of the population", false))?;
    match population(&images, &answers, &manifest) {
        Some(population) => set_population(&unfinished, &mut manifest, &population)?,
        None => write_manifest(&unfinished, &manifest)?,
    }
    let (encoders, recipe) = (encoders_in_words(args, &prepared), recipe(args));
    let card = Card {
        manifest: &manifest,
        held_out: &evaluation,
        tests: &tests,
        recipe: &recipe,
        encoders: &encoders,
    };
    write(&unfinished.join("CARD.md"), card.markdown().as_bytes())?;
    fs::rename(&unfinished, &args.out).with_context(|| format!("{} cannot be made", args.out.display()))?;
    drop(fs::remove_dir_all(sibling(&args.out, "training")));
    println!("{}", crate::training::table::text(&evaluation));
    for test in &tests {
        println!("{}", crate::training::table::text(test));
    }
    println!("bundle: {}", args.out.display());
    Ok(())
}

/// The trainings of `memebg evaluate --protocol`.
pub(super) fn cross_validate(
    config: &Config,
    args: &EvaluateArgs,
    images: &LabelledImages,
    protocol: Protocol,
) -> anyhow::Result<Evaluation> {
    let began = Instant::now();
    let prepared = Prepared::new(config, images, args.init.as_ref(), args.seed, args.json)?;
    let mut notes =
        vec!["The figures are of pictures that the network which graded them was not trained on.".to_owned()];
    let measured = match args.encoders {
        Encoders::Frozen => {
            let bar = bar("networks", args.json)?;
            let done = |done, of| counted(&bar, done, of);
            let answers = cross_validate::frozen(prepared.set(), (protocol, true, args.seed), &done)?;
            let heads = Head::ALL.iter().zip(&answers.multi).zip(&answers.single);
            let heads =
                heads.filter_map(|((head, multi), single)| HeadEvaluation::of(*head, multi, Some(single)));
            (heads.collect(), None)
        }
        Encoders::Finetune => {
            anyhow::ensure!(
                protocol == Protocol::Holdout,
                "--encoders finetune trains for hours: only --protocol holdout is offered"
            );
            notes.push(
                "Single-task networks were not trained: three more trainings of this length.".to_owned(),
            );
            let cache = cache_dir(&config.model.runtime.cache_dir)?;
            let folder = cache.join("training").join(format!("{}-{}", images.sha256, args.seed));
            let outcome = prepared.end_to_end(args.seed, args.risk_target, &folder, args.json)?;
            drop(fs::remove_dir_all(&folder));
            (outcome.heads, Some(outcome.abstention))
        }
    };
    Ok(evaluation(images, (args.encoders, protocol, args.seed), began, measured, notes))
}

/// A labelled set with the features of its pictures.
struct Prepared<'a> {
    samples: Vec<&'a Sample>,
    graded: Vec<usize>,
    features: Features,
    base: Bundle,
    resnet: Weights,
    stages: Vec<Stage>,
}

impl<'a> Prepared<'a> {
    fn new(
        config: &Config,
        images: &'a LabelledImages,
        init: Option<&Init>,
        seed: u64,
        quiet: bool,
    ) -> anyhow::Result<Self> {
        let base = Bundle::open(&config.model.bundle)?;
        let shapes = resnet_shapes();
        let from_scratch = init == Some(&Init::Scratch);
        let resnet = match init {
            Some(Init::Scratch) => Weights::random(&shapes, seed),
            Some(Init::File(path)) if path.is_dir() => resnet_of(&Bundle::open(path)?)?,
            Some(Init::File(path)) => Weights::read_torchvision(path)?,
            None => resnet_of(&base)?,
        };
        resnet.covers(&shapes).map_err(|reason| anyhow::anyhow!("initial ResNet: {reason}"))?;
        let samples: Vec<&Sample> = images.samples.iter().collect();
        let is_graded = |index: &usize| samples.get(*index).is_some_and(|sample| sample.truth.exp.is_some());
        let graded: Vec<usize> = (0..samples.len()).filter(is_graded).collect();
        let mut model = config.model.clone();
        model.batch_sizes = vec![1, 16];
        let mut encoders = encode::Encoders::load(&model, &base, &resnet)?;
        let bar = bar("pictures encoded", quiet)?;
        let total = samples.len();
        let done = |done| counted(&bar, done, total);
        let cache = cache_dir(&config.model.runtime.cache_dir)?;
        let features = features(&samples, &mut encoders, &cache, &done)?;
        Ok(Self { samples, graded, features, base, resnet, stages: stages(from_scratch, seed) })
    }

    fn set(&self) -> Set<'_> {
        Set { samples: &self.samples, graded: &self.graded, features: &self.features }
    }

    fn end_to_end(&self, seed: u64, risk: f64, folder: &Path, quiet: bool) -> anyhow::Result<Outcome> {
        let bar = bar("epochs", quiet)?;
        let all: usize = self.stages.iter().map(|stage| stage.schedule.epochs).sum();
        let mut told = |number: usize, stage: &Stage, progress: &Progress| {
            let before: usize = self.stages.iter().take(number).map(|stage| stage.schedule.epochs).sum();
            counted(&bar, before + progress.epoch, all);
            let Progress { epoch, loss, validation_loss, best_epoch, .. } = progress;
            let validation = validation_loss.unwrap_or(f64::NAN);
            bar.println(format!(
                "{} px, epoch {epoch}: loss {loss:.3}, validation {validation:.3}, best epoch {best_epoch}",
                stage.side_px
            ));
        };
        let input = &self.base.manifest().input;
        let normalisation = Normalisation { mean: single(input.mean), std: single(input.std) };
        let start = (&self.resnet, self.stages.as_slice());
        Ok(trainer::end_to_end(self.set(), normalisation, start, (seed, risk), folder, &mut told)?)
    }
}

fn resnet_shapes() -> Vec<(String, Vec<usize>)> {
    let shapes = end_to_end::shapes().into_iter();
    shapes.filter_map(|(name, dims)| Some((name.strip_prefix("resnet.")?.to_owned(), dims))).collect()
}

fn resnet_of(bundle: &Bundle) -> anyhow::Result<Weights> {
    let network: &Network = bundle.multitask();
    let weights = read_weights(network.data())
        .map_err(|reason| anyhow::anyhow!("{}: {reason}; give another --init", network.path().display()))?;
    Ok(Weights(weights.into_iter().map(|(name, (dims, values))| (name, Weight { dims, values })).collect()))
}

/// What held-out samples say of networks that were trained on the others.
fn evaluation(
    images: &LabelledImages,
    (encoders, protocol, seed): (Encoders, Protocol, u64),
    began: Instant,
    (heads, abstention): (Vec<HeadEvaluation>, Option<Abstention>),
    notes: Vec<String>,
) -> Evaluation {
    let data = DataSummary::of(images);
    Evaluation {
        model: format!("networks trained on parts of {}", data.name),
        data,
        encoders: encoders.as_str().to_owned(),
        protocol: Some(protocol),
        seed,
        seconds: began.elapsed().as_secs_f64(),
        heads,
        abstention,
        out_of_distribution: None,
        notes,
    }
}

fn encoders_in_words(args: &TrainArgs, prepared: &Prepared<'_>) -> String {
    let Manifest { name, version, .. } = prepared.base.manifest();
    let resnet = match &args.init {
        Some(Init::Scratch) => "random weights".to_owned(),
        Some(Init::File(path)) => {
            format!("the weights of {}", path.file_name().unwrap_or_default().to_string_lossy())
        }
        None => format!("the ResNet of {name} {version}"),
    };
    let what = match args.encoders {
        Encoders::Frozen => "frozen; the embedding layer, the projection and the heads were trained",
        Encoders::Finetune => "trained end to end with everything behind it",
    };
    format!("ResNet-18 from {resnet}, {what}. DINOv2 embedding of {name} {version}, frozen")
}

/// The command, without the folders of this machine.
fn recipe(args: &TrainArgs) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = format!("memebg train --data {} --out {}", name(&args.data), name(&args.out));
    if args.encoders == Encoders::Finetune {
        command += " --encoders finetune";
    }
    match &args.init {
        Some(Init::Scratch) => command += " --init scratch",
        Some(Init::File(path)) => command += &format!(" --init {}", name(path)),
        None => {}
    }
    command += &format!(" --seed {} --risk-target {}", args.seed, args.risk_target);
    args.test.iter().for_each(|test| command += &format!(" --test {}", name(test)));
    command
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{suffix}"))
}

#[allow(clippy::cast_possible_truncation, reason = "single precision is what the network takes")]
fn single(values: [f64; 3]) -> [f32; 3] {
    values.map(|value| value as f32)
}

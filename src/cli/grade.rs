//! `memebg grade IMAGE...`: no Kafka, the same decoding, gate and model.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::explain;
use crate::config::Config;
use crate::domain::{AbstainReason, GradeClass, HeadGrade, Heads, Image, ModelIdentity, Picture};
use crate::incubator::read_image;
use crate::model::OnnxGrader;
use crate::pipeline::grade::{Grader as _, Opinion};
use crate::pipeline::{decode, quality};

#[derive(Debug, clap::Args)]
pub(super) struct GradeArgs {
    /// Image files: JPEG, PNG, BMP or TIFF.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// One JSON object per image, one a line.
    #[arg(long)]
    json: bool,
    /// Also write where the model looked.
    ///
    /// Each image that the model has graded or doubted gets a picture DIR/NAME-DIGEST.png with the
    /// first 8 digits of its SHA-256. Side by side: the image as the model sees it; the same under a
    /// map for EXP, for ICM and for TE of what each part adds to the class in the caption, from
    /// nothing over violet and red to yellow, each map to its own maximum. ICM and TE only from
    /// expansion 3 on.
    #[arg(long, value_name = "DIR")]
    explain: Option<PathBuf>,
}

/// What is said of one image.
#[derive(Debug, Serialize)]
struct Graded<'a> {
    image: &'a Path,
    image_sha256: Option<String>,
    gardner: Option<String>,
    reasons: Vec<AbstainReason>,
    #[serde(flatten)]
    heads: Option<Heads>,
    training_distance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<PathBuf>,
    error: Option<String>,
    model: &'a ModelIdentity,
    device: &'a str,
}

pub(super) async fn run(config: Config, args: GradeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        graded = tokio::task::spawn_blocking(move || grade(config, &args)) => graded?,
        () = stop.cancelled() => anyhow::bail!("stopped before every image was graded"),
    }
}

fn grade(mut config: Config, args: &GradeArgs) -> anyhow::Result<()> {
    // One image at a time: no other batch size needs to be warmed.
    config.model.batch_sizes = vec![1];
    let mut grader = crate::model::load_examiner(&config.model)?;
    let identity = grader.identity().clone();
    if let Some(dir) = &args.explain {
        let ModelIdentity { name, version, .. } = &identity.model;
        anyhow::ensure!(
            grader.has_maps(),
            "bundle {name} {version} has no maps (outputs exp_map, icm_map and te_map of its multitask network): \
             leave out --explain, or set model.bundle to one that has them"
        );
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let mut failed = 0;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["image", "grade", "EXP 1 to 6", "ICM A B C", "TE A B C", "confidence", "remarks"]);
    for path in &args.images {
        let (model, device) = (&identity.model, identity.device.as_str());
        let mut graded = Graded {
            image: path,
            image_sha256: None,
            gardner: None,
            reasons: Vec::new(),
            heads: None,
            training_distance: None,
            explanation: None,
            error: None,
            model,
            device,
        };
        let read = read_image(path).map_err(anyhow::Error::from);
        match read.and_then(|read| grade_one(&config, &mut grader, &read)) {
            Ok(Looked { sha256, reasons, opinion }) => {
                graded.reasons = reasons;
                if let Some((picture, opinion)) = opinion {
                    if let Some(dir) = &args.explain {
                        let maps = grader.answer(&picture)?.maps.context("the model gave no maps")?;
                        let heads = &opinion.heads;
                        graded.explanation =
                            Some(explain::write(dir, path, &sha256, &picture, heads, &maps)?);
                    }
                    graded.gardner = opinion.reasons.is_empty().then(|| opinion.heads.gardner());
                    graded.reasons = opinion.reasons;
                    graded.heads = Some(opinion.heads);
                    graded.training_distance = opinion.training_distance.map(|x| (x * 100.0).round() / 100.0);
                }
                graded.image_sha256 = Some(sha256);
            }
            Err(error) => {
                failed += 1;
                graded.error = Some(format!("{error:#}"));
            }
        }
        if args.json {
            println!("{}", serde_json::to_string(&graded)?);
        } else {
            table.add_row(row(&graded));
        }
    }
    if !args.json {
        println!("{table}");
        let model = &identity.model;
        let untrained = if model.untrained { " - UNTRAINED: these grades mean nothing" } else { "" };
        println!("{} {} on {}{untrained}", model.name, model.version, identity.device);
        if let Some(dir) = &args.explain {
            println!("explanations in {}: the image, then EXP, ICM and TE", dir.display());
        }
        println!("preliminary: decision support, an embryologist decides");
    }
    anyhow::ensure!(failed == 0, "{failed} of {} images could not be graded", args.images.len());
    Ok(())
}

/// What is known of an image that could be decoded; the model is not asked when there is a reason.
pub(super) struct Looked {
    sha256: String,
    pub(super) reasons: Vec<AbstainReason>,
    pub(super) opinion: Option<(Picture, Opinion)>,
}

/// Looks at one image as the service does.
///
/// # Errors
/// When it cannot be decoded, or the model gives no answer.
pub(super) fn grade_one(
    config: &Config,
    grader: &mut OnnxGrader,
    (bytes, image): &(Vec<u8>, Image),
) -> anyhow::Result<Looked> {
    let decoded = decode::picture(bytes, image, &config.decode, grader.input_side_px())?;
    let sha256 = image.sha256.clone();
    let reasons = quality::gate(&decoded.statistics, image.width, image.height, &config.quality);
    if !reasons.is_empty() {
        return Ok(Looked { sha256, reasons, opinion: None });
    }
    let mut answer = grader.grade(&[&decoded.picture])?;
    let opinion = answer.opinions.pop().context("the grader gave no answer")??;
    Ok(Looked { sha256, reasons, opinion: Some((decoded.picture, opinion)) })
}

fn row(graded: &Graded<'_>) -> [String; 7] {
    let heads = graded.heads.as_ref();
    let remarks: Vec<String> =
        graded.reasons.iter().map(ToString::to_string).chain(graded.error.clone()).collect();
    [
        graded.image.display().to_string(),
        graded.gardner.clone().unwrap_or_else(|| "-".into()),
        heads.map(|heads| probabilities(&heads.exp)).unwrap_or_default(),
        heads.and_then(|heads| heads.icm.as_ref()).map(probabilities).unwrap_or_default(),
        heads.and_then(|heads| heads.te.as_ref()).map(probabilities).unwrap_or_default(),
        heads.map(|heads| format!("{:.2}", heads.confidence())).unwrap_or_default(),
        remarks.join(", "),
    ]
}

fn probabilities<G: GradeClass>(head: &HeadGrade<G>) -> String {
    let shown: Vec<String> = head.probabilities.iter().map(|(_, p)| format!("{p:.2}")).collect();
    shown.join(" ")
}

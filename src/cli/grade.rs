//! `memebg grade IMAGE...`: no Kafka, the same decoding, gate and model.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::{AbstainReason, GradeClass, HeadGrade, Heads, ModelIdentity};
use crate::incubator::read_image;
use crate::pipeline::grade::Grader;
use crate::pipeline::{decode, quality};

#[derive(Debug, clap::Args)]
pub(super) struct GradeArgs {
    /// Image files: JPEG, PNG, BMP or TIFF.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// One JSON object per image, one a line.
    #[arg(long)]
    json: bool,
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
    config.model.graders = 1;
    config.model.batch_sizes = vec![1];
    let mut graders = crate::model::load_graders(&config.model)?;
    let grader = graders.first_mut().context("no grader was loaded")?.as_mut();
    let identity = grader.identity().clone();
    let mut failed = 0;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["image", "grade", "EXP 1 to 6", "ICM A B C", "TE A B C", "confidence", "remarks"]);
    for path in &args.images {
        let graded = grade_one(&config, grader, path);
        let (image_sha256, reasons, heads, error) = match graded {
            Ok((sha256, reasons, heads)) => (Some(sha256), reasons, heads, None),
            Err(error) => {
                failed += 1;
                (None, Vec::new(), None, Some(format!("{error:#}")))
            }
        };
        let gardner = heads.as_ref().filter(|_| reasons.is_empty()).map(Heads::gardner);
        let (model, device) = (&identity.model, identity.device.as_str());
        let graded = Graded { image: path, image_sha256, gardner, reasons, heads, error, model, device };
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
        println!("preliminary: decision support, an embryologist decides");
    }
    anyhow::ensure!(failed == 0, "{failed} of {} images could not be graded", args.images.len());
    Ok(())
}

type OneGrade = (String, Vec<AbstainReason>, Option<Heads>);

fn grade_one(config: &Config, grader: &mut dyn Grader, path: &Path) -> anyhow::Result<OneGrade> {
    let (bytes, image) = read_image(path)?;
    let decoded = decode::picture(&bytes, &image, &config.decode, grader.input_side_px())?;
    let reasons = quality::gate(&decoded.statistics, image.width, image.height, &config.quality);
    if !reasons.is_empty() {
        return Ok((image.sha256, reasons, None));
    }
    let mut answer = grader.grade(&[&decoded.picture])?;
    let opinion = answer.opinions.pop().context("the grader gave no answer")??;
    Ok((image.sha256, opinion.reasons, Some(opinion.heads)))
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

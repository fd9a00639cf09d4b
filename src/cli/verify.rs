//! `memebg verify EVENT IMAGE`: whether a grade can be made again from its image and its bundle.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::grade::{Looked, grade_one};
use crate::config::Config;
use crate::domain::{AbstainReason, GradeClass, GradeEvent, GradeStatus, HeadGrade, Heads, Image};
use crate::incubator::read_image;
use crate::model::{bundle::digest_of, load_examiner};
use crate::pipeline::PIPELINE_VERSION;
use crate::pipeline::grade::Grader as _;

/// Longest grade event that is read. They have about two kilobytes.
const MAX_EVENT_BYTES: u64 = 1 << 20;
/// Probabilities have four decimals.
const ROUNDING: f64 = 0.000_05;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// File with the value of a grade event, or - for standard input.
    #[arg(value_name = "EVENT")]
    event: PathBuf,
    /// The image that was graded.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
}

/// One thing that the event says, beside what is found here.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    same: bool,
    event: String,
    here: String,
    /// Whether the event is wrong, or of something else, when they differ. Otherwise it only may explain a difference.
    binding: bool,
}

impl Finding {
    fn binding(what: &'static str, event: impl Into<String>, here: impl Into<String>) -> Self {
        let (event, here) = (event.into(), here.into());
        Self { what, same: event == here, event, here, binding: true }
    }

    fn telling(what: &'static str, event: impl Into<String>, here: impl Into<String>) -> Self {
        Self { binding: false, ..Self::binding(what, event, here) }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    findings: &'a [Finding],
    verified: bool,
}

pub(super) async fn run(config: Config, args: VerifyArgs, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        verified = tokio::task::spawn_blocking(move || verify(config, &args)) => verified?,
        () = stop.cancelled() => anyhow::bail!("stopped before the image was graded"),
    }
}

fn verify(config: Config, args: &VerifyArgs) -> anyhow::Result<()> {
    let event = read(&args.event)?;
    let image = read_image(&args.image)?;
    let digest = digest_of(&config.model.bundle)?;
    let mut findings = vec![
        Finding::binding("image", &event.image_sha256, &image.1.sha256),
        Finding::binding("model", &event.model.digest, digest),
        Finding::binding("id", event.id.as_str(), event.derived_id().as_str()),
        Finding::telling("version", &event.pipeline_version, PIPELINE_VERSION),
    ];
    // Of another image, or by another model, it would be another grade.
    if findings.iter().all(|finding| finding.same || !finding.binding) {
        findings.extend(graded_again(config, &event, &image)?);
    }
    let differing = findings.iter().filter(|finding| finding.binding && !finding.same);
    let differing: Vec<&str> = differing.map(|finding| finding.what).collect();
    if args.json {
        let document = Document { findings: &findings, verified: differing.is_empty() };
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        findings.iter().for_each(|finding| println!("{}", line(finding)));
    }
    anyhow::ensure!(differing.is_empty(), "this is not the grade of that image: {}", differing.join(", "));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<GradeEvent> {
    let read = || -> io::Result<Vec<u8>> {
        let mut json = Vec::new();
        let limit = MAX_EVENT_BYTES + 1;
        if path == Path::new("-") {
            io::stdin().lock().take(limit).read_to_end(&mut json)?;
        } else {
            File::open(path)?.take(limit).read_to_end(&mut json)?;
        }
        Ok(json)
    };
    let json = read().with_context(|| format!("{} cannot be read", path.display()))?;
    anyhow::ensure!(
        json.len() as u64 <= MAX_EVENT_BYTES,
        "{} is longer than {MAX_EVENT_BYTES} bytes, which no grade event is",
        path.display()
    );
    serde_json::from_slice(&json).with_context(|| format!("{} is no grade event", path.display()))
}

fn graded_again(
    mut config: Config,
    event: &GradeEvent,
    image: &(Vec<u8>, Image),
) -> anyhow::Result<Vec<Finding>> {
    // One image at a time: no other batch size needs to be warmed.
    config.model.batch_sizes = vec![1];
    let mut grader = load_examiner(&config.model)?;
    let identity = grader.identity().clone();
    let Looked { reasons, opinion, .. } = grade_one(&config, &mut grader, image)?;
    let (reasons, heads) = match opinion {
        Some((_, opinion)) => (opinion.reasons, Some(opinion.heads)),
        None => (reasons, None),
    };
    let status = if reasons.is_empty() { GradeStatus::Graded } else { GradeStatus::Abstained };
    let mut findings = vec![
        Finding::telling("device", &event.device, &identity.device),
        Finding::telling("precision", &event.precision, &identity.precision),
        Finding::binding("status", event.status.as_str(), status.as_str()),
        Finding::binding("reasons", words(&event.reasons), words(&reasons)),
        Finding::binding("grade", gardner(event.heads.as_ref()), gardner(heads.as_ref())),
    ];
    if let (Some(then), Some(now)) = (&event.heads, &heads) {
        let difference = largest_difference(then, now);
        // Another processor may round the last bit of an int8 network differently; the grade above decides.
        findings.push(Finding {
            what: "probabilities",
            same: difference <= ROUNDING,
            event: format!("{:.4}", then.confidence()),
            here: format!("{:.4}, off by {difference:.4} at most", now.confidence()),
            binding: false,
        });
    }
    Ok(findings)
}

fn words(reasons: &[AbstainReason]) -> String {
    if reasons.is_empty() {
        return "none".to_owned();
    }
    reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// What the heads say, whether or not it became a grade.
fn gardner(heads: Option<&Heads>) -> String {
    heads.map_or_else(|| "none".to_owned(), Heads::gardner)
}

/// How far apart two opinions are in a probability of a head that both have.
fn largest_difference(then: &Heads, now: &Heads) -> f64 {
    fn of<G: GradeClass>(then: Option<&HeadGrade<G>>, now: Option<&HeadGrade<G>>) -> f64 {
        let (Some(then), Some(now)) = (then, now) else { return 0.0 };
        let pairs = then.probabilities.iter().zip(now.probabilities.iter());
        pairs.map(|((_, then), (_, now))| (then - now).abs()).fold(0.0, f64::max)
    }
    of(Some(&then.exp), Some(&now.exp))
        .max(of(then.icm.as_ref(), now.icm.as_ref()))
        .max(of(then.te.as_ref(), now.te.as_ref()))
}

fn line(finding: &Finding) -> String {
    let Finding { what, same, event, here, .. } = finding;
    if *same {
        format!("same     {what:13} {event}")
    } else {
        format!("differs  {what:13} event {event}, here {here}")
    }
}

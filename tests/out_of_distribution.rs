//! What is no blastocyst is not graded, by the model alone and on the whole route; blastocysts are.
//!
//! With `--nocapture` each test prints the distances it has measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "common/bundle.rs"]
mod bundle;
#[path = "common/decoded.rs"]
mod decoded;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bundle::{demo, settings};
use decoded::decoded;
use memebg::domain::{AbstainReason, DevelopmentStage, Letter, Picture};
use memebg::incubator::{Embryo, LabelledSet, Renderer, strange};
use memebg::model::multitask::{EMBEDDING_WIDTH, Reference, WeightSource, multitask_onnx};
use memebg::model::onnx::Storage;
use memebg::model::{Bundle, Encoder, load_graders};
use memebg::pipeline::grade::Grader;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Sets that nothing is trained on.
const UNSEEN_SEED: u64 = 0x006f_6f64_2d31;
const ANOTHER_SEED: u64 = 0x006f_6f64_2d32;
/// Side of what is drawn, pixels: as the synthetic incubators photograph.
const DRAWN_PX: u32 = 320;
const BLASTOCYSTS: usize = 60;
/// Least share of the blastocysts that is graded.
const GRADED: f64 = 0.95;

/// A JPEG and what it shows.
struct Shown {
    what: &'static str,
    jpeg: Vec<u8>,
}

impl Shown {
    fn drawn(what: &'static str, picture: &image::GrayImage) -> Self {
        Self { what, jpeg: Renderer::jpeg(picture).unwrap() }
    }

    fn photograph(what: &'static str, file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(file);
        Self { what, jpeg: fs::read(path).unwrap() }
    }

    fn decoded(&self) -> Picture {
        decoded(&self.jpeg)
    }
}

/// No embryo at all.
fn no_embryos() -> Vec<Shown> {
    let mut shown = vec![
        Shown::photograph("cat, a photograph", "cat.jpg"),
        Shown::photograph("cell of another tissue", "cell.jpg"),
    ];
    for seed in 0..2 {
        shown.push(Shown::drawn("empty well", &strange::empty_well(DRAWN_PX, seed)));
        shown.push(Shown::drawn("nematode", &strange::nematode(DRAWN_PX, seed)));
        shown.push(Shown::drawn("text", &strange::text(DRAWN_PX, seed)));
    }
    shown
}

/// One embryo per hour of `hours_hpi`, each at this stage.
fn embryos(what: &'static str, stage: DevelopmentStage, hours_hpi: &[f64]) -> Vec<Shown> {
    let mut renderer = Renderer::new(DRAWN_PX);
    let shown = hours_hpi.iter().zip(0_u64..).map(|(hpi, seed)| {
        let embryo = Embryo::with_quality(UNSEEN_SEED + seed, Letter::A, Letter::B);
        assert_eq!(embryo.truth_at(*hpi).stage, stage, "{hpi}");
        Shown::drawn(what, &renderer.render(&embryo, *hpi, 0.0))
    });
    shown.collect()
}

/// Two, four, and up to eight cells.
fn cleavage() -> Vec<Shown> {
    embryos("cleavage", DevelopmentStage::Cleavage, &[32.0, 45.0, 53.5, 70.0])
}

fn morulae() -> Vec<Shown> {
    embryos("morula", DevelopmentStage::Morula, &[90.0, 92.0, 94.0, 96.0])
}

/// Of every expansion and letter, in the focus that an operator leaves it in.
fn blastocysts(seed: u64, count: usize) -> Vec<Shown> {
    let set = LabelledSet::new(seed, DRAWN_PX).map(Result::unwrap);
    let blastocysts = set.filter(|picture| picture.label.truth.exp.is_some());
    blastocysts.take(count).map(|picture| Shown { what: "blastocyst", jpeg: picture.jpeg }).collect()
}

/// What a model said of one picture.
struct Seen {
    what: &'static str,
    distance: f64,
    is_refused: bool,
}

fn look(grader: &mut dyn Grader, shown: &[Shown]) -> Vec<Seen> {
    let look = |shown: &Shown| {
        let opinion = grader.grade(&[&shown.decoded()]).unwrap().opinions.pop().unwrap().unwrap();
        Seen {
            what: shown.what,
            distance: opinion.training_distance.unwrap(),
            is_refused: opinion.reasons.contains(&AbstainReason::OutOfDistribution),
        }
    };
    shown.iter().map(look).collect()
}

fn refused(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.is_refused).count()
}

/// Prints one row per kind of picture.
fn table(title: &str, limit: f64, seen: &[&[Seen]]) {
    println!("\n{title}, limit {limit:.1}\n{:<24} {:>8} {:>8} {:>8}  refused", "", "least", "median", "most");
    let mut kinds: Vec<&str> = Vec::new();
    kinds.extend(seen.iter().copied().flatten().map(|seen| seen.what));
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind: Vec<&Seen> = seen.iter().copied().flatten().filter(|seen| seen.what == kind).collect();
        let mut distances: Vec<f64> = of_kind.iter().map(|seen| seen.distance).collect();
        distances.sort_by(f64::total_cmp);
        let [least, median, most] = [0, distances.len() / 2, distances.len() - 1].map(|rank| distances[rank]);
        let refused = of_kind.iter().filter(|seen| seen.is_refused).count();
        println!("{kind:<24} {least:>8.1} {median:>8.1} {most:>8.1}  {refused} of {}", of_kind.len());
    }
}

/// The limit in a bundle's manifest.
fn limit(bundle: &Path) -> f64 {
    let bundle = Bundle::open(bundle).unwrap();
    bundle.manifest().out_of_distribution.expect("a bundle with out_of_distribution").abstain_above
}

#[test]
fn the_demo_model_grades_blastocysts_and_nothing_else() {
    let mut graders = load_graders(&settings(&demo())).unwrap();
    let grader = graders[0].as_mut();
    let (nothing, early) = (look(grader, &no_embryos()), look(grader, &cleavage()));
    // A morula with a first cavity is an early blastocyst: shown, not judged.
    let (morulae, blastocysts) =
        (look(grader, &morulae()), look(grader, &blastocysts(UNSEEN_SEED, BLASTOCYSTS)));
    table("demo bundle", limit(&demo()), &[&nothing, &early, &morulae, &blastocysts]);
    for seen in nothing.iter().chain(&early) {
        assert!(seen.is_refused, "{} is graded at distance {}", seen.what, seen.distance);
    }
    let graded = 1.0 - refused(&blastocysts) as f64 / BLASTOCYSTS as f64;
    assert!(graded >= GRADED, "{graded} of the blastocysts are graded");
}

#[test]
fn on_the_whole_route_only_blastocysts_get_a_grade() {
    let folder = tempfile::tempdir().unwrap();
    let mut shown = no_embryos();
    shown.extend(cleavage());
    let strange = shown.len();
    shown.extend(blastocysts(ANOTHER_SEED, BLASTOCYSTS / 3));
    let images: Vec<PathBuf> = (0..)
        .zip(&shown)
        .map(|(index, shown): (usize, &Shown)| {
            let path = folder.path().join(format!("{index}.jpg"));
            fs::write(&path, &shown.jpeg).unwrap();
            path
        })
        .collect();
    let bundle = format!("model.bundle={}", demo().to_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
    let output = command.args(["--set", &bundle, "grade", "--json"]).args(&images).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), shown.len());
    let mut graded = 0;
    for (shown, (index, line)) in shown.iter().zip(lines.iter().enumerate()) {
        let reasons = &line["reasons"];
        println!("{:<24} {reasons} {}", shown.what, line["training_distance"]);
        if index >= strange {
            graded += usize::from(line["gardner"].is_string());
            continue;
        }
        assert!(line["gardner"].is_null(), "{}: {line}", shown.what);
        // There is nothing in focus in these two, which the gate may see before the model does.
        let gate = ["empty well", "cell of another tissue"].contains(&shown.what)
            && (reasons[0] == "blurred" || reasons[0] == "low_contrast");
        assert!(gate || reasons[0] == "out_of_distribution", "{}: {reasons}", shown.what);
    }
    assert!(graded as f64 >= GRADED * (shown.len() - strange) as f64, "{graded}");
}

/// Every head undecided: what it grades does not matter here.
struct Undecided;

impl WeightSource for Undecided {
    fn weights(&mut self, _: &str, dims: &[usize]) -> Vec<f32> {
        vec![0.0; dims.iter().product()]
    }
}

/// Mean and covariance of the embeddings of some blastocysts. A tenth of the covariance is replaced by
/// the same variance in every direction: there are fewer pictures than directions.
fn reference_of(shown: &[Shown]) -> Reference {
    let bundle = Bundle::open(&demo()).unwrap();
    let mut encoder = Encoder::of_bundle(&settings(&demo()), &bundle).unwrap();
    let pictures: Vec<Picture> = shown.iter().map(Shown::decoded).collect();
    let embeddings = encoder.encode(&pictures.iter().collect::<Vec<_>>()).unwrap();
    let (count, width) = (shown.len() as f64, EMBEDDING_WIDTH);
    let centred = |column: usize| {
        let values: Vec<f64> =
            embeddings.iter().skip(column).step_by(width).copied().map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / count;
        (mean, values.iter().map(|value| value - mean).collect::<Vec<_>>())
    };
    let (mean, columns): (Vec<f64>, Vec<Vec<f64>>) = (0..width).map(centred).unzip();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let variance = columns.iter().map(|column| dot(column, column)).sum::<f64>() / count / width as f64;
    let covariance = |row: usize, column: usize| {
        0.9 * dot(&columns[row], &columns[column]) / count + if row == column { 0.1 * variance } else { 0.0 }
    };
    // Its Cholesky factor, and the inverse of that by forward substitution: transposed, so that both
    // loops run along rows.
    let (mut lower, mut inverse) = (vec![vec![0.0; width]; width], vec![vec![0.0; width]; width]);
    for row in 0..width {
        for column in 0..=row {
            let rest = covariance(row, column) - dot(&lower[row][..column], &lower[column][..column]);
            lower[row][column] = if row == column { rest.sqrt() } else { rest / lower[column][column] };
        }
        for column in 0..=row {
            let known = dot(&lower[row][column..row], &inverse[column][column..row]);
            let one = if row == column { 1.0 } else { 0.0 };
            inverse[column][row] = (one - known) / lower[row][row];
        }
    }
    let whitening = (0..width).flat_map(|row| inverse.iter().map(move |column| column[row] as f32));
    Reference { mean: mean.iter().map(|mean| *mean as f32).collect(), whitening: whitening.collect() }
}

/// The demo's embedding network beside a network that knows the distance from some blastocysts.
fn bundle_with(folder: &Path, reference: &Reference, abstain_above: f64) {
    let multitask = multitask_onnx(&mut Undecided, std::slice::from_ref(reference), Storage::Half, &[]);
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(demo().join("manifest.json")).unwrap()).unwrap();
    let embedding = manifest["files"]["embedding"]["path"].as_str().unwrap();
    fs::copy(demo().join(embedding), folder.join(embedding)).unwrap();
    let file = manifest["files"]["multitask"].as_object_mut().unwrap();
    file.insert("sha256".to_owned(), json!(hex::encode(Sha256::digest(&multitask))));
    file.insert("bytes".to_owned(), json!(multitask.len()));
    fs::write(folder.join(file["path"].as_str().unwrap()), multitask).unwrap();
    manifest["files"].as_object_mut().unwrap().remove("population");
    manifest["out_of_distribution"] = json!({ "abstain_above": abstain_above, "accepts": 0.99 });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

/// The mechanism from end to end, with little data: what is no embryo is as far away for any network.
#[test]
fn a_few_blastocysts_are_enough_to_grade_others_and_to_refuse_what_is_no_embryo() {
    let reference = reference_of(&blastocysts(ANOTHER_SEED, 60));
    let folder = tempfile::tempdir().unwrap();
    // Blastocysts are at 14 on average, and the nearest of the others at more than 40.
    let limit = 30.0;
    bundle_with(folder.path(), &reference, limit);
    let mut graders = load_graders(&settings(folder.path())).unwrap();
    let grader = graders[0].as_mut();
    let nothing = look(grader, &no_embryos());
    let (early, morulae) = (look(grader, &cleavage()), look(grader, &morulae()));
    let blastocysts = look(grader, &blastocysts(UNSEEN_SEED, 20));
    table("reference of 60 blastocysts", limit, &[&nothing, &early, &morulae, &blastocysts]);
    for seen in &nothing {
        assert!(seen.is_refused, "{} is graded at distance {}", seen.what, seen.distance);
    }
    assert_eq!(refused(&blastocysts), 0);
}

//! Where the model looks, held against where the renderer drew what it should look at; and the pictures
//! that show it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "common/bundle.rs"]
mod bundle;
#[path = "common/decoded.rs"]
mod decoded;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use bundle::{demo, settings};
use decoded::decoded;
use memebg::domain::Letter;
use memebg::incubator::{Embryo, LabelledPicture, LabelledSet, Renderer};
use memebg::model::onnx::{Attribute, Dim, GraphBuilder, Storage};
use memebg::model::{Map, load_examiner};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A set that nothing is trained on.
const UNSEEN_SEED: u64 = 0x0075_6e73_6565_6e00;
/// Pictures of that set; two in three show what has an inner cell mass.
const PICTURES: usize = 120;
const SIDE_PX: usize = 224;
/// Points along each side at which maps and regions are compared.
const POINTS: usize = 84;

/// How well the maps of one head agree with what was drawn.
#[derive(Debug, Default)]
struct Agreement {
    maps: usize,
    /// Share of the maps whose largest value lies in the region (the pointing game, Zhang 2016).
    peaks: f64,
    /// Share of what the maps add up to that lies in the region, on average.
    mass: f64,
    /// Share of the picture that the region takes up, on average: what `peaks` and `mass` are by chance.
    area: f64,
}

impl Agreement {
    fn add(&mut self, map: &Map, region: impl Fn(f64, f64) -> bool) {
        let coordinate = |index: usize| (index as f64 + 0.5) / POINTS as f64;
        let places =
            (0..POINTS * POINTS).map(|index| (coordinate(index % POINTS), coordinate(index / POINTS)));
        let (mut inside, mut total, mut area) = (0.0, 0.0, 0.0);
        let (mut largest, mut peak_is_inside) = (0.0, false);
        for (x, y) in places {
            let (value, within) = (map.at(x, y), region(x, y));
            total += value;
            if within {
                inside += value;
                area += 1.0 / (POINTS * POINTS) as f64;
            }
            if value > largest {
                (largest, peak_is_inside) = (value, within);
            }
        }
        // A running mean. A map of zeros points nowhere.
        self.maps += 1;
        let step = |mean: &mut f64, value: f64| *mean += (value - *mean) / self.maps as f64;
        step(&mut self.peaks, f64::from(u8::from(peak_is_inside)));
        step(&mut self.mass, if total > 0.0 { inside / total } else { 0.0 });
        step(&mut self.area, area);
    }
}

/// Agreement of ICM and TE over the blastocysts of the unseen set that have them.
fn agreement(mut maps: impl FnMut(&LabelledPicture) -> [Map; 3]) -> [Agreement; 2] {
    let (mut icm, mut te) = (Agreement::default(), Agreement::default());
    for picture in LabelledSet::new(UNSEEN_SEED, 320).take(PICTURES) {
        let picture = picture.unwrap();
        let Some(regions) = picture.embryo.regions_at(picture.hpi) else { continue };
        let [_, icm_map, te_map] = maps(&picture);
        icm.add(&icm_map, |x, y| regions.icm_contains(x, y));
        te.add(&te_map, |x, y| regions.te_contains(x, y));
    }
    for (head, found) in [("ICM", &icm), ("TE", &te)] {
        println!("{head}: {found:.3?}");
    }
    [icm, te]
}

/// A map of what the cells show, by hand.
fn map_of(value: impl Fn(usize, usize) -> f32) -> Map {
    Map::new((0..49).map(|cell| value(cell % 7, cell / 7)).collect()).unwrap()
}

/// The best that 7 x 7 cells can do: each holds the share of it that lies in the region.
fn perfect(region: impl Fn(f64, f64) -> bool) -> Map {
    map_of(|column, row| {
        let place = |cell: usize, step: u8| (cell as f64 + (f64::from(step) + 0.5) / 10.0) / 7.0;
        let places = (0..10).flat_map(|y| (0..10).map(move |x| (x, y)));
        places.filter(|(x, y)| region(place(column, *x), place(row, *y))).count() as f32
    })
}

#[test]
fn maps_of_what_was_drawn_agree_with_it_and_maps_of_something_else_do_not() {
    let [icm, te] = agreement(|picture| {
        let regions = picture.embryo.regions_at(picture.hpi).unwrap();
        let icm = perfect(|x, y| regions.icm_contains(x, y));
        [icm.clone(), icm, perfect(|x, y| regions.te_contains(x, y))]
    });
    assert!(icm.maps == te.maps && icm.maps > PICTURES / 2, "{} maps", icm.maps);
    assert!(icm.peaks > 0.7 && icm.mass > 3.0 * icm.area, "{icm:?}");
    assert!(te.peaks > 0.6 && te.mass > 1.5 * te.area, "{te:?}");
    assert!((0.005..0.10).contains(&icm.area) && (0.05..0.30).contains(&te.area), "{icm:?} {te:?}");

    // The corners of the field, where no embryo is; and a map that points everywhere alike.
    let corner = || map_of(|column, row| if column % 6 + row % 6 == 0 { 1.0 } else { 0.0 });
    for found in agreement(|_| [corner(), corner(), corner()]) {
        assert!(found.peaks == 0.0 && found.mass < 0.1 * found.area, "{found:?}");
    }
    let flat = || map_of(|_, _| 0.2);
    for found in agreement(|_| [flat(), flat(), flat()]) {
        assert!((found.mass - found.area).abs() < 1e-6, "{found:?}");
    }
}

#[test]
fn the_maps_of_the_demo_bundle_are_held_against_what_was_drawn() {
    let mut examiner = load_examiner(&settings(&demo())).unwrap();
    let mut blank = 0;
    let [icm, te] = agreement(|picture| {
        let maps = examiner.answer(&decoded(&picture.jpeg)).unwrap().maps.unwrap();
        blank += maps.iter().filter(|map| map.max() <= 0.0).count();
        maps
    });
    assert!(icm.maps == te.maps && icm.maps > PICTURES / 2, "{} maps", icm.maps);
    assert!(10 * blank < 3 * icm.maps, "{blank} of {} maps are blank", 3 * icm.maps);
    // Better than chance, which is the share of the area; the card says by how much.
    assert!(icm.peaks > 2.0 * icm.area && icm.mass > 2.0 * icm.area, "{icm:?}");
    assert!(te.mass > te.area, "{te:?}");
}

fn grade(bundle: &Path, arguments: &[&str]) -> Output {
    let bundle = format!("model.bundle={}", bundle.to_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
    command.args(["--set", &bundle, "grade"]).args(arguments).output().unwrap()
}

#[test]
fn an_explanation_is_a_picture_beside_the_grade() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("well 4.png");
    let embryo = Embryo::with_quality(5, Letter::A, Letter::A);
    Renderer::new(320).render(&embryo, 118.0, 0.0).save(&image).unwrap();
    let black = folder.path().join("black.png");
    image::GrayImage::new(320, 320).save(&black).unwrap();
    let explanations = folder.path().join("why/here");
    let [image, black] = [&image, &black].map(|path| path.to_str().unwrap());
    let output = grade(&demo(), &[image, black, "--json", "--explain", explanations.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let digest = hex::encode(Sha256::digest(fs::read(image).unwrap()));
    let name = format!("well 4-{}.png", digest.get(..8).unwrap());
    assert_eq!(lines[0]["explanation"], explanations.join(&name).to_str().unwrap());
    let written = image::open(explanations.join(name)).unwrap();
    let heads = ["exp", "icm", "te"].iter().filter(|head| lines[0].get(*head).is_some()).count();
    assert_eq!((written.width(), written.height()), (448 * (1 + heads as u32), 448));
    // Black: the model was not asked, so there is nothing to explain.
    assert!(lines[1].get("explanation").is_none(), "{}", lines[1]);
    assert_eq!(fs::read_dir(&explanations).unwrap().count(), 1);
}

/// The channel means of a picture through one layer of zeros: the smallest network of its shape.
fn small_network(inputs: &[(&str, &[Dim])], outputs: &[(&str, usize)]) -> Vec<u8> {
    let batch = Dim::Dynamic("b");
    let mut graph = GraphBuilder::new("small", Storage::Single);
    let image = graph.input("image", &[batch, Dim::Fixed(3), Dim::Fixed(SIDE_PX), Dim::Fixed(SIDE_PX)]);
    for (name, dims) in inputs {
        graph.input(name, dims);
    }
    let pooled = graph.node("pooled", "GlobalAveragePool", &[&image], &[]);
    let means = graph.node("means", "Flatten", &[&pooled], &[Attribute::Int("axis", 1)]);
    for (name, width) in outputs {
        let weight = graph.weight(&format!("{name}.weight"), &[3, *width], &vec![0.0; 3 * width]);
        let output = graph.node(name, "MatMul", &[&means, &weight], &[]);
        graph.output(&output, &[batch, Dim::Fixed(*width)]);
    }
    graph.finish(&[])
}

#[test]
fn a_bundle_without_maps_is_refused_before_anything_is_graded() {
    let folder = tempfile::tempdir().unwrap();
    let embedding = small_network(&[], &[("embedding", 384)]);
    let input: &[Dim] = &[Dim::Dynamic("b"), Dim::Fixed(384)];
    let multitask =
        small_network(&[("embedding", input)], &[("exp", 6), ("icm", 3), ("te", 3), ("shared", 4)]);
    bundle::copy_without_limits(folder.path());
    let path = folder.path().join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (role, data) in [("embedding", &embedding), ("multitask", &multitask)] {
        fs::write(folder.path().join(format!("{role}.onnx")), data).unwrap();
        let file = manifest["files"][role].as_object_mut().unwrap();
        file.extend([
            ("path".to_owned(), json!(format!("{role}.onnx"))),
            ("sha256".to_owned(), json!(hex::encode(Sha256::digest(data)))),
            ("bytes".to_owned(), json!(data.len())),
        ]);
    }
    fs::write(path, manifest.to_string()).unwrap();
    let explanations = folder.path().join("why");
    let output = grade(folder.path(), &["nothing.png", "--explain", explanations.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("has no maps"), "{error}");
    assert!(output.stdout.is_empty() && !explanations.exists());
}

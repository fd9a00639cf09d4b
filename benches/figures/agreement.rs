//! Whether the quick bundle says what the exact one says, of drawn blastocysts that none of them was made from.

use memebg::config::{Config, Layers};
use memebg::domain::{Expansion, Heads, Letter, Picture};
use memebg::incubator::LabelledSet;
use memebg::model::load_graders;
use memebg::pipeline::grade::Grader;

use crate::Bench;
use crate::decode::settings;
use crate::table::Table;

/// No bundle was trained, calibrated or measured on embryos of this seed.
const SEED: u64 = 77;
const SIDE_PX: u32 = 500;

pub fn measure(bench: &Bench, table: &mut Table) {
    let config = Config::load(&Layers::default(), []).expect("the defaults");
    let mut graders = [&bench.bundles.quick, &bench.bundles.fp32].map(|bundle| {
        let mut settings = config.model.clone();
        settings.bundle = bundle.clone();
        settings.graders = 1;
        bench.device.set(&mut settings);
        load_graders(&settings).expect("graders").pop().expect("a grader")
    });
    let (mut exp, mut icm, mut te) = (Vec::new(), Vec::new(), Vec::new());
    let blastocysts = LabelledSet::new(SEED, SIDE_PX).map(|labelled| labelled.expect("a picture"));
    let graded = blastocysts.filter(|it| it.label.truth.exp.is_some()).take(bench.pick(1_000, 8));
    for labelled in graded {
        let picture = settings::picture(&labelled.jpeg, SIDE_PX);
        let [quick, exact] = graders.each_mut().map(|grader| heads(grader.as_mut(), &picture));
        exp.push(f64::from(quick.0 == exact.0));
        for (head, quick, exact) in [(&mut icm, quick.1, exact.1), (&mut te, quick.2, exact.2)] {
            head.extend(quick.zip(exact).map(|(quick, exact)| f64::from(quick == exact)));
        }
    }
    for (head, same) in [("EXP", exp), ("ICM", icm), ("TE", te)] {
        let share = same.iter().sum::<f64>() / same.len() as f64;
        let what = format!(
            "{head}: {} says what fp32 says, of {} drawn blastocysts",
            bench.device.quick(),
            same.len()
        );
        table.figure(what, "of them", &[share]);
    }
}

fn heads(grader: &mut dyn Grader, picture: &Picture) -> (Expansion, Option<Letter>, Option<Letter>) {
    let opinion = grader.grade(&[picture]).expect("a batch").opinions.pop().expect("one").expect("numbers");
    let Heads { exp, icm, te } = opinion.heads;
    (exp.grade, icm.map(|head| head.grade), te.map(|head| head.grade))
}

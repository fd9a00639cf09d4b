//! Grading: through broker and pipeline, beside the same two sessions in a bare loop, and beside the Python worker.

use std::path::Path;

use crate::bare::Sessions;
use crate::common::kafka::Kafka;
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, feed, peer, served};

const PARTITIONS: usize = 6;
const ROUNDS: usize = 3;
/// So many frames as the quick bundle grades while fp32 grades one.
const QUICKER: u64 = 2;

/// All frames are wanted.
pub fn measure(bench: &Bench, table: &mut Table) {
    let frames = bench.pick(if bench.device.is_gpu() { 4_000 } else { 160 }, 20);
    let kafka = Kafka::start();
    let create = |name, frames| {
        let stream = bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
        served::fill(&stream, feed::selected(frames));
        stream
    };
    let (stream, longer) = (create("grading", frames), create("longer", frames * QUICKER));
    let (fp32, quick): (&Path, &Path) = (&bench.bundles.fp32, &bench.bundles.quick);
    let (mut single, mut second) =
        (Sessions::load(&bench.device, fp32), Sessions::load(&bench.device, quick));
    let [mut ours, mut bare, mut ours_quick, mut bare_quick, mut python, mut pairs] =
        [const { Vec::new() }; 6];
    for round in 0..bench.pick(ROUNDS, 1) {
        let group = |name: &str| format!("{name}-{round}");
        ours.push(served::run(bench, &stream, &group("fp32"), frames, fp32, &[]));
        bare.push(single.rate(frames));
        python.push(peer::work(bench, &stream, &group("python"), frames, fp32));
        ours_quick.push(served::run(bench, &longer, &group("quick"), frames * QUICKER, quick, &[]));
        bare_quick.push(second.rate(frames * QUICKER));
        if bench.device.is_gpu() {
            let two = [("model.graders", "2")];
            pairs.push(served::run(bench, &longer, &group("two"), frames * QUICKER, quick, &two));
        }
    }
    let name = bench.device.quick();
    table.beside("grading, fp32", "frames/s", &ours, "bare sessions, fp32", &bare);
    table.beside(
        format!("grading, {name}"),
        "frames/s",
        &ours_quick,
        format!("bare sessions, {name}"),
        &bare_quick,
    );
    table.beside(format!("grading, {name}"), "frames/s", &ours_quick, "grading, fp32", &ours);
    if bench.device.is_gpu() {
        let what = format!("grading, {name}, two graders");
        table.beside(what, "frames/s", &pairs, format!("grading, {name}"), &ours_quick);
    }
    table.beside("grading, fp32", "frames/s", &ours, "Python worker, fp32", &python);
    table.beside(format!("grading, {name}"), "frames/s", &ours_quick, "Python worker, fp32", &python);
}

/// One frame in a hundred is wanted.
pub fn measure_mix(bench: &Bench, table: &mut Table) {
    let gpu = bench.device.is_gpu();
    let frames = bench.pick(if gpu { 60_000 } else { 24_000 }, 600);
    let kafka = Kafka::start();
    let create = |name, frames| {
        let stream = bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
        served::fill(&stream, feed::mix(frames));
        stream
    };
    let stream = create("mix", frames);
    // On a GPU neither precision is what limits it.
    let more = if gpu { frames } else { frames * QUICKER };
    // The worker takes frames one after the other, so that a part of them tells its speed.
    let sample = if gpu { frames / 3 } else { frames };
    let longer = (more > frames).then(|| create("longer", more));
    let longer = longer.as_ref().unwrap_or(&stream);
    let (fp32, quick): (&Path, &Path) = (&bench.bundles.fp32, &bench.bundles.quick);
    let [mut ours, mut ours_quick, mut python] = [const { Vec::new() }; 3];
    for round in 0..bench.pick(ROUNDS, 1) {
        let group = |name: &str| format!("{name}-{round}");
        ours.push(served::run(bench, &stream, &group("fp32"), frames, fp32, &[]));
        python.push(peer::work(bench, &stream, &group("python"), sample, fp32));
        ours_quick.push(served::run(bench, longer, &group("quick"), more, quick, &[]));
    }
    let what = "one frame in 100 is graded";
    table.beside(format!("{what}, fp32"), "frames/s", &ours, "Python worker, fp32", &python);
    table.beside(
        format!("{what}, {}", bench.device.quick()),
        "frames/s",
        &ours_quick,
        "Python worker, fp32",
        &python,
    );
}

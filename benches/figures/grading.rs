//! Grading: through broker and pipeline, beside the same two sessions in a bare loop, and beside the Python worker.

use std::path::Path;

use crate::bare::Sessions;
use crate::common::kafka::Kafka;
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, feed, peer, served};

const PARTITIONS: usize = 6;
const ROUNDS: usize = 3;
/// So many frames as int8 grades while fp32 grades one.
const QUICKER: u64 = 2;

/// All frames are wanted.
pub fn measure(bench: &Bench, table: &mut Table) {
    let frames = bench.pick(160, 20);
    let kafka = Kafka::start();
    let create = |name, frames| {
        let stream = bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
        served::fill(&stream, feed::selected(frames));
        stream
    };
    let (stream, longer) = (create("grading", frames), create("longer", frames * QUICKER));
    let (fp32, int8): (&Path, &Path) = (&bench.bundles.fp32, &bench.bundles.int8);
    let (mut single, mut eight) = (Sessions::load(fp32), Sessions::load(int8));
    let [mut ours, mut bare, mut ours_int8, mut bare_int8, mut python] = [const { Vec::new() }; 5];
    for round in 0..bench.pick(ROUNDS, 1) {
        let group = |name: &str| format!("{name}-{round}");
        ours.push(served::run(&stream, &group("fp32"), frames, fp32, &[]));
        bare.push(single.rate(frames));
        python.push(peer::work(&stream, &group("python"), frames, fp32));
        ours_int8.push(served::run(&longer, &group("int8"), frames * QUICKER, int8, &[]));
        bare_int8.push(eight.rate(frames * QUICKER));
    }
    table.beside("grading, fp32", "frames/s", &ours, "bare sessions, fp32", &bare);
    table.beside("grading, int8", "frames/s", &ours_int8, "bare sessions, int8", &bare_int8);
    table.beside("grading, int8", "frames/s", &ours_int8, "grading, fp32", &ours);
    table.beside("grading, fp32", "frames/s", &ours, "Python worker, fp32", &python);
    table.beside("grading, int8", "frames/s", &ours_int8, "Python worker, fp32", &python);
}

/// One frame in a hundred is wanted.
pub fn measure_mix(bench: &Bench, table: &mut Table) {
    let frames = bench.pick(24_000, 600);
    let kafka = Kafka::start();
    let create = |name, frames| {
        let stream = bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
        served::fill(&stream, feed::mix(frames));
        stream
    };
    let (stream, longer) = (create("mix", frames), create("longer", frames * QUICKER));
    let (fp32, int8): (&Path, &Path) = (&bench.bundles.fp32, &bench.bundles.int8);
    let [mut ours, mut ours_int8, mut python] = [const { Vec::new() }; 3];
    for round in 0..bench.pick(ROUNDS, 1) {
        let group = |name: &str| format!("{name}-{round}");
        ours.push(served::run(&stream, &group("fp32"), frames, fp32, &[]));
        python.push(peer::work(&stream, &group("python"), frames, fp32));
        ours_int8.push(served::run(&longer, &group("int8"), frames * QUICKER, int8, &[]));
    }
    let what = "one frame in 100 is graded";
    table.beside(format!("{what}, fp32"), "frames/s", &ours, "Python worker, fp32", &python);
    table.beside(format!("{what}, int8"), "frames/s", &ours_int8, "Python worker, fp32", &python);
}

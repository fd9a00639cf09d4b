//! Saying no: frames of which none is wanted, beside a consumer that drops every message and beside the Python worker.

use crate::common::kafka::Kafka;
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, bare, feed, peer, served};

const IMAGE_BYTES: usize = 45_000;
const PARTITIONS: usize = 6;
const EMBRYOS: u64 = 96;

pub fn measure(bench: &Bench, table: &mut Table) {
    let frames = bench.pick(80_000, 2_000);
    let kafka = Kafka::start();
    let stream = bench.runtime.block_on(Stream::create(&kafka, "skipping", PARTITIONS));
    served::fill(&stream, feed::skipped(frames, IMAGE_BYTES, EMBRYOS));
    let (mut ours, mut bare, mut python) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.pick(5, 1) {
        ours.push(served::run(bench, &stream, &format!("ours-{round}"), frames, &bench.bundles.quick, &[]));
        bare.push(bare::consume(&stream, &format!("bare-{round}"), frames));
        python.push(peer::work(bench, &stream, &format!("python-{round}"), frames, &bench.bundles.quick));
    }
    let what = "skipping frames of 60 kB";
    table.beside(what, "frames/s", &ours, "rdkafka consumer that drops them", &bare);
    table.beside(what, "frames/s", &ours, "Python worker", &python);
}

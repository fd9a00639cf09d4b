//! What exactly once costs beside at least once.

use crate::common::kafka::Kafka;
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, feed, served};

const PARTITIONS: usize = 6;
const EXACTLY_ONCE: [(&str, &str); 1] = [("kafka.delivery", "exactly_once")];

pub fn measure(bench: &Bench, table: &mut Table) {
    let kafka = Kafka::start();
    let small = 300;
    for (what, name, frames, wanted) in [
        ("exactly once, all frames graded, int8", "graded", bench.pick(400, 20), true),
        ("exactly once, all frames of 1 kB skipped", "skipped", bench.pick(400_000, 4_000), false),
    ] {
        let stream = bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
        if wanted {
            served::fill(&stream, feed::selected(frames));
        } else {
            served::fill(&stream, feed::skipped(frames, small, 96));
        }
        let (mut exactly, mut at_least) = (Vec::new(), Vec::new());
        for round in 0..bench.pick(3, 1) {
            let bundle = &bench.bundles.quick;
            let run = |mode: &str, more| {
                served::run(bench, &stream, &format!("{mode}-{round}"), frames, bundle, more)
            };
            exactly.push(run("exactly", &EXACTLY_ONCE));
            at_least.push(run("at-least", &[]));
        }
        table.beside(what, "frames/s", &exactly, "at least once", &at_least);
    }
}

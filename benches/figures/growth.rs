//! What becomes of the speed when there is more of everything.

use memebg::config::{Config, Layers};
use memebg::model::load_graders;

use crate::common::kafka::Kafka;
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, decode::settings, feed, served};

const SMALL_IMAGE_BYTES: usize = 300;
const BATCHES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

pub fn measure(bench: &Bench, table: &mut Table) {
    let rounds = bench.pick(3, 1);
    let frames = bench.pick(300_000, 3_000);
    partitions(bench, table, frames, rounds);
    embryos(bench, table, bench.pick(1_000_000, 3_000), rounds);
    batches(bench, table, rounds);
}

/// Skipping small frames, by the partitions of the topic.
fn partitions(bench: &Bench, table: &mut Table, frames: u64, rounds: usize) {
    let kafka = Kafka::start();
    let sizes = [1, 10, bench.pick(1_000, 20)];
    let streams = sizes.map(|partitions| {
        let stream = bench.runtime.block_on(Stream::create(&kafka, &format!("p{partitions}"), partitions));
        served::fill(&stream, feed::skipped(frames, SMALL_IMAGE_BYTES, 10_000));
        stream
    });
    in_turn(bench, table, "partitions", &sizes.map(|size| size as u64), &streams, frames, rounds);
}

/// Skipping small frames, by the embryos that they are of.
fn embryos(bench: &Bench, table: &mut Table, frames: u64, rounds: usize) {
    let kafka = Kafka::start();
    let sizes = [10, 10_000, 1_000_000];
    let streams = sizes.map(|embryos| {
        let stream = bench.runtime.block_on(Stream::create(&kafka, &format!("e{embryos}"), 6));
        served::fill(&stream, feed::skipped(frames, SMALL_IMAGE_BYTES, embryos));
        stream
    });
    in_turn(bench, table, "embryos", &sizes, &streams, frames, rounds);
}

fn in_turn(
    bench: &Bench,
    table: &mut Table,
    of: &str,
    sizes: &[u64; 3],
    streams: &[Stream<'_>; 3],
    frames: u64,
    rounds: usize,
) {
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..rounds {
        for (stream, rates) in streams.iter().zip(&mut rates) {
            rates.push(served::run(
                bench,
                stream,
                &format!("growth-{round}"),
                frames,
                &bench.bundles.quick,
                &[],
            ));
        }
    }
    let [least, rates @ ..] = rates;
    for (size, rates) in sizes.iter().skip(1).zip(&rates) {
        let what = format!("skipping frames of 1 kB, {size} {of}");
        table.beside(what, "frames/s", rates, format!("{} {of}", sizes[0]), &least);
    }
}

/// Grading without Kafka, by the size of the batch.
fn batches(bench: &Bench, table: &mut Table, rounds: usize) {
    let picture = settings::picture(&feed::Photograph::of_embryo(3).jpeg, feed::SIDE_PX);
    let mut settings = Config::load(&Layers::default(), []).expect("the defaults").model;
    settings.bundle.clone_from(&bench.bundles.fp32);
    settings.graders = 1;
    bench.device.set(&mut settings);
    let sizes = bench.pick(&BATCHES[..], &BATCHES[..2]);
    let graders = sizes.iter().map(|frames| {
        settings.batch_sizes = vec![*frames];
        load_graders(&settings).expect("graders").pop().expect("a grader")
    });
    let mut graders: Vec<_> = graders.collect();
    let mut rates = vec![Vec::new(); sizes.len()];
    for _ in 0..rounds {
        for ((frames, grader), rates) in sizes.iter().copied().zip(&mut graders).zip(&mut rates) {
            let batch = vec![&picture; frames];
            let batches = bench.pick(64, 1).max(frames) / frames;
            let began = std::time::Instant::now();
            for _ in 0..batches {
                grader.grade(&batch).expect("a batch");
            }
            rates.push((batches * frames) as f64 / began.elapsed().as_secs_f64());
        }
    }
    for (frames, of_batches) in sizes.iter().zip(&rates).skip(1) {
        let what = format!("grading on one thread in batches of {frames}, fp32");
        table.beside(what, "frames/s", of_batches, "one by one", &rates[0]);
    }
}

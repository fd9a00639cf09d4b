//! Memory in use, and the time until it is ready.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::kafka::Kafka;
use crate::served::Served;
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, feed};

const PARTITIONS: usize = 6;
const MIB: f64 = 1_048_576.0;
const LOOK: Duration = Duration::from_millis(500);

pub fn measure(bench: &Bench, table: &mut Table) {
    let kafka = Kafka::start();
    let create = |name: &str| bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
    let bundle = &bench.bundles.quick;
    let nothing = create("nothing");
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for round in 0..bench.pick(5, 1) {
        let served = Served::start(bench, &nothing, &format!("idle-{round}"), bundle, &[]);
        ready.push(served.ready());
        resident.push(served.process.resident_bytes() as f64 / MIB);
        served.stop();
    }
    table.figure(format!("from start to ready, {}", bench.device.quick()), "s", &ready);
    table.figure(format!("resident when ready, {}", bench.device.quick()), "MiB", &resident);

    for kilobytes in bench.pick(vec![60, 900], vec![60]) {
        let stream = create(&format!("size-{kilobytes}"));
        // As many as are read ahead and under way, and some more.
        let frames = bench.pick((700_000 / kilobytes).min(3_000), 20);
        stream.send(feed::padded(frames, kilobytes as usize * 750));
        for in_flight in bench.pick(vec!["64", "512", "4096"], vec!["512"]) {
            let peak = peak_mib(bench, &stream, in_flight, bundle, bench.pick(15, 2));
            let what = format!("peak, frames of {kilobytes} kB wait, {in_flight} in flight allowed");
            table.figure(what, "MiB", &[peak]);
        }
    }
    long(bench, table, &create("long"));
}

fn peak_mib(bench: &Bench, stream: &Stream<'_>, in_flight: &str, bundle: &Path, seconds: u64) -> f64 {
    let options = [("flow.max_in_flight_frames", in_flight)];
    let served = Served::start(bench, stream, &format!("in-flight-{in_flight}"), bundle, &options);
    served.ready();
    sleep(Duration::from_secs(seconds));
    served.process.peak_resident_bytes() as f64 / MIB
}

/// Ten minutes of grading with 20,000 wanted frames waiting.
fn long(bench: &Bench, table: &mut Table, stream: &Stream<'_>) {
    let (frames, seconds) = bench.pick((20_000, 600), (40, 1));
    stream.send(feed::selected(frames));
    let served = Served::start(bench, stream, "long", &bench.bundles.quick, &[]);
    served.ready();
    let (began, mut resident) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        resident.push(served.process.resident_bytes() as f64 / MIB);
        sleep(LOOK);
    }
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let tenth = resident.len().div_ceil(10);
    let (second, last) = (resident[tenth..].chunks(tenth).next(), &resident[resident.len() - tenth..]);
    let what = format!("{frames} wanted frames of 60 kB wait, most in the last minute of ten");
    table.beside(what, "MiB", &[most(last)], "in the second minute", &[most(second.unwrap_or(last))]);
    table.figure("... and ever", "MiB", &[served.process.peak_resident_bytes() as f64 / MIB]);
}

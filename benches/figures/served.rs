//! The built program at work on the topics of a stream, with its default settings.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::feed::Message;
use crate::process::{Memebg, get, sum, wait_for};
use crate::rate::{PATIENCE, Progress, rate, said};
use crate::stream::Stream;

const READY: Duration = Duration::from_secs(120);
/// Oftener costs speed: every 10 ms a tenth of it.
const EVERY: Duration = Duration::from_millis(50);
const STOP: Duration = Duration::from_secs(60);

/// `memebg serve` as a child process.
pub struct Served {
    pub process: Memebg,
    address: SocketAddr,
    started: Instant,
}

impl Served {
    /// Starts it as `group`, from the beginning of the topic.
    pub fn start(
        bench: &Bench,
        stream: &Stream<'_>,
        group: &str,
        bundle: &Path,
        more: &[(&str, &str)],
    ) -> Self {
        let bundle = bundle.to_str().expect("a path in UTF-8");
        let usual = [
            ("kafka.brokers", stream.kafka.bootstrap()),
            ("kafka.group_id", group.to_owned()),
            ("kafka.frames_topic", stream.frames()),
            ("kafka.grades_topic", stream.grades()),
            ("kafka.dead_letters_topic", stream.dead_letters()),
            ("model.bundle", bundle.to_owned()),
            ("telemetry.listen", "127.0.0.1:0".to_owned()),
            ("telemetry.log_format", "json".to_owned()),
        ];
        let on = bench.device.options();
        let usual = usual.iter().chain(&on).map(|(option, value)| (*option, value.as_str()));
        let options: Vec<(&str, &str)> = usual.chain(more.iter().copied()).collect();
        let started = Instant::now();
        let process = Memebg::start(&["serve"], &options);
        let address = process.address(READY);
        Self { process, address, started }
    }

    /// Waits until it is ready; seconds since its start.
    pub fn ready(&self) -> f64 {
        wait_for("readiness", READY, || {
            get(self.address, "/readyz").filter(|(status, _)| *status == 200).map(drop)
        });
        self.started.elapsed().as_secs_f64()
    }

    /// How far it is.
    pub fn progress(&self) -> Option<Progress> {
        assert!(!self.process.has_ended(), "it ended by itself");
        let (_, text) = get(self.address, "/metrics").filter(|(status, _)| *status == 200)?;
        let of = |name: &str| sum(&text, name) as u64;
        let received = of("memebg_frames_received_total");
        let done = received.saturating_sub(of("memebg_frames_in_flight"));
        Some(Progress { received, done, seconds: self.started.elapsed().as_secs_f64() })
    }

    /// Sum over the series of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = get(self.address, "/metrics").expect("metrics");
        sum(&text, name)
    }

    /// Waits until so many frames are done with.
    pub fn finish(&self, frames: u64) {
        wait_for("the last frame", PATIENCE, || self.progress().filter(|it| it.done >= frames).map(drop));
    }

    /// Drains and ends it, and checks that every frame is accounted for.
    pub fn stop(mut self) {
        self.process.stop_in_peace(STOP);
    }
}

/// Fills the topic, and waits until that is on the disk: writing it back must not fall into what is measured.
pub fn fill(stream: &Stream<'_>, frames: impl Iterator<Item = Message>) {
    stream.send(frames);
    assert!(Command::new("sync").status().expect("sync can be run").success());
}

/// Frames per second of one run over a topic that is full before.
pub fn run(
    bench: &Bench,
    stream: &Stream<'_>,
    group: &str,
    frames: u64,
    bundle: &Path,
    more: &[(&str, &str)],
) -> f64 {
    let served = Served::start(bench, stream, group, bundle, more);
    let rate = rate(frames, EVERY, || served.progress());
    assert_eq!(served.metric("memebg_frames_dead_lettered_total"), 0.0, "no frame is refused");
    served.stop();
    said(&format!("{} {group}", stream.name), rate)
}

//! The Python programs of `benches/peer`, in Python packages of their own.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Bench;
use crate::rate::{Progress, rate, said};
use crate::stream::Stream;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer");

/// Only a variable is looked at.
const EVERY: Duration = Duration::from_millis(5);

/// Where this bench keeps what it fetches.
pub fn cache() -> PathBuf {
    let cache = memebg::model::cache_dir(Path::new("")).expect("a cache folder").join("bench");
    fs::create_dir_all(&cache).expect("the cache folder can be made");
    cache
}

/// Python with the packages of `requirements.txt`, which are fetched once.
pub fn python() -> Command {
    let requirements = Path::new(PEER).join("requirements.txt");
    let digest = Sha256::digest(fs::read(&requirements).expect("requirements.txt"));
    let packages = cache().join(format!("python-{}", hex::encode(&digest[..6])));
    if !packages.exists() {
        eprintln!("fetching the Python packages of the bench");
        let staged = tempfile::tempdir_in(cache()).expect("a temporary folder");
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
        ]);
        pip.arg("--only-binary=:all:")
            .arg("--requirement")
            .arg(&requirements)
            .arg("--target")
            .arg(staged.path().join("packages"));
        run(pip);
        fs::rename(staged.path().join("packages"), &packages).expect("the packages can be kept");
    }
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages);
    python
}

/// Runs a command that must succeed.
pub fn run(mut command: Command) {
    let status = command.status().expect("it can be run");
    assert!(status.success(), "{command:?}: {status}");
}

/// A program of `benches/peer` that talks over its pipes. Dropping it kills it.
pub struct Peer(Child);

impl Peer {
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut python = python();
        python.arg(Path::new(PEER).join(program)).args(arguments);
        Self(python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3"))
    }

    pub fn pipes(&mut self) -> (ChildStdin, Lines<BufReader<ChildStdout>>) {
        let stdin = self.0.stdin.take().expect("a pipe");
        (stdin, BufReader::new(self.0.stdout.take().expect("a pipe")).lines())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks one line, gets one line.
pub fn ask(stdin: &mut ChildStdin, answers: &mut Lines<BufReader<ChildStdout>>, question: &str) -> String {
    writeln!(stdin, "{question}").expect("it listens");
    answers.next().expect("it answers").expect("in UTF-8")
}

/// Frames per second of the Python worker over a topic that is full before.
pub fn work(bench: &Bench, stream: &Stream<'_>, group: &str, frames: u64, bundle: &Path) -> f64 {
    let (brokers, source, target) = (stream.kafka.bootstrap(), stream.frames(), stream.grades());
    let batch = bench.device.batch().max(16).to_string();
    let bundle = bundle.to_str().expect("a path in UTF-8");
    let arguments = ["--brokers", &brokers, "--group", group, "--frames", &source, "--grades", &target];
    let mut worker = Peer::start(
        "worker.py",
        &[&arguments[..], &["--bundle", bundle, "--device", bench.device.name(), "--batch", &batch]].concat(),
    );
    let (_stdin, lines) = worker.pipes();
    let latest: Arc<Mutex<Option<Progress>>> = Arc::default();
    let heard = Arc::clone(&latest);
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).expect("JSON");
            let frames = |of: &str| line[of].as_u64().expect("frames");
            let seconds = line["seconds"].as_f64().expect("seconds");
            let progress = Progress { received: frames("received"), done: frames("done"), seconds };
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        }
    });
    let rate = rate(frames, EVERY, || {
        assert!(!reader.is_finished(), "the Python worker ended by itself");
        *latest.lock().unwrap_or_else(PoisonError::into_inner)
    });
    drop(worker);
    reader.join().expect("the worker was read");
    said(group, rate)
}

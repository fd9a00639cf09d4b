//! The built program as a child process: configured by its environment alone, watched through its log and its probes,
//! stopped by signals, never left behind.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How often a condition that nobody announces is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until `condition` gives something, or fails with `what` was missing.
pub fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// A running `memebg`. Dropping it kills it.
pub struct Memebg {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// What it has written to standard error so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    text: Vec<String>,
    ended: bool,
}

impl Memebg {
    /// Starts `memebg` with these arguments and `MEMEBG__...` options, given as `section.key`. What the environment of
    /// the tests may say about memebg does not reach it.
    pub fn start(arguments: &[&str], options: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MEMEBG__")) {
            command.env_remove(name);
        }
        for (option, value) in options {
            command.env(format!("MEMEBG__{}", option.replace('.', "__").to_uppercase()), value);
        }
        let mut child = command
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("memebg can be started");
        let stderr = child.stderr.take().expect("a pipe");
        let log = Arc::new(Log::default());
        let written = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                written.lines.lock().unwrap_or_else(PoisonError::into_inner).text.push(line);
                written.more.notify_all();
            }
            written.lines.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            written.more.notify_all();
        });
        Self { child, log, reader: Some(reader) }
    }

    /// The first JSON log line whose message is `message`; fails when it does not come, or cannot come any more.
    pub fn logged(&self, message: &str, within: Duration) -> Value {
        let deadline = Instant::now() + within;
        let mut lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let parsed = lines.text.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(found) = parsed.into_iter().find(|line| line["message"] == message) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let text = lines.text.join("\n");
            assert!(!left.is_zero() && !lines.ended, "no log line {message:?} within {within:?}:\n{text}");
            lines = self.log.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it has closed its log, which it does when it ends.
    pub fn has_ended(&self) -> bool {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).text.join("\n")
    }

    /// Where its probes are, once it has said so.
    pub fn address(&self, within: Duration) -> SocketAddr {
        let line = self.logged("metrics and probes", within);
        let address = line["address"].as_str().expect("an address in the log line");
        address.parse().expect("address:port")
    }

    /// Memory in use, bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The most memory that was ever in use, bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a memory line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
    }

    /// Sends `TERM` or another signal, by the name that `kill` knows.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: the program of that name is not on every machine.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -s {name} {}", self.child.id())).status();
        assert!(sent.expect("a shell can be run").success(), "no process to send {name} to:\n{}", self.log());
    }

    /// Ends a service as an orchestrator does and checks its last word: nothing received is unaccounted for.
    pub fn stop_in_peace(&mut self, within: Duration) {
        self.signal("TERM");
        let status = self.end(within);
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert_eq!(self.balance(), 0);
    }

    /// Checks that the last log line accounts for every frame received; returns how many were still in flight.
    pub fn balance(&self) -> u64 {
        let log = self.log();
        let last: Value = serde_json::from_str(log.lines().last().expect("a log")).expect("JSON");
        assert_eq!(last["message"], "stopped", "{log}");
        let count = |field: &str| last[field].as_u64().expect("a count");
        let settled: u64 =
            ["graded", "abstained", "skipped", "duplicate", "dead_lettered"].into_iter().map(count).sum();
        assert_eq!(count("received"), settled + count("in_flight"), "{log}");
        count("in_flight")
    }

    /// Waits for its end, and for the last word of its log.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        let status = loop {
            match self.child.try_wait().expect("a child can be asked") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "still runs after {within:?}:\n{}", self.log()),
            }
            thread::sleep(LOOK_AGAIN);
        };
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log was read");
        }
        status
    }
}

impl Drop for Memebg {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("log of memebg {}:\n{}", self.child.id(), self.log());
        }
    }
}

/// Status code and body of a GET request; nothing when nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Grade events that the broker has confirmed to this process, graded or abstained; nothing when nobody answers.
pub fn grade_events(address: SocketAddr) -> Option<f64> {
    Some(
        metric(address, "memebg_grades_published_total")? + metric(address, "memebg_frames_abstained_total")?,
    )
}

/// Sum over every series of a counter or gauge; nothing when nobody answers.
pub fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = get(address, "/metrics").filter(|(status, _)| *status == 200)?;
    Some(sum(&text, name))
}

/// The same in a text that was scraped before.
pub fn sum(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // The next character ends the name: another metric may start with this one's.
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.sum()
}

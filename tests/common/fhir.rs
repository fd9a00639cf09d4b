//! FHIR as others have built it: HL7's validator and a server by HAPI FHIR, and a second reader in Python.
//!
//! Needs Java 17, python3 with venv and, the first time only, Maven and pip. Where they lack, tests fail and say so.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A start takes 13 to 26 seconds on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(240);

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fhir").join(path)
}

/// The jars, fetched and checked once per process.
fn jars() -> &'static str {
    static JARS: OnceLock<String> = OnceLock::new();
    JARS.get_or_init(|| {
        let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/fetch-jars");
        let fetched = Command::new(fetch).arg(here("")).output().expect("bash");
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        String::from_utf8(fetched.stdout).expect("a path").trim().to_owned()
    })
}

/// A Groovy script with everything of HAPI FHIR on its class path.
fn script(name: &str) -> Command {
    let mut java = Command::new("java");
    // Short-lived: one compiler tier starts faster.
    java.args(["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args([
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
        ])
        .args(["-cp", &format!("{}/*", jars()), "groovy.ui.GroovyMain"])
        .arg(here(name));
    java
}

fn lines(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(str::to_owned).collect()
}

/// What HL7's validator finds wrong with these files: lines with file, place and message, of errors alone.
pub fn errors(version: &str, files: &[PathBuf]) -> Vec<String> {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/fhir");
    let ran = script("validate.groovy").arg(version).arg(schemas).args(files).output().expect("java");
    let mut found = lines(&ran);
    assert_eq!(found.pop(), Some(format!("validated {}", files.len())), "{found:?}");
    found.retain(|line| ["error", "fatal"].contains(&line.split('\t').nth(1).unwrap_or_default()));
    found
}

/// What the second reader says of these files, one line each.
pub fn second_opinions(version: &str, files: &[PathBuf]) -> Vec<String> {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
        let list = fs::read(here("requirements.txt")).expect("the list");
        let venv = format!("memebg/fhir-python-{:08x}", crc32fast::hash(&list));
        let venv = cache.unwrap_or_else(home).join(venv);
        if !venv.join("complete").exists() {
            let run = |command: &mut Command| {
                lines(&command.output().expect("python3 with venv (Debian: python3-venv)"));
            };
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
            run(Command::new(venv.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"])
                .arg(here("requirements.txt")));
            fs::write(venv.join("complete"), "").expect("a mark");
        }
        venv.join("bin/python")
    });
    lines(&Command::new(python).arg(here("second.py")).arg(version).args(files).output().expect("python"))
}

/// A running HAPI FHIR server with a database of its own. Dropping it, or the end of the test process, ends it.
pub struct FhirServer {
    version: &'static str,
    port: u16,
    folder: TempDir,
    /// Key store and its password.
    tls: Option<(String, String)>,
    process: Option<Child>,
}

impl FhirServer {
    pub fn start(version: &'static str, port: u16, tls: Option<(String, String)>) -> Self {
        let folder = tempfile::Builder::new().prefix("memebg-fhir-").tempdir().expect("a temporary folder");
        let mut server = Self { version, port, folder, tls, process: None };
        server.start_again();
        server
    }

    /// Its base URL.
    pub fn base(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/fhir", self.port)
    }

    /// Kills it and keeps its data.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        // The end of its stdin.
        drop(process.stdin.take());
        process.wait().expect("it can be waited for");
    }

    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut server = script("server.groovy");
        server.args([self.version, &self.port.to_string()]).arg(self.folder.path());
        if let Some((store, password)) = &self.tls {
            server.args([store, password]);
        }
        server.stdin(Stdio::piped()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.process = Some(server.spawn().expect("java"));
        let deadline = Instant::now() + READY_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let process = self.process.as_mut().expect("it was started");
            let ended = process.try_wait().expect("it can be asked").is_some();
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "no FHIR server:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

impl Drop for FhirServer {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}

/// Of the key stores that [`certificate`] makes.
pub const STORE_PASSWORD: &str = "store-of-the-tests";

/// A key for loopback with a certificate that it has signed itself: the key store, and `name.pem` beside it.
pub fn certificate(folder: &Path, name: &str) -> PathBuf {
    let store = folder.join(format!("{name}.p12"));
    let keytool = |arguments: &[&str]| {
        let ran = Command::new("keytool")
            .args(arguments)
            .args(["-storepass", STORE_PASSWORD, "-alias", name, "-keystore"])
            .arg(&store)
            .output()
            .expect("keytool comes with Java");
        assert!(ran.status.success(), "keytool: {}", String::from_utf8_lossy(&ran.stdout));
        ran.stdout
    };
    let subject = format!("CN={name}");
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-storetype",
        "PKCS12",
        "-validity",
        "7",
        "-dname",
        &subject,
        "-ext",
        "san=ip:127.0.0.1",
    ]);
    fs::write(folder.join(format!("{name}.pem")), keytool(&["-exportcert", "-rfc"])).expect("written");
    store
}

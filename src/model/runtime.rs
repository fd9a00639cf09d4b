//! Finding and loading ONNX Runtime, the shared library that runs the models.
//!
//! It is not linked: the same binary runs with the CPU build it fetches itself, with a GPU build or
//! with one that a site without internet brings along.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use serde::{Deserialize, Serialize};

use super::cache::{cache_dir, remove_unfinished, sha256_of, sibling};
use super::{ModelError, opt_out};

/// The version that is fetched: the newest that exists as a CPU and as a GPU build.
const VERSION: &str = "1.31.1";
/// The library inside the wheel.
const MEMBER: &str = "onnxruntime/capi/libonnxruntime.so.1.31.1";
/// A wheel of 24 MB on a slow line; after that the start of the service fails rather than hangs.
const FETCH_TIMEOUT: Duration = Duration::from_secs(300);
/// Unpacking one file.
const UNPACK_TIMEOUT: Duration = Duration::from_secs(60);
/// A fetch that has not ended after this was interrupted: both time-outs, and time to verify.
const UNFINISHED_AGE: Duration = Duration::from_secs(600);
/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How much of a failed command's error output is repeated.
const MAX_ERROR_CHARS: usize = 600;

/// Takes one member out of a wheel: wheel, member, destination.
const UNPACK: &str = "import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as member, open(sys.argv[3], 'xb') as out:
    shutil.copyfileobj(member, out)
";

/// Where ONNX Runtime comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSettings {
    /// `libonnxruntime.so` (1.24 or newer) to load. Empty: the cached copy, or a fetched one.
    pub library: PathBuf,
    /// Whether a missing library may be fetched once, with pip.
    pub fetch: bool,
    /// Where what is fetched, and what training goes on from, is kept. Empty:
    /// `$XDG_CACHE_HOME/memebg` or `~/.cache/memebg`.
    pub cache_dir: PathBuf,
}

/// A wheel whose content is known.
#[derive(Debug, Clone, Copy)]
struct Wheel {
    platform: &'static str,
    sha256: &'static str,
    library_sha256: &'static str,
}

/// The wheel for this machine; the digests are those of the Python package index.
fn wheel() -> Result<Wheel, ModelError> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok(Wheel {
            platform: "manylinux_2_28_x86_64",
            sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
            library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        }),
        ("linux", "aarch64") => Ok(Wheel {
            platform: "manylinux_2_28_aarch64",
            sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
            library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        }),
        (os, arch) => Err(ModelError::Runtime(format!(
            "there is no known build for {os} on {arch}; set runtime.library to a copy of version {VERSION}"
        ))),
    }
}

/// One environment per process: ONNX Runtime allows no second one.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The environment that all sessions share. The first call decides on library and threads; later
/// ones get the same environment whatever they ask for.
///
/// All sessions take turns on one pool of `intra_op_threads` threads (0: one per core) that do not
/// spin: two private spinning pools nearly halve the throughput of two models used in turn.
///
/// Blocks while the library is fetched.
///
/// # Errors
/// [`ModelError::Runtime`] when no library is found, it cannot be loaded or is too old, or it would
/// report usage (see [`opt_out_of_usage_reports`]).
///
/// [`opt_out_of_usage_reports`]: super::opt_out_of_usage_reports
pub fn environment(settings: &RuntimeSettings, intra_op_threads: usize) -> Result<Environment, ModelError> {
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    opt_out::require()?;
    let built = load(&locate(settings)?, intra_op_threads)?;
    Ok(environment.insert(built).clone())
}

fn load(library: &Path, intra_op_threads: usize) -> Result<Environment, ModelError> {
    let failed = |error: &dyn std::fmt::Display| {
        ModelError::Runtime(format!("{} cannot be used: {error}", library.display()))
    };
    // The library must be loaded explicitly before anything else: ort aborts the process otherwise.
    let builder = ort::init_from(library).map_err(|error| failed(&error))?;
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(intra_op_threads)
        .and_then(|pool| pool.with_inter_threads(1))
        .and_then(|pool| pool.with_spin_control(false))
        .map_err(|error| failed(&error))?;
    let built = builder
        .with_name("memebg")
        .with_telemetry(false)
        .with_global_thread_pool(pool)
        .build()
        .map_err(|error| failed(&error))?;
    // Below warnings it reports every run of every session.
    built.set_log_level(LogLevel::Warning);
    tracing::info!(library = %library.display(), intra_op_threads, "onnx runtime loaded");
    Ok(built)
}

/// The library to load: the configured one, else the cached one, else a fetched one.
///
/// # Errors
/// [`ModelError::Runtime`] saying what was looked for and what to do.
pub(super) fn locate(settings: &RuntimeSettings) -> Result<PathBuf, ModelError> {
    if !settings.library.as_os_str().is_empty() {
        // Absolute, because a relative name would be looked for beside the program first.
        return std::path::absolute(&settings.library).ok().filter(|path| path.is_file()).ok_or_else(|| {
            let path = settings.library.display();
            ModelError::Runtime(format!("runtime.library {path} is not a file"))
        });
    }
    let wheel = wheel()?;
    let folder = cache_dir(&settings.cache_dir)?.join("onnxruntime").join(VERSION);
    // Absolute, because what fetches it works in a folder of its own.
    let folder = std::path::absolute(&folder).map_err(|error| ModelError::cache(&folder, error))?;
    let library = folder.join(format!("{}.so", wheel.platform));
    match sha256_of(&library) {
        Ok(sha256) if sha256 == wheel.library_sha256 => return Ok(library),
        Ok(_) => tracing::warn!(library = %library.display(), "the cached onnx runtime is damaged"),
        Err(_) => {}
    }
    if !settings.fetch {
        return Err(ModelError::Runtime(format!(
            "{} does not hold version {VERSION} and runtime.fetch is off; set runtime.library or turn it on",
            library.display()
        )));
    }
    fs::create_dir_all(&folder).map_err(|error| ModelError::cache(&folder, error))?;
    remove_unfinished(&folder, UNFINISHED_AGE);
    fetch(wheel, &library)?;
    Ok(library)
}

/// Downloads the wheel into a folder of its own and moves the library into place when it is whole,
/// so that several processes may do so at once.
fn fetch(wheel: Wheel, library: &Path) -> Result<(), ModelError> {
    tracing::info!(version = VERSION, "fetching onnx runtime (24 MB, once)");
    let began = Instant::now();
    let folder = sibling(library);
    DirBuilder::new().mode(0o700).create(&folder).map_err(|error| ModelError::cache(&folder, error))?;
    let fetched = fetch_into(wheel, &folder, library);
    if let Err(error) = fs::remove_dir_all(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "could not be removed");
    }
    fetched?;
    tracing::info!(seconds = began.elapsed().as_secs(), "fetched onnx runtime");
    Ok(())
}

fn fetch_into(wheel: Wheel, folder: &Path, library: &Path) -> Result<(), ModelError> {
    let mut pip = python(folder);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--python-version", "3.12", "--platform", wheel.platform, "--dest"])
        .arg(folder)
        .arg(format!("onnxruntime=={VERSION}"));
    run(&mut pip, folder, FETCH_TIMEOUT)?;

    let entries = fs::read_dir(folder).map_err(|error| ModelError::cache(folder, error))?;
    let archive = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| ModelError::Runtime("pip downloaded no wheel".to_owned()))?;
    verify(&archive, wheel.sha256)?;
    let unpacked = folder.join("library");
    let mut unpack = python(folder);
    unpack.args(["-c", UNPACK]).arg(&archive).arg(MEMBER).arg(&unpacked);
    run(&mut unpack, folder, UNPACK_TIMEOUT)?;
    verify(&unpacked, wheel.library_sha256)?;
    File::open(&unpacked)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unpacked, library))
        .map_err(|error| ModelError::cache(folder, error))
}

/// Python that imports only what is installed. Otherwise `pip.py` or `zipfile.py` in whatever folder
/// the service was started in, or in `PYTHONPATH`, would be executed. `folder` is absolute, private
/// and fresh.
fn python(folder: &Path) -> Command {
    let mut python = Command::new("python3");
    python.arg("-I").current_dir(folder);
    python
}

fn verify(path: &Path, expected: &str) -> Result<(), ModelError> {
    let sha256 = sha256_of(path).map_err(|error| ModelError::cache(path, error))?;
    if sha256 == expected {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Err(ModelError::Runtime(format!("downloaded {name} has sha256 {sha256}, expected {expected}")))
}

/// Runs a command to its end, or kills it. Its error output goes to a file: a pipe that nobody
/// reads would stop it.
fn run(command: &mut Command, folder: &Path, timeout: Duration) -> Result<(), ModelError> {
    let advice = "set runtime.library to a copy of libonnxruntime.so";
    let failed = |reason: String| ModelError::Runtime(format!("python3 {reason}; {advice}"));
    let errors = folder.join("errors");
    let stderr = File::create(&errors).map_err(|error| ModelError::cache(&errors, error))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let text = fs::read(&errors).unwrap_or_default();
                let text: String = String::from_utf8_lossy(&text).chars().take(MAX_ERROR_CHARS).collect();
                return Err(failed(format!("failed with {status}: {}", text.trim())));
            }
            None if Instant::now() < deadline => std::thread::sleep(POLL),
            None => {
                let stopped = child.kill().and_then(|()| child.wait());
                let seconds = timeout.as_secs();
                return Err(failed(match stopped {
                    Ok(_) => format!("was killed after {seconds} s"),
                    Err(error) => format!("could not be killed after {seconds} s: {error}"),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(library: &str, cache_dir: &Path) -> RuntimeSettings {
        RuntimeSettings { library: library.into(), fetch: false, cache_dir: cache_dir.to_owned() }
    }

    #[test]
    fn a_configured_library_that_is_not_there_is_an_error_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let error = locate(&settings("/nowhere/libonnxruntime.so", folder.path())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/libonnxruntime.so"), "{error}");
    }

    #[test]
    fn without_fetching_an_empty_cache_says_what_to_set() {
        let folder = tempfile::tempdir().unwrap();
        let error = locate(&settings("", folder.path())).unwrap_err().to_string();
        assert!(error.contains("runtime.library") && error.contains(VERSION), "{error}");
    }

    #[test]
    fn a_damaged_cached_library_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let cached = folder.path().join("onnxruntime").join(VERSION);
        fs::create_dir_all(&cached).unwrap();
        fs::write(cached.join(format!("{}.so", wheel().unwrap().platform)), b"cut off").unwrap();
        assert!(locate(&settings("", folder.path())).is_err());
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        fs::write(&path, b"text").unwrap();
        let error = load(&path, 1).unwrap_err().to_string();
        assert!(error.contains("libonnxruntime.so cannot be used"), "{error}");
    }

    #[test]
    fn python_imports_nothing_that_lies_where_it_is_started_or_where_the_environment_points() {
        let (folder, started_in) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let proof = started_in.path().join("executed");
        for name in ["pip.py", "zipfile.py", "planted.py"] {
            let code = format!("open({:?}, 'a').close()\n", proof.to_str().unwrap());
            fs::write(started_in.path().join(name), code).unwrap();
        }
        for arguments in
            [["-m", "planted"], ["-m", "pip"], ["-c", "import zipfile"], ["-c", "import planted"]]
        {
            // Where it runs is not trusted either: the isolation must hold without the folder.
            let mut planted = python(folder.path());
            assert_eq!(planted.get_current_dir(), Some(folder.path()));
            planted.current_dir(started_in.path()).env("PYTHONPATH", started_in.path()).args(arguments);
            let ended = run(&mut planted, folder.path(), Duration::from_secs(60));
            assert!(!proof.exists(), "{arguments:?} executed a planted file");
            assert!(ended.is_err() || !arguments.concat().contains("planted"), "{arguments:?}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut hanging = python(folder.path());
        hanging.args(["-c", "import time; time.sleep(600)"]);
        let error = run(&mut hanging, folder.path(), Duration::from_millis(300)).unwrap_err().to_string();
        assert!(error.contains("was killed"), "{error}");
    }

    #[test]
    fn a_command_that_fails_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let mut failing = python(folder.path());
        failing.args(["-c", "raise SystemExit('no such wheel')"]);
        let error = run(&mut failing, folder.path(), Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("no such wheel"), "{error}");
    }
}

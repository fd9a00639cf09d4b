//! ONNX Runtime's usage reports, which must not leave a clinic.
//!
//! Official builds from 1.29 on write a device id and events (path of the program, operating system,
//! models) below the user's cache folder and send them to their maker. Switching that off through
//! the API comes too late: the first event is recorded while the environment is made. Only this
//! variable, set before the library initialises, prevents all of it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::ModelError;

/// Documented in ONNX Runtime's `docs/Privacy.md`.
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
const SET: &str = "1";

/// Call first in `main`: starts the program again in place, with the same arguments and process id,
/// when `ORT_DISABLE_TELEMETRY` is not set. A process cannot safely change its own environment.
///
/// # Errors
/// [`ModelError::Runtime`] when the program cannot be started again.
pub fn opt_out_of_usage_reports() -> Result<(), ModelError> {
    if check(std::env::var_os(VARIABLE).as_deref()).is_ok() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let failed =
        |error| ModelError::Runtime(format!("cannot restart with {VARIABLE}={SET}: {error}; set it"));
    let mut again = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(name) = name {
        again.arg0(name);
    }
    // Only an error comes back from here.
    Err(failed(again.args(arguments).env(VARIABLE, SET).exec()))
}

/// Refuses to go on where usage reports would be made.
pub(super) fn require() -> Result<(), ModelError> {
    check(std::env::var_os(VARIABLE).as_deref())
}

fn check(value: Option<&OsStr>) -> Result<(), ModelError> {
    if value == Some(OsStr::new(SET)) {
        return Ok(());
    }
    Err(ModelError::Runtime(format!(
        "it would send usage reports to its maker; set {VARIABLE}={SET} in the environment before the start"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onnx_runtime_is_not_started_where_it_would_report_usage() {
        assert!(check(Some(OsStr::new("1"))).is_ok());
        for value in [None, Some("0"), Some(""), Some("false")] {
            let error = check(value.map(OsStr::new)).unwrap_err().to_string();
            assert!(error.contains("ORT_DISABLE_TELEMETRY=1"), "{error}");
        }
    }
}

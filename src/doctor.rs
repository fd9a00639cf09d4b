//! Looks at everything that `memebg serve` and the processes beside it will need, and says of each what is wrong and what
//! to do.
//!
//! It changes nothing and may run beside all of them: no group is joined, no topic written to, no image read and
//! nothing fetched. The traces that it leaves: of a process with transactions the brokers remember a transactional id for a
//! while, a FHIR server has been asked for its capabilities, and a collector of traces has been sent none.

mod board;
mod check;
mod clocks;
mod cluster;
mod emr;
mod images;
mod listener;
mod machine;
mod models;
mod needs;
mod shadow;
mod traces;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
pub use check::{Check, Fault, Report, Status};
use needs::Needs;
pub use needs::Process;

/// Where the options come from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// `MEMEBG__...` variables.
    pub variables: usize,
    /// `--set` options.
    pub assignments: usize,
}

/// Looks at everything that these processes need, side by side; each check takes about `timeout` at most. What several of
/// them need is looked at once.
pub async fn examine(config: &Config, origin: &Origin, processes: &[Process], timeout: Duration) -> Report {
    let needs = Needs::of(config, processes);
    let wants = |process| processes.contains(&process);
    let (serve, board) = (wants(Process::Serve), wants(Process::Board));
    let model = serve || (board && config.board.heat_maps);
    let ((cluster, clock), images, models, shadow, listeners, emr, access, traces) = tokio::join!(
        cluster::check(config, &needs, timeout),
        when(serve || board, images::check(config, timeout)),
        when(model, models::check(&config.model, serve, timeout)),
        when(serve, shadow::check(config, timeout)),
        listeners(config, board),
        when(wants(Process::Emr), emr::check(&config.emr, timeout)),
        when(board, board::access(&config.board, timeout)),
        when(serve, traces::check(&config.telemetry.traces.endpoint, timeout)),
    );
    let mut checks = vec![configuration(origin)];
    checks.extend(cluster);
    checks.extend(clock);
    if let Some((images, clock)) = images {
        checks.extend(images);
        checks.extend(clock);
    }
    let (mut graders, mut bundle_bytes) = (None, None);
    if let Some(models) = models {
        (graders, bundle_bytes) = (models.graders, models.bundle_bytes);
        checks.extend(models.checks);
        checks.extend(board.then(|| board::heat_maps(&config.board, models.maps)).flatten());
    }
    checks.extend(shadow.into_iter().flatten());
    checks.extend(listeners);
    checks.extend(access);
    checks.extend(emr);
    checks.extend(traces.flatten());
    if serve {
        checks.extend(machine::check(graders, bundle_bytes));
    }
    Report { checks }
}

/// What is not needed is not looked at.
async fn when<T>(needed: bool, look: impl Future<Output = T>) -> Option<T> {
    if needed { Some(look.await) } else { None }
}

/// One after the other, because two of the same address would take it from each other.
async fn listeners(config: &Config, board: bool) -> Vec<Check> {
    let mut checks = vec![listener::telemetry(&config.telemetry.listen).await];
    if board {
        checks.push(board::listener(&config.board, &config.telemetry.listen).await);
    }
    checks
}

fn configuration(origin: &Origin) -> Check {
    let file = origin.file.as_ref().map_or("built-in defaults".to_owned(), |file| file.display().to_string());
    let Origin { variables, assignments, .. } = origin;
    let found = format!("{file}, {variables} options from the environment, {assignments} from --set");
    Check::ok("configuration", found)
}

/// The URL, unless it may hold a secret.
fn shown(url: &str) -> &str {
    let plain =
        |url: &url::Url| url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url::Url::parse(url).is_ok_and(|url| plain(&url)) { url } else { "<redacted>" }
}

/// What `work` returns, on a thread of its own so that it may block; or why there is no answer.
async fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("the check itself failed: {error}")),
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        assert_eq!(shown("s3://frames/2026"), "s3://frames/2026");
        for secret in
            ["https://me:hunter@host/frames", "https://me@host", "https://host/?token=hunter", "hunter"]
        {
            assert_eq!(shown(secret), "<redacted>", "{secret}");
        }
    }

    #[tokio::test]
    async fn a_check_that_hangs_or_panics_is_a_finding() {
        let hung = within(Duration::from_millis(10), || std::thread::sleep(Duration::from_millis(500))).await;
        assert!(hung.unwrap_err().contains("no answer"));
        let panicked = within(Duration::from_secs(60), || -> () { panic!("on purpose") }).await;
        assert!(panicked.unwrap_err().contains("the check itself failed"));
    }
}

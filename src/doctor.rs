//! Looks at everything that `memebg serve` will need, and says of each what is wrong and what to do.
//!
//! It changes nothing and may run beside a service: no group is joined, no topic written to, no image read and
//! nothing fetched. The one trace: with `exactly_once` the brokers remember its transactional id for a while.

mod clocks;
mod cluster;
mod images;
mod listener;
mod machine;
mod models;
mod shadow;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::Config;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The service will start; somebody should look at this.
    Warn,
    /// The service will not do its work.
    Fail(Fault),
    /// Could not be looked at, or need not be.
    Skipped,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something has to be mended.
    ToMend,
    /// The configuration cannot be used.
    Configuration,
    /// An external part cannot be reached; it may come back by itself.
    Unreachable,
}

impl Status {
    /// `ok`, `warn`, `fail` or `skipped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail(_) => "fail",
            Self::Skipped => "skipped",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, e.g. `kafka.brokers`.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn new(
        name: impl Into<String>,
        status: Status,
        found: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Self { name: name.into(), status, found: found.into(), advice }
    }

    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found, None)
    }

    fn skipped(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(name, Status::Skipped, found, None)
    }

    fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name, Status::Warn, found, Some(advice.into()))
    }

    fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name, Status::Fail(Fault::ToMend), found, Some(advice.into()))
    }

    /// A failure that is another's fault than somebody's here.
    fn because_of(self, fault: Fault) -> Self {
        Self { status: Status::Fail(fault), ..self }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone)]
pub struct Report {
    /// In the order in which a service would meet them.
    pub checks: Vec<Check>,
}

impl Report {
    /// How many checks ended so, whosever fault a failure is.
    #[must_use]
    pub fn count(&self, status: &str) -> usize {
        self.checks.iter().filter(|check| check.status.as_str() == status).count()
    }

    /// Whose fault it is that something failed; `None` when nothing did. A configuration that cannot be used comes
    /// first, because nothing else helps, and what cannot be reached last: once it is back the rest would still fail.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let failed = |fault| self.checks.iter().any(|check| check.status == Status::Fail(fault));
        [Fault::Configuration, Fault::ToMend, Fault::Unreachable].into_iter().find(|fault| failed(*fault))
    }
}

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

/// Looks at everything, side by side; each check takes about `timeout` at most.
pub async fn examine(config: &Config, origin: &Origin, timeout: Duration) -> Report {
    let ((cluster, clock), (images, image_clock), models, shadow, listener) = tokio::join!(
        cluster::check(config, timeout),
        images::check(config, timeout),
        models::check(&config.model, timeout),
        shadow::check(config, timeout),
        listener::check(&config.telemetry.listen),
    );
    let mut checks = vec![configuration(origin)];
    checks.extend(cluster);
    checks.push(clock);
    checks.extend(images);
    checks.extend(image_clock);
    checks.extend(models.checks);
    checks.extend(shadow);
    checks.push(listener);
    checks.extend(machine::check(models.graders, models.bundle_bytes));
    Report { checks }
}

fn configuration(origin: &Origin) -> Check {
    let file = origin.file.as_ref().map_or("built-in defaults".to_owned(), |file| file.display().to_string());
    let Origin { variables, assignments, .. } = origin;
    let found = format!("{file}, {variables} options from the environment, {assignments} from --set");
    Check::ok("configuration", found)
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
    fn what_cannot_be_reached_does_not_hide_what_has_to_be_mended() {
        let lost = Check::fail("kafka.brokers", "", "").because_of(Fault::Unreachable);
        let broken = Check::fail("bundle", "", "");
        let unusable = Check::fail("images.0", "", "").because_of(Fault::Configuration);
        let fault = |checks: &[&Check]| {
            Report { checks: checks.iter().map(|check| (*check).clone()).collect() }.fault()
        };
        assert_eq!(fault(&[&lost]), Some(Fault::Unreachable));
        assert_eq!(fault(&[&lost, &broken]), Some(Fault::ToMend));
        assert_eq!(fault(&[&lost, &broken, &unusable]), Some(Fault::Configuration));
        assert_eq!(fault(&[&Check::warn("a", "", ""), &Check::skipped("b", "")]), None);
    }

    #[tokio::test]
    async fn a_check_that_hangs_or_panics_is_a_finding() {
        let hung = within(Duration::from_millis(10), || std::thread::sleep(Duration::from_millis(500))).await;
        assert!(hung.unwrap_err().contains("no answer"));
        let panicked = within(Duration::from_secs(60), || -> () { panic!("on purpose") }).await;
        assert!(panicked.unwrap_err().contains("the check itself failed"));
    }
}

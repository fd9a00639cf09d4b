//! What was looked at, how that ended and whose fault it is.

use serde::{Serialize, Serializer};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The process will start; somebody should look at this.
    Warn,
    /// The process will not do its work.
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
    pub(super) fn new(
        name: impl Into<String>,
        status: Status,
        found: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Self { name: name.into(), status, found: found.into(), advice }
    }

    pub(super) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found, None)
    }

    pub(super) fn skipped(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(name, Status::Skipped, found, None)
    }

    pub(super) fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name, Status::Warn, found, Some(advice.into()))
    }

    pub(super) fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name, Status::Fail(Fault::ToMend), found, Some(advice.into()))
    }

    /// A failure that is another's fault than somebody's here.
    pub(super) fn because_of(self, fault: Fault) -> Self {
        Self { status: Status::Fail(fault), ..self }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone)]
pub struct Report {
    /// In the order in which a process would meet them.
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
}

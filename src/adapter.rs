//! The adapter: watches the export folder of an incubator that writes files and publishes its photographs as frame
//! events.
//!
//! ```text
//! folder ─▶ settled? ─▶ layout: whose, when, which plane ─▶ read ─▶ frame event ─▶ broker confirms ─▶ journal
//!                          │ refused: logged once, looked at again
//! ```
//!
//! Nothing is lost: a file is done only when the broker has its event and the journal says so. Nothing comes twice
//! after a clean stop; after a crash what was under way comes again with the same identity (embryo, run, focal plane)
//! and the same CloudEvents id. Nothing is guessed: what does not fit the chosen layout is refused. The folder itself is
//! only read, so refused files stay where they are.
//!
//! Patient data ends here. Of the files beside the images only the fields of a whitelist are read, ids that could be
//! names are replaced ([`AdapterSettings::pseudonym_key_file`]), and of a path only what could be no name is logged.

mod astec;
mod culture;
mod embryoscope;
mod folder;
mod journal;
mod layout;
mod pseudonym;
mod round;
mod settings;
mod shown;
mod sidecar;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use url::Url;

use crate::domain::FrameId;
use folder::Stamp;
use journal::Journal;
use pseudonym::Pseudonyms;
use settings::setting;
pub use settings::{AdapterSettings, CapturedAt, Layout, PlaneNames};

/// Why the adapter cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// An option that cannot be used.
    #[error("adapter.{option} {problem}")]
    Setting {
        /// Name of the field of [`AdapterSettings`].
        option: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// What was published cannot be remembered.
    #[error("adapter.state_file {} cannot be used", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A frame event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The same for the same frame.
    pub id: String,
    /// Kafka key.
    pub embryo_id: String,
    /// The frame event, JSON.
    pub event: Vec<u8>,
}

/// Where frame events go.
pub trait Outlet {
    /// Returns when all frames are confirmed, but for those, by their place, that are too large to be taken.
    ///
    /// # Errors
    /// When it is not known whether all of them arrived.
    fn publish(&mut self, frames: Vec<Outgoing>) -> anyhow::Result<Vec<usize>>;
}

/// What a look at the folder came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames published now.
    pub published: u64,
    /// Images in the folder whose frames are published, those of now included.
    pub done: u64,
    /// Images that are still being written, or for which something is missing that may yet come.
    pub waiting: u64,
    /// Images, and folders, that are refused. They are looked at again each time.
    pub refused: u64,
}

/// Why an image is not a frame. The message never repeats what a file says.
#[derive(Debug)]
struct Refusal {
    message: String,
    /// Whether it is likely to mend itself: it is reported later.
    may_pass: bool,
}

impl Refusal {
    fn wrong(message: impl Into<String>) -> Self {
        Self { message: message.into(), may_pass: false }
    }

    fn not_yet(message: impl Into<String>) -> Self {
        Self { message: message.into(), may_pass: true }
    }
}

/// An image in the folder and how far it is.
#[derive(Debug)]
struct Tracked {
    stamp: Stamp,
    /// When the stamp was first seen, counted from the start of the process.
    since: Duration,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// Not looked at yet.
    New,
    Refused {
        since: Duration,
        message: String,
        reported: bool,
    },
    Done(FrameId),
}

/// Watches one folder. Holds the state file for itself.
pub struct Adapter {
    settings: AdapterSettings,
    clock_tolerance_seconds: u32,
    root: PathBuf,
    uri_prefix: Option<Url>,
    pseudonyms: Pseudonyms,
    journal: Journal,
    tracked: HashMap<String, Tracked>,
    /// Problems of the folder that were logged.
    reported: HashSet<String>,
}

impl Adapter {
    /// Checks everything that can be checked before the first look.
    ///
    /// # Errors
    /// [`AdapterError::Setting`] naming the option, or [`AdapterError::Journal`].
    pub fn open(settings: AdapterSettings, clock_tolerance_seconds: u32) -> Result<Self, AdapterError> {
        settings.validate()?;
        settings.require()?;
        let folder = &settings.folder;
        let root = folder
            .canonicalize()
            .map_err(|error| setting("folder", format!("{} cannot be read: {error}", folder.display())))?;
        let uri_prefix = (!settings.uri_prefix.is_empty()).then(|| uri_prefix(&settings.uri_prefix));
        let uri_prefix = uri_prefix.transpose()?;
        let pseudonyms = Pseudonyms::open(&settings)?;
        let journal = Journal::open(&settings.state_file)?;
        let (tracked, reported) = (HashMap::new(), HashSet::new());
        Ok(Self {
            settings,
            clock_tolerance_seconds,
            root,
            uri_prefix,
            pseudonyms,
            journal,
            tracked,
            reported,
        })
    }

    fn has_settled(&self, tracked: &Tracked, now: Duration) -> bool {
        now.saturating_sub(tracked.since) >= Duration::from_secs(self.settings.settle_seconds)
    }
}

fn uri_prefix(text: &str) -> Result<Url, AdapterError> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "file" && url.query().is_none());
    url.ok_or_else(|| setting("uri_prefix", "is not of the form file:///frames"))
}

/// Digits, 1 to `most` of them and nothing else, behind a prefix.
fn number(text: &str, prefix: &str, most: usize) -> Option<u64> {
    let digits = text.strip_prefix(prefix)?;
    let fits = (1..=most).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// A time in a file beside an image.
fn time(field: &str, text: &str) -> Result<DateTime<Utc>, Refusal> {
    let time = DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|_| {
        Refusal::wrong(format!("{field} is not an RFC 3339 time with an offset such as 2026-01-31T08:30:00Z"))
    })?;
    Ok(time.with_timezone(&Utc))
}

#[cfg(test)]
mod tests;

//! One way in for all layouts: pure functions from a path and what lies beside it to the description of a frame.

use chrono::{DateTime, Utc};

use super::pseudonym::Pseudonyms;
use super::settings::{AdapterSettings, Layout};
use super::{Refusal, astec, embryoscope, sidecar};
use crate::incubator::Exposure;

/// An image as the folder lists it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// Below the export folder, with `/` between its parts.
    pub(super) relative: &'a str,
    pub(super) modified: DateTime<Utc>,
}

impl Layout {
    /// The files that an image needs to be described.
    pub(super) fn companions(
        self,
        relative: &str,
        settings: &AdapterSettings,
    ) -> Result<Vec<String>, Refusal> {
        match self {
            Self::Sidecar => Ok(vec![sidecar::companion(relative)]),
            Self::Embryoscope => Ok(vec![embryoscope::companion(relative, settings)?]),
            Self::Astec => astec::companions(relative),
        }
    }

    /// What the image shows, from the content of its `companions`, in their order.
    pub(super) fn describe(
        self,
        file: &Candidate<'_>,
        companions: &[&[u8]],
        settings: &AdapterSettings,
        pseudonyms: &Pseudonyms,
    ) -> Result<Exposure, Refusal> {
        match (self, companions) {
            (Self::Sidecar, [json]) => sidecar::describe(json, settings, pseudonyms),
            (Self::Embryoscope, [slide]) => embryoscope::describe(file, slide, settings),
            (Self::Astec, [info, dish]) => astec::describe(file, info, dish, settings),
            _ => Err(Refusal::not_yet("a file that belongs to it is missing")),
        }
    }
}

/// The folder of a path, empty at the top.
pub(super) fn folder_of(relative: &str) -> &str {
    relative.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The name of a path without its last extension.
pub(super) fn stem_of(relative: &str) -> &str {
    let name = relative.rsplit_once('/').map_or(relative, |(_, name)| name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

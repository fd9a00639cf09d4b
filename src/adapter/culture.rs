//! The file of a slide or dish: what an export does not say of a culture. The laboratory writes it, or its EMR does.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, Utc};
use serde::Deserialize;

use super::{Refusal, time};
use crate::domain::{InseminationMethod, Rejection, TimeZeroSource};

/// The fields that are read; any other is left where it is.
#[derive(Deserialize)]
struct Fields {
    insemination_time: String,
    insemination_method: InseminationMethod,
    time_zero_source: TimeZeroSource,
    #[serde(default)]
    captures: BTreeMap<String, String>,
    incubator_utc_offset: Option<String>,
}

pub(super) struct Culture {
    pub(super) insemination_time: DateTime<Utc>,
    pub(super) insemination_method: InseminationMethod,
    pub(super) time_zero_source: TimeZeroSource,
    captures: BTreeMap<String, String>,
    incubator_utc_offset: Option<String>,
}

impl Culture {
    pub(super) fn read(what: &str, json: &[u8]) -> Result<Self, Refusal> {
        let fields: Fields = serde_json::from_slice(json)
            .map_err(|error| Refusal::not_yet(Rejection::unreadable(what, &error).message))?;
        Ok(Self {
            insemination_time: time("insemination_time", &fields.insemination_time)?,
            insemination_method: fields.insemination_method,
            time_zero_source: fields.time_zero_source,
            captures: fields.captures,
            incubator_utc_offset: fields.incubator_utc_offset,
        })
    }

    /// When a run was photographed.
    pub(super) fn captured_at(&self, run: u64) -> Result<DateTime<Utc>, Refusal> {
        let text = self.captures.get(&run.to_string()).ok_or_else(|| {
            Refusal::not_yet(format!("\"captures\" of the slide's file has no time for run {run}"))
        })?;
        time("captures", text)
    }

    /// How far the incubator's clock was ahead of UTC when the culture began.
    pub(super) fn utc_offset(&self) -> Result<FixedOffset, Refusal> {
        let parsed = self.incubator_utc_offset.as_deref().map(str::parse);
        match parsed {
            Some(Ok(offset)) => Ok(offset),
            _ => Err(Refusal::not_yet(
                "the dish's file has no incubator_utc_offset such as \"+09:00\": the incubator's clock says no time zone",
            )),
        }
    }
}

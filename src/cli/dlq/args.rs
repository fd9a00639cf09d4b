//! How positions, times and conditions are written on the command line.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;

use crate::domain::{RejectionCode, Stage};
use crate::kafka::dead_letters::Filter;
use crate::pipeline::message::Position;

/// Which letters; conditions that are not given do not count.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Refused at this stage: DECODE, VALIDATE, FETCH, PREPROCESS, INFER or PUBLISH.
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Option<Stage>,
    /// Refused for this reason, e.g. image_unreachable.
    #[arg(long, value_name = "CODE", value_parser = code)]
    code: Option<RejectionCode>,
    /// Of this site. Reads each letter's event, without its image.
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    /// Not older than this: a time (RFC 3339) or how long ago (30s, 15m, 2h, 3d). A letter has the time at which its
    /// frame was sent, not that of its refusal.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Time>,
    /// Older than this, written likewise.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Time>,
}

impl FilterArgs {
    /// The filter that is meant at `now`.
    ///
    /// # Errors
    /// When a time lies before any that can be written.
    pub(super) fn filter(&self, now: DateTime<Utc>) -> anyhow::Result<Filter> {
        let at = |time: Option<Time>| time.map(|time| time.at(now)).transpose();
        Ok(Filter {
            stage: self.stage,
            code: self.code,
            site: self.site.clone(),
            since_ms: at(self.since)?,
            until_ms: at(self.until)?,
            positions: BTreeSet::new(),
        })
    }
}

/// A time, or a distance from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    At(DateTime<Utc>),
    Ago(TimeDelta),
}

impl Time {
    /// Milliseconds since 1970.
    fn at(self, now: DateTime<Utc>) -> anyhow::Result<i64> {
        let time = match self {
            Self::At(time) => Some(time),
            Self::Ago(ago) => now.checked_sub_signed(ago),
        };
        let time =
            time.ok_or_else(|| anyhow::anyhow!("so long ago is before any time that can be written"))?;
        Ok(time.timestamp_millis())
    }
}

fn time(text: &str) -> Result<Time, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Time::At(time.with_timezone(&Utc)));
    }
    let wrong =
        || format!("{text:?} is neither a time such as 2026-01-31T08:30:00Z nor a duration such as 2h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: u32 = text.strip_suffix(unit).and_then(|it| it.parse().ok()).ok_or_else(wrong)?;
    let number = i64::from(number);
    let ago = match unit {
        's' => TimeDelta::try_seconds(number),
        'm' => TimeDelta::try_minutes(number),
        'h' => TimeDelta::try_hours(number),
        'd' => TimeDelta::try_days(number),
        _ => None,
    };
    ago.map(Time::Ago).ok_or_else(wrong)
}

/// `PARTITION:OFFSET`.
pub(super) fn position(text: &str) -> Result<Position, String> {
    let parsed = text.split_once(':').and_then(|(partition, offset)| {
        Some(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    });
    parsed
        .filter(|position| position.partition >= 0 && position.offset >= 0)
        .ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, such as 0:17"))
}

fn stage(text: &str) -> Result<Stage, String> {
    let found = Stage::ALL.iter().find(|stage| stage.as_str().eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| unknown(text, Stage::ALL.iter().map(|stage| stage.as_str())))
}

fn code(text: &str) -> Result<RejectionCode, String> {
    let found = RejectionCode::ALL.iter().find(|code| code.as_str() == text);
    found.copied().ok_or_else(|| unknown(text, RejectionCode::ALL.iter().map(|code| code.as_str())))
}

fn unknown(text: &str, known: impl Iterator<Item = &'static str>) -> String {
    format!("{text:?} is none of {}", known.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_so_long_ago() {
        let now: DateTime<Utc> = "2026-01-31T08:30:00Z".parse().unwrap();
        let at = |text| time(text).unwrap().at(now).unwrap();
        let ms = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp_millis();
        assert_eq!(at("2h"), ms("2026-01-31T06:30:00Z"));
        assert_eq!(at("15m"), ms("2026-01-31T08:15:00Z"));
        assert_eq!(at("3d"), ms("2026-01-28T08:30:00Z"));
        assert_eq!(at("0s"), ms("2026-01-31T08:30:00Z"));
        assert_eq!(at("2026-01-01T01:00:00+01:00"), ms("2026-01-01T00:00:00Z"));
        for wrong in
            ["", "h", "2", "-2h", "2w", "2hh", "2 h", "yesterday", "2026-01-31", "2é", "99999999999999999d"]
        {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(time("4000000000d").unwrap().at(now).is_err());
    }

    #[test]
    fn a_position_is_a_partition_and_an_offset() {
        assert_eq!(position("3:17"), Ok(Position { partition: 3, offset: 17 }));
        for wrong in ["", "3", "3:", ":17", "3:x", "-1:2", "3:-2", "3:17:1", "0/17"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stage_or_code_that_does_not_exist_is_answered_with_those_that_do() {
        assert_eq!(
            (stage("fetch"), code("invalid_json")),
            (Ok(Stage::Fetch), Ok(RejectionCode::InvalidJson))
        );
        assert!(stage("FETCHING").unwrap_err().contains("PREPROCESS"));
        assert!(code("json").unwrap_err().contains("invalid_json"));
    }
}

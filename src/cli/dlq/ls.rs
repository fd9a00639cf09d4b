//! `memebg dlq ls`: one pass over the topic, of which the newest lines and the counts are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::FilterArgs;
use super::event::printable;
use crate::domain::{RejectionCode, Stage};
use crate::kafka::KafkaSettings;
use crate::kafka::dead_letters::{DeadLetters, Letter, Record};
use crate::pipeline::message::Position;

/// Longest reason on a line, in characters.
const LINE_CHARS: usize = 80;
/// Longest reason that is kept; those of this service are shorter.
const REASON_CHARS: usize = 1_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// The newest so many letters; the counts are of all.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// One JSON object per letter, one a line, and at last one with the counts.
    #[arg(long)]
    json: bool,
}

/// What is kept of a letter.
#[derive(Debug, Serialize)]
struct Row {
    partition: i32,
    offset: i64,
    time: Option<String>,
    stage: Option<Stage>,
    code: Option<RejectionCode>,
    site: Option<String>,
    original: Option<Original>,
    reason: String,
    /// Of the value that the letter carries.
    value_bytes: usize,
    /// Of the value that was left where it lay.
    omitted_bytes: Option<usize>,
    replayed: bool,
}

#[derive(Debug, Serialize)]
struct Original {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Row {
    fn of(letter: &Letter<'_>) -> Self {
        let message = letter.message;
        let time = message.timestamp_ms.and_then(DateTime::<Utc>::from_timestamp_millis);
        Self {
            partition: message.position.partition,
            offset: message.position.offset,
            time: time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            stage: letter.stage,
            code: letter.code,
            // A site is an id: whatever is longer is not kept.
            site: letter.site().map(|site| printable(&site, LINE_CHARS)),
            original: letter.origin.map(|origin| Original {
                topic: origin.topic.to_owned(),
                partition: origin.position.partition,
                offset: origin.position.offset,
            }),
            reason: letter.reason().chars().take(REASON_CHARS).collect(),
            value_bytes: message.value.map_or(0, <[u8]>::len),
            omitted_bytes: letter.omitted_bytes,
            replayed: false,
        }
    }

    fn line(&self) -> String {
        let original = self.original.as_ref().map_or_else(
            || "-".to_owned(),
            |it| format!("{}/{}/{}", printable(&it.topic, LINE_CHARS), it.partition, it.offset),
        );
        format!(
            "{:<10} {:<24} {:<10} {:<21} {:<12} {original}  {}{}",
            format!("{}:{}", self.partition, self.offset),
            self.time.as_deref().unwrap_or("-"),
            self.stage.map_or("-", Stage::as_str),
            self.code.map_or("-", RejectionCode::as_str),
            self.site.as_deref().unwrap_or("-"),
            if self.replayed { "[replayed] " } else { "" },
            printable(&self.reason, LINE_CHARS),
        )
    }
}

/// The newest letters by time, and how many there are of each kind.
struct Newest {
    limit: usize,
    rows: HashMap<Position, Row>,
    order: BTreeSet<(Option<i64>, Position)>,
    counts: BTreeMap<(Option<Stage>, Option<RejectionCode>), u64>,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self { limit, rows: HashMap::new(), order: BTreeSet::new(), counts: BTreeMap::new() }
    }

    fn add(&mut self, letter: &Letter<'_>) {
        *self.counts.entry((letter.stage, letter.code)).or_default() += 1;
        let place = (letter.message.timestamp_ms, letter.message.position);
        if self.order.len() == self.limit {
            // Its value is not looked at if it would be the first to go.
            if self.order.first().is_some_and(|oldest| place < *oldest) {
                return;
            }
            if let Some((_, oldest)) = self.order.pop_first() {
                self.rows.remove(&oldest);
            }
        }
        self.order.insert(place);
        self.rows.insert(letter.message.position, Row::of(letter));
    }

    /// A marker lies behind its letter, so this comes after [`Newest::add`].
    fn replayed(&mut self, of: Position) {
        if let Some(row) = self.rows.get_mut(&of) {
            row.replayed = true;
        }
    }

    /// From the oldest to the newest, as a log is read.
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.order.iter().filter_map(|(_, position)| self.rows.get(position))
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

pub(super) fn run(
    settings: &KafkaSettings,
    args: &LsArgs,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let filter = args.filter.filter(Utc::now())?;
    let letters = DeadLetters::open(settings)?;
    let mut newest = Newest::new(usize::try_from(args.limit)?);
    letters.scan(&letters.extent(&filter)?, stop, |record| {
        match record {
            Record::Letter(letter) if filter.matches(&letter) => newest.add(&letter),
            Record::Letter(_) => {}
            Record::Marker(of) => newest.replayed(of),
        }
        Ok(())
    })?;
    for row in newest.rows() {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
        } else {
            writeln!(out, "{}", row.line())?;
        }
    }
    if args.json {
        let counts = newest.counts.iter();
        let counts: Vec<_> = counts
            .map(|((stage, code), letters)| json!({ "stage": stage, "code": code, "letters": letters }))
            .collect();
        writeln!(out, "{}", json!({ "summary": { "letters": newest.total(), "counts": counts } }))?;
    } else {
        writeln!(out, "{} letters, {} of them shown", newest.total(), newest.rows.len())?;
        for ((stage, code), letters) in &newest.counts {
            let (stage, code) = (stage.map_or("-", Stage::as_str), code.map_or("-", RejectionCode::as_str));
            writeln!(out, "{letters:>10}  {stage:<10} {code}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::message::MessageView;

    fn add(newest: &mut Newest, offset: i64, timestamp_ms: i64) {
        let message = MessageView {
            topic: "dlq",
            position: Position { partition: 0, offset },
            key: None,
            value: None,
            headers: vec![("__connect.errors.stage", Some(b"FETCH"))],
            timestamp_ms: Some(timestamp_ms),
        };
        match Record::read(&message) {
            Record::Letter(letter) => newest.add(&letter),
            Record::Marker(_) => panic!("a marker"),
        }
    }

    #[test]
    fn the_newest_by_time_are_kept_and_all_are_counted() {
        let mut newest = Newest::new(2);
        for (offset, timestamp_ms) in [(0, 50), (1, 10), (2, 90), (3, 70), (4, 20)] {
            add(&mut newest, offset, timestamp_ms);
        }
        newest.replayed(Position { partition: 0, offset: 3 });
        newest.replayed(Position { partition: 0, offset: 0 });
        let kept: Vec<_> = newest.rows().map(|row| (row.offset, row.replayed)).collect();
        assert_eq!(kept, [(3, true), (2, false)]);
        assert_eq!((newest.total(), newest.rows.len()), (5, 2));
        assert_eq!(newest.counts[&(Some(Stage::Fetch), None)], 5);
    }
}

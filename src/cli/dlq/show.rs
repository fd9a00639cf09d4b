//! `memebg dlq show`: one letter.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::args::position;
use super::event::{masked, printable, printable_bytes};
use crate::kafka::KafkaSettings;
use crate::kafka::dead_letters::{DeadLetters, Record};
use crate::pipeline::message::Position;

/// Longest header name that is shown whole, in characters.
const NAME_CHARS: usize = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// Where the letter lies in the dead-letter topic, as `ls` shows it.
    #[arg(value_name = "PARTITION:OFFSET", value_parser = position)]
    position: Position,
    /// Also write the refused value as it is to this file, which must not exist. It holds the image.
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
}

pub(super) fn run(
    settings: &KafkaSettings,
    args: &ShowArgs,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let letters = DeadLetters::open(settings)?;
    let Position { partition, offset } = args.position;
    let topic = &settings.dead_letters_topic;
    let found = letters.at(args.position, stop)?;
    let raw = found.with_context(|| format!("there is no record at {partition}:{offset} of {topic}"))?;
    let view = raw.view();
    writeln!(out, "letter     {topic}/{partition}/{offset}")?;
    let time = raw.timestamp_ms.and_then(DateTime::<Utc>::from_timestamp_millis);
    let time = time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    writeln!(out, "time       {}", time.as_deref().unwrap_or("-"))?;
    writeln!(out, "key        {}", raw.key.as_deref().map_or_else(|| "-".into(), printable_bytes))?;
    writeln!(out, "headers")?;
    for (name, value) in &raw.headers {
        let value = value.as_deref().map_or_else(|| "-".into(), printable_bytes);
        writeln!(out, "  {}: {value}", printable(name, NAME_CHARS))?;
    }
    let letter = match Record::read(&view) {
        Record::Letter(letter) => letter,
        Record::Marker(of) => {
            writeln!(
                out,
                "This is no letter: it says that {}:{} has been replayed.",
                of.partition, of.offset
            )?;
            anyhow::ensure!(
                args.value.is_none(),
                "{partition}:{offset} of {topic} is no letter and has no value"
            );
            return Ok(());
        }
    };
    let value = if letter.omitted_bytes.is_some() {
        letters.original(&letter, stop)?.map(|original| original.value)
    } else {
        Ok(raw.value.clone())
    };
    match &value {
        Ok(Some(value)) => writeln!(out, "value      {} bytes\n{}", value.len(), masked(value))?,
        Ok(None) => writeln!(out, "value      null")?,
        Err(why) => writeln!(out, "value      {why}")?,
    }
    if let Some(path) = &args.value {
        let value = value.map_err(anyhow::Error::msg)?;
        let value = value.with_context(|| format!("the value at {partition}:{offset} of {topic} is null"))?;
        // Never over another file: a slip of the hand must not cost one.
        let file = std::fs::File::create_new(path);
        file.and_then(|mut file| file.write_all(&value))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        writeln!(out, "{} bytes in {}", value.len(), path.display())?;
    }
    Ok(())
}

//! Summaries, grade events and photographs from Kafka.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Found;
use super::photographs::Photographs;
use crate::config::Config;
use crate::domain::{EmbryoSummary, GradeEvent, Image, ImageLocation};
use crate::kafka::history::History;
use crate::pipeline::decode;
use crate::pipeline::event::{self, Incoming};
use crate::pipeline::fetch::Fetcher;
use crate::pipeline::message::MessageView;
use crate::report::Case;

/// How far the clock that stamps a record may be behind that of an incubator. No frame is sent before it is taken.
const CLOCKS_APART: TimeDelta = TimeDelta::hours(1);

pub(super) fn read(
    config: &Config,
    embryos: &BTreeSet<&str>,
    timeout_seconds: u64,
    stop: &CancellationToken,
) -> anyhow::Result<Found> {
    let history = History::new(&config.kafka, Duration::from_secs(timeout_seconds), stop);
    let mut summaries = summaries(&history, &config.summaries.topic, embryos)?;
    let mut grades = grades(&history, &config.kafka.grades_topic, &summaries)?;
    let (mut cases, mut without) = (Vec::new(), Vec::new());
    for embryo in embryos {
        let case = match summaries.remove(*embryo) {
            None => Err(format!("there is no summary on {}", config.summaries.topic)),
            Some(Err(error)) => Err(error),
            Some(Ok(summary)) => Case::new(summary, grades.remove(*embryo).unwrap_or_default())
                .map_err(|error| format!("its summary cannot be: {error}")),
        };
        match case {
            Ok(case) => cases.push(case),
            Err(why) => without.push(format!("{embryo:?}: {why}")),
        }
    }
    let photographs = photographs(config, &history, &cases)?;
    Ok(Found { cases, photographs, without })
}

fn key<'a>(message: &MessageView<'a>) -> Option<&'a str> {
    message.key.and_then(|key| std::str::from_utf8(key).ok())
}

/// Where an error of serde was: its text repeats values.
fn place(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

type Summaries = BTreeMap<String, Result<EmbryoSummary, String>>;

/// The newest summary of each embryo.
fn summaries(history: &History, topic: &str, embryos: &BTreeSet<&str>) -> anyhow::Result<Summaries> {
    let mut found = Summaries::new();
    history.read(topic, "summaries.topic", None, &|| false, |message| {
        let Some(embryo) = key(message).filter(|key| embryos.contains(key)) else { return };
        let Some(value) = message.value else {
            found.remove(embryo);
            return;
        };
        let read = serde_json::from_slice::<EmbryoSummary>(value)
            .map_err(|error| format!("its summary on {topic} cannot be read: {}", place(&error)))
            .and_then(|summary| {
                let own = summary.embryo_id == embryo;
                own.then_some(summary).ok_or_else(|| format!("its summary on {topic} is of another embryo"))
            });
        // The order of two partitions says nothing, should a topic have got more of them.
        let is_older = match (&read, found.get(embryo)) {
            (Ok(new), Some(Ok(known))) => new.version < known.version,
            _ => false,
        };
        if !is_older {
            found.insert(embryo.to_owned(), read);
        }
    })?;
    Ok(found)
}

/// When the first frame of a summary was taken, as far as a summary says it, milliseconds since 1970.
fn first_frame_ms(summary: &EmbryoSummary) -> i64 {
    let hpi = |centi: u32| f64::from(centi) / 100.0;
    let first = summary.contributions.iter().map(|it| it.centi_hpi).min();
    let hours = first.map_or(0.0, |first| (summary.last_frame.hpi - hpi(first)).clamp(0.0, 1e4));
    #[allow(clippy::cast_possible_truncation, reason = "at most 10,000 hours")]
    let since = TimeDelta::seconds((hours * 3_600.0).ceil() as i64) + CLOCKS_APART;
    summary.last_frame.captured_at.timestamp_millis() - since.num_milliseconds()
}

fn grades(
    history: &History,
    topic: &str,
    summaries: &Summaries,
) -> anyhow::Result<BTreeMap<String, Vec<GradeEvent>>> {
    let sound = || summaries.values().filter_map(|summary| summary.as_ref().ok());
    let mut found: BTreeMap<String, Vec<GradeEvent>> = BTreeMap::new();
    let Some(since) = sound().map(first_frame_ms).min() else { return Ok(found) };
    let wanted: BTreeSet<&str> =
        sound().flat_map(|summary| &summary.contributions).map(|it| it.grade_id.as_str()).collect();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    history.read(topic, "kafka.grades_topic", Some(since), &|| false, |message| {
        let Some(embryo) = key(message).filter(|key| summaries.contains_key(*key)) else { return };
        match serde_json::from_slice::<GradeEvent>(message.value.unwrap_or_default()) {
            Ok(event) if wanted.contains(event.id.as_str()) => {
                if seen.insert(event.id.as_str().to_owned()) {
                    found.entry(embryo.to_owned()).or_default().push(event);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let place = place(&error);
                tracing::warn!(position = ?message.position, place, "a grade event cannot be read and is left out");
            }
        }
    })?;
    Ok(found)
}

fn photographs(config: &Config, history: &History, cases: &[Case]) -> anyhow::Result<Photographs> {
    let mut photographs = Photographs::new(&config.decode, cases);
    if photographs.missing() == 0 {
        return Ok(photographs);
    }
    let embryos: BTreeSet<&str> = cases.iter().map(|case| case.summary().embryo_id.as_str()).collect();
    let since = cases.iter().map(|case| first_frame_ms(case.summary())).min();
    let mut elsewhere: BTreeMap<String, Image> = BTreeMap::new();
    // Most of what follows the last frame is of other embryos and of no use.
    let missing = Cell::new(photographs.missing());
    let topic = &config.kafka.frames_topic;
    history.read(topic, "kafka.frames_topic", since, &|| missing.get() == 0, |message| {
        if !key(message).is_some_and(|key| embryos.contains(key)) {
            return;
        }
        let Some((image, bytes)) = image(config, message, |sha256| photographs.wants(sha256)) else { return };
        match bytes {
            Some(bytes) => photographs.take(&image, bytes),
            None => drop(elsewhere.insert(image.sha256.clone(), image)),
        }
        let to_fetch = elsewhere.keys().filter(|sha256| photographs.wants(sha256)).count();
        missing.set(photographs.missing() - to_fetch);
    })?;
    fetch(config, history, &elsewhere, &mut photographs)?;
    Ok(photographs)
}

/// The image of a frame, if it is wanted, with its bytes where they are inline.
fn image(
    config: &Config,
    message: &MessageView<'_>,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<(Image, Option<Vec<u8>>)> {
    let mut scratch = Vec::new();
    // What cannot be read, the service has made a dead letter of.
    let Incoming { event, image: inline } =
        event::read(message, config.kafka.max_value_bytes, &mut scratch).ok()?;
    if !is_wanted(&event.image.sha256) {
        return None;
    }
    let clocks = event.validate(Utc::now(), i64::from(config.select.clock_tolerance_seconds)).ok()?;
    let image = event.to_frame(clocks).image;
    let bytes = match &image.location {
        ImageLocation::Inline => Some(decode::from_base64(inline?, config.decode.max_image_bytes).ok()?),
        ImageLocation::Uri(_) => None,
    };
    Some((image, bytes))
}

fn fetch(
    config: &Config,
    history: &History,
    elsewhere: &BTreeMap<String, Image>,
    photographs: &mut Photographs,
) -> anyhow::Result<()> {
    let wanted: Vec<&Image> = elsewhere.values().filter(|image| photographs.wants(&image.sha256)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let fetcher = Fetcher::new(&config.fetch, config.decode.max_image_bytes)?;
    for image in wanted {
        let ImageLocation::Uri(uri) = &image.location else { continue };
        if history.is_over() {
            photographs.give_up(&image.sha256, "not fetched in time".to_owned());
            continue;
        }
        match Handle::current().block_on(fetcher.fetch(uri, image.bytes)) {
            Ok(bytes) => photographs.take(image, bytes.into()),
            Err(rejection) => {
                photographs.give_up(&image.sha256, format!("cannot be fetched: {}", rejection.code))
            }
        }
    }
    Ok(())
}

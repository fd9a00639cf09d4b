//! What was published of some embryos: summaries, grade events and photographs, read from Kafka by somebody who asks once.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Utc};
use tokio::runtime::Handle;

use crate::config::Config;
use crate::domain::{EmbryoSummary, GradeEvent, Image, ImageLocation};
use crate::kafka::history::History;
use crate::pipeline::decode;
use crate::pipeline::event::{self, Incoming};
use crate::pipeline::fetch::Fetcher;
use crate::pipeline::message::MessageView;

/// How far the clock that stamps a record may be behind that of an incubator. No frame is sent before it is taken.
const CLOCKS_APART: TimeDelta = TimeDelta::hours(1);

/// Images that somebody looks for, by their digests.
pub(super) trait Wanted {
    /// Whether this image is still looked for.
    fn wants(&self, sha256: &str) -> bool;

    /// How many are still looked for.
    fn missing(&self) -> usize;

    /// Takes in an image. One that is not what its digest says is still looked for.
    fn take(&mut self, image: &Image, bytes: Vec<u8>);

    /// Says why an image cannot be had.
    fn give_up(&mut self, sha256: &str, why: String);
}

fn key<'a>(message: &MessageView<'a>) -> Option<&'a str> {
    message.key.and_then(|key| std::str::from_utf8(key).ok())
}

/// Where an error of serde was: its text repeats values.
fn place(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

/// What `of` makes of the newest summary of each embryo that is asked for, or why there is nothing to make it of.
pub(super) fn summaries<T>(
    history: &History,
    topic: &str,
    is_asked_for: impl Fn(&str) -> bool,
    of: impl Fn(EmbryoSummary) -> T,
) -> anyhow::Result<BTreeMap<String, Result<T, String>>> {
    let mut found: BTreeMap<String, Result<(u64, T), String>> = BTreeMap::new();
    history.read(topic, "summaries.topic", None, &|| false, |message| {
        let Some(embryo) = key(message).filter(|key| is_asked_for(key)) else { return };
        let Some(value) = message.value else {
            found.remove(embryo);
            return;
        };
        let read = serde_json::from_slice::<EmbryoSummary>(value)
            .map_err(|error| format!("its summary on {topic} cannot be read: {}", place(&error)))
            .and_then(|summary| {
                let own = summary.embryo_id == embryo;
                own.then_some(summary).ok_or_else(|| format!("its summary on {topic} is of another embryo"))
            })
            .map(|summary| (summary.version, of(summary)));
        // The order of two partitions says nothing, should a topic have got more of them.
        let is_older = match (&read, found.get(embryo)) {
            (Ok((new, _)), Some(Ok((known, _)))) => new < known,
            _ => false,
        };
        if !is_older {
            found.insert(embryo.to_owned(), read);
        }
    })?;
    Ok(found.into_iter().map(|(embryo, read)| (embryo, read.map(|(_, made)| made))).collect())
}

/// When the first frame of a summary was taken, as far as a summary says it, milliseconds since 1970.
pub(super) fn first_frame_ms(summary: &EmbryoSummary) -> i64 {
    let hpi = |centi: u32| f64::from(centi) / 100.0;
    let first = summary.contributions.iter().map(|it| it.centi_hpi).min();
    let hours = first.map_or(0.0, |first| (summary.last_frame.hpi - hpi(first)).clamp(0.0, 1e4));
    #[allow(clippy::cast_possible_truncation, reason = "at most 10,000 hours")]
    let since = TimeDelta::seconds((hours * 3_600.0).ceil() as i64) + CLOCKS_APART;
    summary.last_frame.captured_at.timestamp_millis() - since.num_milliseconds()
}

/// Shows every grade event with one of the `wanted` ids to `each`, from `since_ms` on, until all were seen. Events that are
/// not what their id says are left out.
pub(super) fn grades(
    history: &History,
    topic: &str,
    since_ms: Option<i64>,
    mut wanted: BTreeSet<String>,
    mut each: impl FnMut(GradeEvent),
) -> anyhow::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let missing = Cell::new(wanted.len());
    history.read(topic, "kafka.grades_topic", since_ms, &|| missing.get() == 0, |message| {
        let event: GradeEvent = match serde_json::from_slice(message.value.unwrap_or_default()) {
            Ok(event) => event,
            Err(error) => {
                let place = place(&error);
                tracing::warn!(position = ?message.position, place, "a grade event cannot be read and is left out");
                return;
            }
        };
        if key(message) == Some(&event.embryo_id)
            && event.id == event.derived_id()
            && wanted.remove(event.id.as_str())
        {
            missing.set(wanted.len());
            each(event);
        }
    })
}

/// Finds the images of the frames of these embryos, from `since_ms` on.
pub(super) fn images(
    config: &Config,
    history: &History,
    (embryos, since_ms): (&BTreeSet<&str>, Option<i64>),
    wanted: &mut dyn Wanted,
) -> anyhow::Result<()> {
    if wanted.missing() == 0 {
        return Ok(());
    }
    let mut elsewhere: BTreeMap<String, Image> = BTreeMap::new();
    // Most of what follows the last frame is of other embryos and of no use.
    let missing = Cell::new(wanted.missing());
    let topic = &config.kafka.frames_topic;
    history.read(topic, "kafka.frames_topic", since_ms, &|| missing.get() == 0, |message| {
        if !key(message).is_some_and(|key| embryos.contains(key)) {
            return;
        }
        let Some((image, bytes)) = image(config, message, |sha256| wanted.wants(sha256)) else { return };
        match bytes {
            Some(bytes) => wanted.take(&image, bytes),
            None => drop(elsewhere.insert(image.sha256.clone(), image)),
        }
        let to_fetch = elsewhere.keys().filter(|sha256| wanted.wants(sha256)).count();
        missing.set(wanted.missing() - to_fetch);
    })?;
    fetch(config, history, &elsewhere, wanted)
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
    wanted: &mut dyn Wanted,
) -> anyhow::Result<()> {
    let to_fetch: Vec<&Image> = elsewhere.values().filter(|image| wanted.wants(&image.sha256)).collect();
    if to_fetch.is_empty() {
        return Ok(());
    }
    let fetcher = Fetcher::new(&config.fetch, config.decode.max_image_bytes)?;
    for image in to_fetch {
        let ImageLocation::Uri(uri) = &image.location else { continue };
        if history.is_over() {
            wanted.give_up(&image.sha256, "not fetched in time".to_owned());
            continue;
        }
        match Handle::current().block_on(fetcher.fetch(uri, image.bytes)) {
            Ok(bytes) => wanted.take(image, bytes.into()),
            Err(rejection) => wanted.give_up(&image.sha256, format!("cannot be fetched: {}", rejection.code)),
        }
    }
    Ok(())
}

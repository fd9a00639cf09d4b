//! Cases and their photographs from Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Found;
use super::photographs::Photographs;
use crate::cli::published::{first_frame_ms, grades, images, summaries};
use crate::config::Config;
use crate::domain::{EmbryoSummary, GradeEvent};
use crate::kafka::history::History;
use crate::report::Case;

pub(super) fn read(
    config: &Config,
    embryos: &BTreeSet<&str>,
    timeout_seconds: u64,
    stop: &CancellationToken,
) -> anyhow::Result<Found> {
    let history = History::new(&config.kafka, Duration::from_secs(timeout_seconds), stop);
    let topic = &config.summaries.topic;
    let mut summaries = summaries(&history, topic, |embryo| embryos.contains(embryo), |summary| summary)?;
    let sound = || summaries.values().filter_map(|summary| summary.as_ref().ok());
    let since = sound().map(first_frame_ms).min();
    let of = |summary: &EmbryoSummary| -> Vec<String> {
        summary.contributions.iter().map(|it| it.grade_id.clone()).collect()
    };
    let wanted = sound().flat_map(of).collect();
    let mut events: BTreeMap<String, Vec<GradeEvent>> = BTreeMap::new();
    grades(&history, &config.kafka.grades_topic, since, wanted, |event| {
        events.entry(event.embryo_id.clone()).or_default().push(event);
    })?;
    let (mut cases, mut without) = (Vec::new(), Vec::new());
    for embryo in embryos {
        let case = match summaries.remove(*embryo) {
            None => Err(format!("there is no summary on {topic}")),
            Some(Err(error)) => Err(error),
            Some(Ok(summary)) => Case::new(summary, events.remove(*embryo).unwrap_or_default())
                .map_err(|error| format!("its summary cannot be: {error}")),
        };
        match case {
            Ok(case) => cases.push(case),
            Err(why) => without.push(format!("{embryo:?}: {why}")),
        }
    }
    let mut photographs = Photographs::new(&config.decode, &cases);
    let shown = cases.iter().map(|case| case.summary().embryo_id.as_str()).collect();
    images(config, &history, (&shown, since), &mut photographs)?;
    Ok(Found { cases, photographs, without })
}

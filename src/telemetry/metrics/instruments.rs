//! Incubators by make and model, as a label: bounded, whatever the events say.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus::{Error, IntCounter, IntCounterVec};

use super::Metrics;
use super::declare::Declare;

/// Makes and models that get a label of their own, in the order in which they are seen; any further one is
/// [`OTHER`]. A clinic network has a handful.
const MAX_INSTRUMENT_MODELS: usize = 16;
/// Longest label, in characters.
const MAX_LABEL_CHARS: usize = 64;
/// Label of an incubator beyond the bound.
const OTHER: &str = "other";

/// Frames by make and model of the incubator.
pub(super) struct Instruments {
    frames: IntCounterVec,
    seen: RwLock<Vec<Seen>>,
}

struct Seen {
    vendor: String,
    model: String,
    label: Arc<str>,
    frames: IntCounter,
}

impl Instruments {
    pub(super) fn new(declare: &Declare) -> Result<Self, Error> {
        let frames = declare.counters(
            "instrument_frames_total",
            "Frames by make and model of the incubator, without those that were refused unread; the first 16 that are seen, the others together.",
            ["instrument_model"],
            &[],
        )?;
        Ok(Self { frames, seen: RwLock::default() })
    }

    fn find<T>(&self, vendor: &str, model: &str, take: impl Fn(&Seen) -> T) -> Option<T> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.iter().find(|one| one.model == model && one.vendor == vendor).map(take)
    }

    /// Gives one that is new its label, as long as there is room.
    fn learn(&self, vendor: &str, model: &str) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let known = seen.iter().any(|one| one.model == model && one.vendor == vendor);
        if known || seen.len() >= MAX_INSTRUMENT_MODELS {
            return;
        }
        let label: String = format!("{vendor} {model}")
            .chars()
            .filter(|character| !character.is_control())
            .take(MAX_LABEL_CHARS)
            .collect();
        let (vendor, model) = (vendor.to_owned(), model.to_owned());
        let frames = self.frames.with_label_values(&[&label]);
        seen.push(Seen { vendor, model, label: label.into(), frames });
    }
}

impl Metrics {
    /// A frame of this make and model of incubator was received.
    pub fn instrument_frame(&self, vendor: &str, model: &str) {
        let instruments = &self.0.instruments;
        let count = |one: &Seen| one.frames.inc();
        if instruments.find(vendor, model, count).is_none() {
            instruments.learn(vendor, model);
            if instruments.find(vendor, model, count).is_none() {
                instruments.frames.with_label_values(&[OTHER]).inc();
            }
        }
    }

    /// What this make and model of incubator is called in labels.
    #[must_use]
    pub fn instrument_label(&self, vendor: &str, model: &str) -> Arc<str> {
        let label = self.0.instruments.find(vendor, model, |one| Arc::clone(&one.label));
        label.unwrap_or_else(|| OTHER.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_labels_is_bounded_whatever_the_events_say() {
        let metrics = Metrics::new(&[]).unwrap();
        for number in 0..1_000 {
            metrics.instrument_frame("invented", &format!("model {number}"));
        }
        let text = metrics.encode().unwrap();
        assert_eq!(text.matches("memebg_instrument_frames_total{").count(), MAX_INSTRUMENT_MODELS + 1);
        assert!(text.contains("memebg_instrument_frames_total{instrument_model=\"other\"} 984\n"), "{text}");
        assert_eq!(&*metrics.instrument_label("invented", "model 3"), "invented model 3");
        assert_eq!(&*metrics.instrument_label("invented", "model 999"), OTHER);
    }

    #[test]
    fn a_label_is_short_and_printable() {
        let metrics = Metrics::new(&[]).unwrap();
        metrics.instrument_frame("a\nb", &"x".repeat(5_000));
        let label = metrics.instrument_label("a\nb", &"x".repeat(5_000));
        assert_eq!((label.chars().count(), label.contains('\n')), (MAX_LABEL_CHARS, false));
    }
}

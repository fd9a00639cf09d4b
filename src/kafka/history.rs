//! What lies on a topic now, for somebody who asks once: read without joining a group, and not for longer than they
//! are willing to wait.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::KafkaSettings;
use super::reader::{Reader, Stopped};
use crate::pipeline::message::MessageView;

/// Reads topics up to their end of now, all of them within one time.
pub struct History {
    settings: KafkaSettings,
    wait: Duration,
    until: Instant,
    stop: CancellationToken,
}

impl History {
    /// The time starts to run.
    #[must_use]
    pub fn new(settings: &KafkaSettings, wait: Duration, stop: &CancellationToken) -> Self {
        Self { settings: settings.clone(), wait, until: Instant::now() + wait, stop: stop.clone() }
    }

    /// Whether the time is over, or somebody asked to stop.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.until
    }

    /// Shows every committed record of a topic, which `option` names, to `each`, in the order of each partition; from the
    /// first one of `since_ms` on, if given, and for as long as not `is_done`. Blocks.
    ///
    /// # Errors
    /// When the topic cannot be read, the time is over before its end is reached, or somebody asks to stop.
    pub fn read(
        &self,
        topic: &str,
        option: &'static str,
        since_ms: Option<i64>,
        is_done: &dyn Fn() -> bool,
        mut each: impl FnMut(&MessageView<'_>),
    ) -> anyhow::Result<()> {
        let reader = Reader::open(&self.settings, topic, option)?;
        let extent = match since_ms {
            Some(since_ms) => reader.extent_since(since_ms)?,
            None => reader.extent()?,
        };
        let go_on = || !self.is_over() && !is_done();
        let read = reader.scan_while(&extent, &go_on, |message| {
            each(message);
            Ok(())
        });
        match read {
            Err(error) if error.is::<Stopped>() && is_done() => Ok(()),
            Err(error) if error.is::<Stopped>() && !self.stop.is_cancelled() => anyhow::bail!(
                "topic {topic} was not read to its end within {} s: allow more time",
                self.wait.as_secs()
            ),
            read => read,
        }
    }
}

//! Whether the service lives and is ready, derived from what it last did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The facts behind the probes. Cheap to clone: all clones share the same facts.
#[derive(Debug, Clone)]
pub struct Health {
    poll_timeout: Duration,
    inference_timeout: Duration,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Debug, Default)]
struct Facts {
    last_poll: Option<Instant>,
    warm: bool,
    inference_failed: bool,
    /// Inferences under way, by their number, since when.
    running: BTreeMap<u64, Instant>,
    inferences: u64,
    connected: bool,
    /// Why no broker can be reached.
    unreachable: Option<String>,
    /// What a broker that answers does not allow.
    refused: Option<String>,
    /// Why what was read cannot be passed on yet.
    waits: Option<String>,
    draining: bool,
    fatal: Option<String>,
}

impl Health {
    /// A service that has done nothing yet. After its first poll it has to poll at least once per
    /// `poll_timeout`, and no inference may take longer than `inference_timeout`.
    #[must_use]
    pub fn new(poll_timeout: Duration, inference_timeout: Duration) -> Self {
        Self { poll_timeout, inference_timeout, facts: Arc::default() }
    }

    /// The consumer has polled the broker.
    pub fn polled(&self) {
        self.facts().last_poll = Some(Instant::now());
    }

    /// Every grader has run every batch size once. It stays so.
    pub fn warmed_up(&self) {
        self.facts().warm = true;
    }

    /// A grader begins a batch.
    #[must_use = "it lasts until it is told how it ended, or dropped"]
    pub fn inference_started(&self) -> Inference {
        let mut facts = self.facts();
        facts.inferences += 1;
        let number = facts.inferences;
        facts.running.insert(number, Instant::now());
        drop(facts);
        Inference { health: self.clone(), number }
    }

    /// Whether at least one broker answers.
    pub fn connected(&self, connected: bool) {
        let mut facts = self.facts();
        facts.connected = connected;
        if connected {
            facts.unreachable = None;
        }
    }

    /// Whether at least one broker answered when it was last looked at.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.facts().connected
    }

    /// Why a broker cannot be reached. Said for as long as none answers.
    pub fn unreachable(&self, cause: impl Into<String>) {
        self.facts().unreachable = Some(cause.into());
    }

    /// What the brokers answer and do not allow, so that no frame comes.
    pub fn refused(&self, cause: impl Into<String>) {
        self.facts().refused = Some(cause.into());
    }

    /// Frames may be read.
    pub fn admitted(&self) {
        self.facts().refused = None;
    }

    /// What was read cannot be passed on, and is tried again.
    pub fn waits(&self, cause: impl Into<String>) {
        self.facts().waits = Some(cause.into());
    }

    /// Something was passed on.
    pub fn goes_on(&self) {
        self.facts().waits = None;
    }

    /// The service is stopping. It stays so.
    pub fn draining(&self) {
        self.facts().draining = true;
    }

    /// The service cannot go on. The first cause is kept; no later fact undoes it.
    pub fn fatal(&self, cause: impl Into<String>) {
        self.facts().fatal.get_or_insert_with(|| cause.into());
    }

    /// Whether a restart would not help. Starting up counts as alive: how long that may take is for
    /// a startup probe on readiness to say, since loading a model takes as long as it takes.
    ///
    /// # Errors
    /// Why it is not alive, in one line.
    pub fn live(&self) -> Result<(), String> {
        self.live_at(Instant::now())
    }

    /// Whether frames are being graded: alive, warmed up, polling a broker that answers and refuses
    /// nothing, not draining, and the last inference did not fail.
    ///
    /// # Errors
    /// Why it is not ready, in one line.
    pub fn ready(&self) -> Result<(), String> {
        self.ready_at(Instant::now())
    }

    fn live_at(&self, now: Instant) -> Result<(), String> {
        let facts = self.facts();
        if let Some(cause) = &facts.fatal {
            return Err(one_line(cause));
        }
        let longest = facts
            .running
            .values()
            .min()
            .map_or(Duration::ZERO, |began| now.saturating_duration_since(*began));
        if longest > self.inference_timeout {
            return Err(format!("an inference has been running for {:.0} s", longest.as_secs_f64()));
        }
        let silent = facts.last_poll.map_or(Duration::ZERO, |poll| now.saturating_duration_since(poll));
        if silent > self.poll_timeout {
            return Err(format!(
                "the consumer last polled {:.1} s ago, more than {:.1} s",
                silent.as_secs_f64(),
                self.poll_timeout.as_secs_f64()
            ));
        }
        Ok(())
    }

    fn ready_at(&self, now: Instant) -> Result<(), String> {
        self.live_at(now)?;
        let facts = self.facts();
        let reason = if !facts.warm {
            "the graders are not warmed up"
        } else if facts.last_poll.is_none() {
            "the consumer has not polled"
        } else if facts.draining {
            "draining"
        } else if !facts.connected {
            facts.unreachable.as_deref().unwrap_or("no broker answers")
        } else if let Some(refused) = &facts.refused {
            refused
        } else if let Some(waits) = &facts.waits {
            waits
        } else if facts.inference_failed {
            "the last inference failed"
        } else {
            return Ok(());
        };
        Err(one_line(reason))
    }

    /// A thread that panicked while it wrote one fact leaves the others as true as before.
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch in the models.
#[derive(Debug)]
pub struct Inference {
    health: Health,
    number: u64,
}

impl Inference {
    /// The batch has an answer, or not.
    pub fn finished(self, worked: bool) {
        self.health.facts().inference_failed = !worked;
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        self.health.facts().running.remove(&self.number);
    }
}

/// The probes answer with one line, whatever an error text brings along.
fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn running() -> Health {
        let health = Health::new(TIMEOUT, TIMEOUT);
        health.warmed_up();
        health.polled();
        health.connected(true);
        health
    }

    #[test]
    fn a_starting_service_is_alive_and_not_ready_until_warm_and_polled() {
        let health = Health::new(TIMEOUT, TIMEOUT);
        assert_eq!(health.live(), Ok(()));
        assert_eq!(health.ready(), Err("the graders are not warmed up".to_owned()));
        health.warmed_up();
        assert_eq!(health.ready(), Err("the consumer has not polled".to_owned()));
        health.polled();
        assert_eq!(health.ready(), Err("no broker answers".to_owned()));
        health.connected(true);
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_consumer_that_stops_polling_is_neither_alive_nor_ready() {
        let health = running();
        let later = Instant::now() + TIMEOUT + Duration::from_secs(1);
        assert!(health.live_at(later).unwrap_err().contains("last polled 31.0 s ago"));
        assert!(health.ready_at(later).is_err());
        assert_eq!(health.live_at(Instant::now() + TIMEOUT - Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn readiness_follows_the_last_inference_and_the_broker_and_ends_with_draining() {
        let health = running();
        health.inference_started().finished(false);
        assert_eq!(health.ready(), Err("the last inference failed".to_owned()));
        assert_eq!(health.live(), Ok(()));
        health.inference_started().finished(true);
        health.connected(false);
        assert_eq!(health.ready(), Err("no broker answers".to_owned()));
        health.connected(true);
        assert_eq!(health.ready(), Ok(()));
        health.draining();
        assert_eq!(health.ready(), Err("draining".to_owned()));
    }

    #[test]
    fn readiness_names_why_no_broker_answers_or_what_one_refuses() {
        let health = running();
        health.refused("not allowed to read");
        assert_eq!(health.ready(), Err("not allowed to read".to_owned()));
        health.unreachable("wrong password");
        assert_eq!(health.ready(), Err("not allowed to read".to_owned()), "another broker answers");
        health.connected(false);
        assert_eq!(health.ready(), Err("wrong password".to_owned()));
        health.connected(true);
        health.admitted();
        assert_eq!(health.ready(), Ok(()));
        health.connected(false);
        assert_eq!(health.ready(), Err("no broker answers".to_owned()), "the old cause no longer holds");
        assert_eq!(health.live(), Ok(()));
    }

    #[test]
    fn readiness_says_what_is_waited_for_and_a_wait_is_no_reason_to_restart() {
        let health = running();
        health.waits("the FHIR server says 503");
        assert_eq!(health.ready(), Err("the FHIR server says 503".to_owned()));
        assert_eq!(health.live(), Ok(()));
        health.goes_on();
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_device_that_hangs_is_not_alive() {
        let health = running();
        let hanging = health.inference_started();
        health.inference_started().finished(true);
        let later = Instant::now() + TIMEOUT + Duration::from_secs(1);
        assert!(health.live_at(later).unwrap_err().starts_with("an inference has been running for 31"));
        drop(hanging);
        assert!(!health.live_at(later).unwrap_err().contains("inference"));
    }

    #[test]
    fn the_first_fatal_cause_is_kept_and_answered_in_one_line() {
        let health = running();
        health.fatal("a receipt was lost\nsecond line");
        health.fatal("and then the rest");
        health.polled();
        assert_eq!(health.live(), Err("a receipt was lost".to_owned()));
        assert_eq!(health.ready(), Err("a receipt was lost".to_owned()));
    }
}

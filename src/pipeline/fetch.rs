//! The bytes of an image that lies elsewhere: a mounted directory, an object store or a web server.
//!
//! A URI in an event is a request to read something on behalf of whoever may write to the topic, so
//! nothing outside the configured places is ever touched.

mod clock;
mod place;
mod web;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use place::{Readable, Unreadable, probe};

use crate::domain::{Rejection, RejectionCode};
use clock::ServerClock;
use place::{Address, Place};

/// Where images may lie, and how long to try to get one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchSettings {
    /// Places from which images may be read: `file:///frames`, `s3://bucket/frames`, `gs://...`,
    /// `az://...`, `https://host/frames`. A place covers what lies below it, by whole path segments.
    /// Plain `http://` works where it is listed. Credentials come from the stores' usual environment
    /// variables, never from the URI.
    pub allowed_uri_prefixes: Vec<String>,
    /// Images fetched at a time. Each takes up to `decode.max_image_bytes` until it is decoded.
    pub max_concurrent: usize,
    /// How often to try, the first time included. An image may arrive after its event.
    pub attempts: u32,
    /// Wait before the second attempt, milliseconds; doubles with each further one.
    pub backoff_ms: u64,
    /// Longest time for one attempt, milliseconds.
    pub timeout_ms: u64,
}

/// The settings do not describe places that can be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchSetupError {
    /// A number that leaves no attempt, or one that never ends.
    #[error("fetch.{0} is {1}; it must be within 1 and {2}")]
    Range(&'static str, u64, u64),
    /// An entry of the allow-list is not a usable URL.
    #[error("allowed_uri_prefixes: entry {index} {reason}")]
    Prefix {
        /// Position in the list, from 0. The entry itself may hold a secret and is not repeated.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Fetches images from the allowed places. Cheap to share: `&self` everywhere.
#[derive(Debug)]
pub struct Fetcher {
    places: Vec<Place>,
    max_image_bytes: u64,
    attempts: u32,
    backoff: Duration,
    timeout: Duration,
}

/// Why one attempt failed.
enum Failure {
    /// It may work next time.
    Temporary(Rejection),
    /// It will not.
    Permanent(Rejection),
}

impl FetchSettings {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// [`FetchSetupError::Range`] naming the option, its value and its limits.
    pub fn validate(&self) -> Result<(), FetchSetupError> {
        for (option, value, most) in [
            ("attempts", u64::from(self.attempts), 20),
            ("backoff_ms", self.backoff_ms, 60_000),
            ("timeout_ms", self.timeout_ms, 600_000),
            ("max_concurrent", self.max_concurrent as u64, 1_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(FetchSetupError::Range(option, value, most));
            }
        }
        Ok(())
    }
}

impl Fetcher {
    /// Opens every place once; the connections are shared by all fetches.
    ///
    /// # Errors
    /// When a prefix is no URL of a known scheme, names a directory that is not there, or lacks what
    /// its store needs; when a number is out of range.
    pub fn new(settings: &FetchSettings, max_image_bytes: u64) -> Result<Self, FetchSetupError> {
        settings.validate()?;
        let unwatched = ServerClock::default();
        let open = |(index, prefix): (usize, &String)| {
            Place::open(prefix, web::system, &unwatched)
                .map_err(|reason| FetchSetupError::Prefix { index, reason })
        };
        Ok(Self {
            places: settings.allowed_uri_prefixes.iter().enumerate().map(open).collect::<Result<_, _>>()?,
            max_image_bytes,
            attempts: settings.attempts,
            backoff: Duration::from_millis(settings.backoff_ms),
            timeout: Duration::from_millis(settings.timeout_ms),
        })
    }

    /// The image at `uri`, which has exactly `expected_bytes` bytes; never holds more than those.
    ///
    /// Takes at most `attempts` times the timeout plus the waits between.
    ///
    /// # Errors
    /// At once: `image_uri_not_allowed`, `image_too_large`, and `image_unreachable` when access is
    /// refused. After all attempts: `image_not_found`, `image_unreachable`, and `image_digest_mismatch`
    /// when the length stays another one (a file still being written has the wrong length for a while).
    pub async fn fetch(&self, uri: &str, expected_bytes: u64) -> Result<Bytes, Rejection> {
        self.within_limit(expected_bytes)?;
        let address = Address::parse(uri).map_err(|reason| not_allowed(&reason))?;
        let place = self.places.iter().find(|place| place.covers(&address));
        let place = place.ok_or_else(|| not_allowed("lies outside allowed_uri_prefixes"))?;
        let mut wait = self.backoff;
        let mut attempt = 1;
        loop {
            let outcome =
                tokio::time::timeout(self.timeout, self.attempt(place, &address, expected_bytes)).await;
            let rejection = match outcome {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(Failure::Permanent(rejection))) => return Err(rejection),
                Ok(Err(Failure::Temporary(rejection))) => rejection,
                Err(_) => unreachable(&format!("no answer within {} ms", self.timeout.as_millis())),
            };
            if attempt >= self.attempts {
                let message = format!("{} ({attempt} attempts)", rejection.message);
                return Err(Rejection { message, ..rejection });
            }
            tracing::debug!(attempt, code = %rejection.code, "image not there, trying again");
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
            attempt += 1;
        }
    }

    async fn attempt(&self, place: &Place, address: &Address, expected_bytes: u64) -> Result<Bytes, Failure> {
        let image = place.open_image(address).await?;
        self.within_limit(image.size_bytes()).map_err(Failure::Permanent)?;
        if image.size_bytes() != expected_bytes {
            return Err(wrong_length(image.size_bytes(), expected_bytes));
        }
        image.read(expected_bytes).await
    }

    fn within_limit(&self, bytes: u64) -> Result<(), Rejection> {
        if bytes <= self.max_image_bytes {
            return Ok(());
        }
        let message = format!("image of {bytes} bytes exceeds max_image_bytes {}", self.max_image_bytes);
        Err(Rejection::new(RejectionCode::ImageTooLarge, message))
    }
}

// None of the messages repeats the URI: it is in the dead letter already, and a folder may be named
// after what must not be logged.

fn not_allowed(reason: &str) -> Rejection {
    Rejection::new(RejectionCode::ImageUriNotAllowed, format!("image.uri {reason}"))
}

fn unreachable(reason: &str) -> Rejection {
    Rejection::new(RejectionCode::ImageUnreachable, format!("image cannot be read: {reason}"))
}

fn wrong_length(bytes: u64, expected_bytes: u64) -> Failure {
    let message = format!("image has {bytes} bytes or more, the event says {expected_bytes}");
    Failure::Temporary(Rejection::new(RejectionCode::ImageDigestMismatch, message))
}

#[cfg(test)]
mod tests;

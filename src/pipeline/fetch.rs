//! The bytes of an image that lies elsewhere: a mounted directory, an object store or a web server.
//!
//! A URI in an event is a request to read something on behalf of whoever may write to the topic, so
//! nothing outside the configured places is ever touched.

mod place;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Rejection, RejectionCode, Stage};
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
    /// Most bytes an encoded image may have.
    pub max_image_bytes: u64,
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
    /// A number that leaves no attempt.
    #[error("{0} is 0; it must be at least 1")]
    Zero(&'static str),
    /// An entry of the allow-list is not a usable URL.
    #[error("allowed_uri_prefixes: entry {index} {reason}")]
    Prefix {
        /// Position in the list, from 0. The entry itself may hold a secret and is not repeated.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

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

impl Fetcher {
    /// Opens every place once; the connections are shared by all fetches.
    ///
    /// # Errors
    /// When a prefix is no URL of a known scheme, names a directory that is not there, or lacks what
    /// its store needs; when `attempts` or `timeout_ms` is 0.
    pub fn new(settings: &FetchSettings) -> Result<Self, FetchSetupError> {
        if settings.attempts == 0 {
            return Err(FetchSetupError::Zero("attempts"));
        }
        if settings.timeout_ms == 0 {
            return Err(FetchSetupError::Zero("timeout_ms"));
        }
        let open = |(index, prefix): (usize, &String)| {
            Place::open(prefix).map_err(|reason| FetchSetupError::Prefix { index, reason })
        };
        Ok(Self {
            places: settings.allowed_uri_prefixes.iter().enumerate().map(open).collect::<Result<_, _>>()?,
            max_image_bytes: settings.max_image_bytes,
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
            wait = wait.saturating_mul(2);
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
        Err(Rejection::new(Stage::Fetch, RejectionCode::ImageTooLarge, message))
    }
}

// None of the messages repeats the URI: it is in the dead letter already, and a folder may be named
// after what must not be logged.

fn not_allowed(reason: &str) -> Rejection {
    Rejection::new(Stage::Fetch, RejectionCode::ImageUriNotAllowed, format!("image.uri {reason}"))
}

fn unreachable(reason: &str) -> Rejection {
    Rejection::new(Stage::Fetch, RejectionCode::ImageUnreachable, format!("image cannot be read: {reason}"))
}

fn wrong_length(bytes: u64, expected_bytes: u64) -> Failure {
    let message = format!("image has {bytes} bytes or more, the event says {expected_bytes}");
    Failure::Temporary(Rejection::new(Stage::Fetch, RejectionCode::ImageDigestMismatch, message))
}

#[cfg(test)]
mod tests;

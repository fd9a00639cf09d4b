//! Whether a place can be read from, for `memebg doctor`: asks for an image that cannot be there.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::StreamExt as _;
use object_store::{Error, ObjectStoreExt as _};

use super::{Address, Inward, ObjectStoreScheme, Place, Redirected, cause, chain};
use crate::pipeline::fetch::clock::ServerClock;
use crate::pipeline::fetch::web;

/// A place that can be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    /// How that showed.
    pub how: &'static str,
    /// How far its clock is ahead of ours, to the second; `None` for a directory and a silent server.
    pub clock_ahead: Option<TimeDelta>,
}

/// Why a place cannot be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// The entry of the allow-list cannot be used.
    Setup(String),
    /// The store answers and does not let us read.
    Refused(String),
    /// The store does not answer, or answers that it cannot.
    Unreachable(String),
}

/// Looks whether images below `prefix`, an entry of the allow-list, can be read. Reads none.
///
/// # Errors
/// [`Unreadable`] saying why, without repeating the prefix.
pub async fn probe(prefix: &str, timeout: Duration) -> Result<Readable, Unreadable> {
    let clock = ServerClock::watched();
    let (own_prefix, own_clock) = (prefix.to_owned(), clock.clone());
    let looked = async move {
        // A file system that hangs blocks a thread, not the look at the other places.
        let open = move || {
            let place = Place::open(&own_prefix, web::system, &own_clock)?;
            let absent = format!("memebg-doctor-{:016x}", RandomState::new().build_hasher().finish());
            let uri = format!("{}/{absent}", place.prefix.url.as_str().trim_end_matches('/'));
            Address::parse(&uri).map(|address| (place, address))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (place, absent) = opened
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|reason| Unreadable::Setup(format!("the entry {reason}")))?;
        place.look(absent).await
    };
    let timed_out = |_| Err(Unreadable::Unreachable(format!("no answer within {} s", timeout.as_secs())));
    let how = tokio::time::timeout(timeout, looked).await.unwrap_or_else(timed_out)?;
    Ok(Readable { how, clock_ahead: clock.ahead() })
}

impl Place {
    async fn look(&self, absent: Address) -> Result<&'static str, Unreadable> {
        if let Some(directory) = self.directory.clone() {
            let name = absent.path.filename().unwrap_or_default().to_owned();
            let opened = tokio::task::spawn_blocking(move || std::fs::File::open(directory.join(name))).await;
            return match opened.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok("a directory that can be read")
                }
                Err(error) => Err(Unreadable::Refused(format!("the directory cannot be read: {error}"))),
                Ok(_) => Err(answers_to_everything()),
            };
        }
        // Web servers know no lists. A list is the better question: a bucket that does not exist answers like
        // an image that does not.
        if self.prefix.scheme != ObjectStoreScheme::Http {
            match self.store.list(Some(&self.prefix.location)).next().await {
                None | Some(Ok(_)) => return Ok("can be listed and read"),
                Some(Err(Error::NotFound { .. })) => {
                    return Err(Unreadable::Refused("there is no such bucket or container".to_owned()));
                }
                Some(Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {}
                Some(Err(error)) => return Err(unreadable(&error)),
            }
        }
        match self.store.get(&absent.location).await {
            Err(Error::NotFound { .. }) => Ok("answers that an image which cannot be there is not there"),
            Err(error) => Err(unreadable(&error)),
            Ok(_) => Err(answers_to_everything()),
        }
    }
}

fn answers_to_everything() -> Unreadable {
    Unreadable::Refused(
        "something is handed over for an image that cannot be there: is a log-in page or a proxy in between?"
            .to_owned(),
    )
}

fn unreadable(error: &Error) -> Unreadable {
    match error {
        Error::Unauthenticated { .. } => Unreadable::Refused("access is refused (401)".to_owned()),
        Error::PermissionDenied { .. } => Unreadable::Refused("access is refused (403)".to_owned()),
        other if chain(other).any(|cause| cause.is::<Redirected>()) => {
            Unreadable::Refused("the server redirects elsewhere, which is not followed".to_owned())
        }
        other if chain(other).any(|cause| cause.is::<Inward>()) => Unreadable::Refused(
            "the host resolves to loopback or link-local addresses only; if that is meant, list the address or \
             localhost"
                .to_owned(),
        ),
        other => Unreadable::Unreachable(cause(other)),
    }
}

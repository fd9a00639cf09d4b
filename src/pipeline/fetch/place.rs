//! One entry of the allow-list: what it covers, and how to read from it.

mod probe;

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, RetryConfig,
};
use tokio::sync::Semaphore;
use url::{Position, Url};

pub use probe::{Readable, Unreadable, probe};

use super::clock::ServerClock;
use super::web::{Connector, Inward, Lookup, Redirected};
use super::{Failure, not_allowed, unreachable, wrong_length};
use crate::domain::{Rejection, RejectionCode};

/// Look-ups at a time in one `file:` place.
const LOOKUPS: usize = 16;
/// Longest piece of a foreign error text that is passed on, characters.
const MAX_CAUSE_CHARS: usize = 120;

/// A URI after normalisation. What is compared with the allow-list is what is read, so there is no
/// second interpretation to slip through.
#[derive(Debug)]
pub(super) struct Address {
    url: Url,
    /// The whole path, decoded.
    path: Path,
    /// The path within the store: without the bucket where the URL names it in the path.
    location: Path,
    scheme: ObjectStoreScheme,
}

#[derive(Debug)]
pub(super) struct Place {
    prefix: Address,
    store: Arc<dyn ObjectStore>,
    /// The real directory behind a `file:` prefix.
    directory: Option<PathBuf>,
    /// `LOOKUPS` permits: a look-up on a file system that hangs is given up after its time-out, but
    /// its thread stays, and the threads are shared with decoding.
    lookups: Arc<Semaphore>,
}

/// An image of which only the metadata has been read.
pub(super) struct OpenImage(GetResult);

impl Address {
    /// The reason of a refusal is a predicate: "has a query".
    pub(super) fn parse(uri: &str) -> Result<Self, String> {
        // Resolves `.` and `..`, percent-encoded or not.
        let url = Url::parse(uri).map_err(|error| format!("is not a URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has user info".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has a query or a fragment".to_owned());
        }
        let known = "is not a file:, s3:, gs:, az: or https: URL with a clean path";
        let (scheme, location) = ObjectStoreScheme::parse(&url).map_err(|_| known.to_owned())?;
        if scheme == ObjectStoreScheme::Memory {
            return Err(known.to_owned());
        }
        // Refuses what decoding brings to light: `..`, empty segments, control characters.
        let path = Path::from_url_path(url.path()).map_err(|_| known.to_owned())?;
        // A second decoding, or another system's separator, must find nothing either.
        if path.as_ref().contains(['%', '\\']) {
            return Err("has a percent sign or a backslash in its decoded path".to_owned());
        }
        Ok(Self { url, path, location, scheme })
    }
}

impl Place {
    /// `lookup` finds the addresses of a web server; `clock` is told what a server says of its own.
    pub(super) fn open(prefix: &str, lookup: Lookup, clock: &ServerClock) -> Result<Self, String> {
        let prefix = Address::parse(prefix)?;
        let text = prefix.url.as_str();
        // The attempts are counted in one place, the fetcher.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let unusable = |error: object_store::Error| format!("cannot be opened: {error}");
        let cloud = clock.of(ReqwestConnector::default());
        let mut directory = None;
        let store: Arc<dyn ObjectStore> = match prefix.scheme {
            ObjectStoreScheme::AmazonS3 => Arc::new(
                AmazonS3Builder::from_env()
                    .with_url(text)
                    .with_retry(retry)
                    .with_http_connector(cloud)
                    .build()
                    .map_err(unusable)?,
            ),
            ObjectStoreScheme::GoogleCloudStorage => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(text)
                    .with_retry(retry)
                    .with_http_connector(cloud)
                    .build()
                    .map_err(unusable)?,
            ),
            ObjectStoreScheme::MicrosoftAzure => Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_url(text)
                    .with_retry(retry)
                    .with_http_connector(cloud)
                    .build()
                    .map_err(unusable)?,
            ),
            ObjectStoreScheme::Http => {
                let name = prefix.url.host_str().unwrap_or_default().to_owned();
                let https_only = prefix.url.scheme() == "https";
                let connector = Connector { host: name, https_only, lookup };
                let host = &prefix.url[..Position::BeforePath];
                let builder = HttpBuilder::new().with_url(host).with_retry(retry);
                Arc::new(builder.with_http_connector(clock.of(connector)).build().map_err(unusable)?)
            }
            ObjectStoreScheme::Local => {
                let path =
                    prefix.url.to_file_path().map_err(|()| "is not a path on this system".to_owned())?;
                let real = path.canonicalize().map_err(|error| format!("cannot be opened: {error}"))?;
                directory = Some(real);
                Arc::new(LocalFileSystem::new())
            }
            _ => return Err("is of an unknown scheme".to_owned()),
        };
        Ok(Self { prefix, store, directory, lookups: Arc::new(Semaphore::new(LOOKUPS)) })
    }

    /// Same scheme, host and port, and a path below by whole segments.
    pub(super) fn covers(&self, address: &Address) -> bool {
        let (own, other) = (&self.prefix.url, &address.url);
        own.scheme() == other.scheme()
            && own.host_str() == other.host_str()
            && own.port_or_known_default() == other.port_or_known_default()
            && address.path.prefix_matches(&self.prefix.path)
    }

    pub(super) async fn open_image(&self, address: &Address) -> Result<OpenImage, Failure> {
        let location = match &self.directory {
            Some(directory) => real_file(directory.clone(), address.url.clone(), &self.lookups).await?,
            None => address.location.clone(),
        };
        self.store.get(&location).await.map(OpenImage).map_err(|error| failure(&error))
    }
}

impl OpenImage {
    pub(super) fn size_bytes(&self) -> u64 {
        self.0.meta.size
    }

    /// Everything, if it is exactly `expected_bytes` long.
    pub(super) async fn read(self, expected_bytes: u64) -> Result<Bytes, Failure> {
        let result = self.0;
        if matches!(result.payload, GetResultPayload::File(..)) {
            // In one go, and never more than the length that was checked.
            return result.bytes().await.map_err(|error| failure(&error));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(expected_bytes).unwrap_or(0));
        let mut chunks = result.into_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| failure(&error))?);
            // What the store said about the length need not be true.
            if bytes.len() as u64 > expected_bytes {
                break;
            }
        }
        if bytes.len() as u64 != expected_bytes {
            return Err(wrong_length(bytes.len() as u64, expected_bytes));
        }
        Ok(bytes.into())
    }
}

/// The file behind every symbolic link, if it is a regular file below `directory`. A directory that is
/// itself a link was resolved when the place was opened. Whoever may write there could swap a link between
/// this check and the read; what is read must still be an image with the digest the event names.
async fn real_file(directory: PathBuf, url: Url, lookups: &Arc<Semaphore>) -> Result<Path, Failure> {
    let lookup = Arc::clone(lookups).acquire_owned().await;
    let resolve = move || {
        // Held until the file system has answered, however long that takes.
        let _lookup = lookup;
        let path = url.to_file_path().map_err(|()| outside())?;
        let real = path.canonicalize().map_err(|error| file_failure(&error))?;
        if !real.starts_with(&directory) {
            return Err(outside());
        }
        // A pipe or a device would never end.
        if !real.metadata().map_err(|error| file_failure(&error))?.is_file() {
            return Err(Failure::Permanent(not_allowed("is not a regular file")));
        }
        Path::from_absolute_path(&real).map_err(|_| outside())
    };
    let joined = tokio::task::spawn_blocking(resolve).await;
    joined.unwrap_or_else(|error| Err(Failure::Temporary(unreachable(&error.to_string()))))
}

fn outside() -> Failure {
    Failure::Permanent(not_allowed("leads outside allowed_uri_prefixes"))
}

fn not_found() -> Failure {
    let message = "there is no such image";
    Failure::Temporary(Rejection::new(RejectionCode::ImageNotFound, message))
}

fn file_failure(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => not_found(),
        std::io::ErrorKind::PermissionDenied => Failure::Permanent(unreachable("access is refused")),
        kind => Failure::Temporary(unreachable(&kind.to_string())),
    }
}

fn failure(error: &object_store::Error) -> Failure {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => not_found(),
        Error::Unauthenticated { .. } => {
            Failure::Permanent(unreachable("access is refused; check the credentials"))
        }
        // Stores that may not be listed answer so for an image that is not there yet.
        Error::PermissionDenied { .. } => {
            Failure::Temporary(unreachable("access is refused; check the credentials"))
        }
        other if chain(other).any(|cause| cause.is::<Redirected>()) => {
            Failure::Permanent(not_allowed("is redirected elsewhere by its server, which is not followed"))
        }
        other if chain(other).any(|cause| cause.is::<Inward>()) => Failure::Permanent(not_allowed(
            "has a host that resolves to loopback or link-local addresses only; if that is meant, name the \
             address or localhost in allowed_uri_prefixes",
        )),
        other => Failure::Temporary(unreachable(&cause(other))),
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// What can be said about an error of a store without repeating the URL, or the body of an error page.
fn cause(error: &object_store::Error) -> String {
    let root = chain(error).last().map(ToString::to_string).unwrap_or_default();
    let is_transport = chain(error).any(|cause| cause.is::<HttpError>() || cause.is::<std::io::Error>());
    let text = match root.split_once("status code: ") {
        Some((_, status)) => format!("the store answered {}", status.split(':').next().unwrap_or_default()),
        None if is_transport => root,
        None => "the store failed".to_owned(),
    };
    text.chars().take(MAX_CAUSE_CHARS).collect()
}

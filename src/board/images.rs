//! The photographs of the last frames, kept until somebody looks at them.
//!
//! A grade event names its image by digest only. So the board reads the frames topic as well, keeps what the
//! service would grade, and shows an image as the model sees it: decoded within the same limits, cropped, grey, and
//! written anew. The bytes that a stranger put onto the topic never reach a browser.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use lru::LruCache;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::domain::{Image, ImageLocation};
use crate::pipeline::decode::{self, DecodeSettings};
use crate::pipeline::fetch::Fetcher;

/// Side of what is shown, pixels.
const SIDE_PX: usize = 448;
const JPEG_QUALITY: u8 = 85;
/// Images decoded or fetched at a time for whoever looks.
const MAX_AT_A_TIME: usize = 2;
/// What an entry takes beside its bytes.
const OVERHEAD_BYTES: usize = 512;

/// Encoded images by digest, the least recently used forgotten first. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    decode: DecodeSettings,
    fetcher: Fetcher,
    max_bytes: usize,
    free: Semaphore,
}

#[derive(Debug)]
struct Kept {
    images: LruCache<String, (Image, Option<Bytes>)>,
    bytes: usize,
}

/// Why an image cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoImage {
    /// It was not on the topic since the board started, or was forgotten since.
    NotHeld,
    /// It is what it should be no more, or cannot be decoded or fetched.
    Unusable,
}

impl Images {
    /// Keeps nothing yet, and never more than `max_bytes`.
    #[must_use]
    pub fn new(decode: DecodeSettings, fetcher: Fetcher, max_bytes: usize) -> Self {
        let kept = Mutex::new(Kept { images: LruCache::unbounded(), bytes: 0 });
        Self(Arc::new(Inner { kept, decode, fetcher, max_bytes, free: Semaphore::new(MAX_AT_A_TIME) }))
    }

    /// Keeps an image, or where it lies. One that is not what its digest says is passed over: the service has made a
    /// dead letter of it.
    pub fn keep(&self, image: Image, inline: Option<&[u8]>) {
        if self.lock().images.contains(&image.sha256) {
            return;
        }
        let bytes = match (&image.location, inline) {
            (ImageLocation::Inline, Some(text)) => {
                let Ok(bytes) = decode::from_base64(text, self.0.decode.max_image_bytes) else { return };
                if hex::encode(Sha256::digest(&bytes)) != image.sha256 {
                    return;
                }
                Some(Bytes::from(bytes))
            }
            (ImageLocation::Inline, None) => return,
            (ImageLocation::Uri(_), _) => None,
        };
        self.put(image, bytes);
    }

    /// Whether it could be shown.
    #[must_use]
    pub fn holds(&self, sha256: &str) -> bool {
        self.lock().images.contains(sha256)
    }

    /// The image as the model sees it, as a JPEG.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn shown(&self, sha256: &str) -> Result<Vec<u8>, NoImage> {
        self.with(sha256, |bytes, image, limits| {
            #[allow(clippy::cast_possible_truncation, reason = "448")]
            let side_px = SIDE_PX as u32;
            let decoded = decode::picture(bytes, image, limits, SIDE_PX).map_err(|it| it.to_string())?;
            jpeg(decoded.picture.grey(), side_px, ExtendedColorType::L8)
        })
        .await
    }

    /// What becomes of an image, on a thread of its own; few at a time.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        sha256: &str,
        make: impl FnOnce(&[u8], &Image, &DecodeSettings) -> Result<T, String> + Send + 'static,
    ) -> Result<T, NoImage> {
        let kept = self.lock().images.get(sha256).cloned();
        let (image, bytes) = kept.ok_or(NoImage::NotHeld)?;
        // Never closed; were it, one image too many would be harmless.
        let _permit = self.0.free.acquire().await.ok();
        let bytes = match (bytes, &image.location) {
            (Some(bytes), _) => bytes,
            (None, ImageLocation::Uri(uri)) => {
                let fetched = self.0.fetcher.fetch(uri, image.bytes).await;
                fetched.map_err(|rejection| {
                    tracing::debug!(code = %rejection.code, "an image for the board cannot be fetched");
                    NoImage::Unusable
                })?
            }
            (None, ImageLocation::Inline) => return Err(NoImage::NotHeld),
        };
        let limits = self.0.decode.clone();
        let work = tokio::task::spawn_blocking(move || make(&bytes, &image, &limits));
        work.await.unwrap_or_else(|error| Err(error.to_string())).map_err(|reason| {
            tracing::debug!(reason, "an image cannot be shown on the board");
            NoImage::Unusable
        })
    }

    fn put(&self, image: Image, bytes: Option<Bytes>) {
        let size = |(image, bytes): &(Image, Option<Bytes>)| {
            let uri = if let ImageLocation::Uri(uri) = &image.location { uri.len() } else { 0 };
            OVERHEAD_BYTES + uri + bytes.as_ref().map_or(0, Bytes::len)
        };
        let mut kept = self.lock();
        let entry = (image, bytes);
        kept.bytes += size(&entry);
        let replaced = kept.images.put(entry.0.sha256.clone(), entry);
        kept.bytes -= replaced.as_ref().map_or(0, size);
        while kept.bytes > self.0.max_bytes {
            let Some((_, gone)) = kept.images.pop_lru() else { return };
            kept.bytes -= size(&gone);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A square as a JPEG.
pub(crate) fn jpeg(pixels: &[u8], side_px: u32, colour: ExtendedColorType) -> Result<Vec<u8>, String> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
        .encode(pixels, side_px, side_px, colour)
        .map_err(|error| error.to_string())?;
    Ok(jpeg)
}

#[cfg(test)]
#[path = "images/tests.rs"]
pub(super) mod tests;

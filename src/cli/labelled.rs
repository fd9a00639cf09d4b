//! Labelled pictures, as the service would see them.

use std::path::Path;

use crate::config::Config;
use crate::domain::Picture;
use crate::incubator::read_image;
use crate::model::multitask::SIDE_PX;
use crate::pipeline::decode;

/// Reads and decodes a file as the service does a frame; an error says what is wrong without the path.
pub(super) fn decode(config: &Config) -> impl Fn(&Path) -> Result<Picture, String> + Sync {
    let limits = config.decode.clone();
    move |path| {
        let (bytes, image) = read_image(path).map_err(|error| {
            let message = error.to_string();
            let path = format!("{} ", path.display());
            message.strip_prefix(&path).map_or(message.clone(), str::to_owned)
        })?;
        let decoded =
            decode::picture(&bytes, &image, &limits, SIDE_PX).map_err(|rejection| rejection.message)?;
        Ok(decoded.picture)
    }
}

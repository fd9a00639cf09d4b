//! Where the model looked: computed when somebody asks, one at a time.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image::ExtendedColorType;
use lru::LruCache;

use super::images::{Images, NoImage, jpeg};
use crate::domain::Head;
use crate::heatmap::{Looker, PANEL_PX, Seen, overlay};
use crate::model::{Map, ModelSettings};

/// Images of which the three maps are kept, 120 kB each: whoever looks at one head looks at the others too.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// How long loading the model and one map may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// By image, what is shown for EXP, ICM and TE.
type Kept = LruCache<String, Arc<[Vec<u8>; 3]>>;

/// The model of the board, and what it has said.
pub(super) struct HeatMaps {
    images: Images,
    model: Arc<Mutex<Looker>>,
    kept: Mutex<Kept>,
}

impl HeatMaps {
    pub(super) fn new(settings: &ModelSettings, images: Images) -> Self {
        let model = Arc::new(Mutex::new(Looker::new(settings)));
        Self { images, model, kept: Mutex::new(LruCache::new(KEPT)) }
    }

    /// Comes to its end when no map is being computed: a process must not exit while a model runs.
    pub(super) async fn idle(&self) {
        let model = Arc::clone(&self.model);
        let waiting = tokio::task::spawn_blocking(move || drop(model.lock()));
        if tokio::time::timeout(END_TIMEOUT, waiting).await.is_err() {
            tracing::warn!("a heat map was still being computed");
        }
    }

    /// The image under the map of a head, as a JPEG. Only of the bundle that made the grade: another one looks
    /// elsewhere.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn of(&self, model_digest: &str, sha256: &str, head: Head) -> Result<Vec<u8>, NoImage> {
        let key = format!("{model_digest} {sha256}");
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let maps = match known {
            Some(maps) => maps,
            None => {
                let (model, model_digest) = (Arc::clone(&self.model), model_digest.to_owned());
                let made = self.images.with(sha256, move |bytes, image, limits| {
                    let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
                    let seen = model.look(&model_digest, (image, bytes), limits);
                    let Seen { picture, maps: [exp, icm, te] } = seen.map_err(|error| error.to_string())?;
                    let shown = |map: &Map| jpeg(&overlay(&picture, map), PANEL_PX, ExtendedColorType::Rgb8);
                    Ok([shown(&exp)?, shown(&icm)?, shown(&te)?])
                });
                let made = Arc::new(made.await?);
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.put(key, Arc::clone(&made));
                made
            }
        };
        let [exp, icm, te] = maps.as_ref();
        Ok(match head {
            Head::Exp => exp,
            Head::Icm => icm,
            Head::Te => te,
        }
        .clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::images::tests::{images, photograph, text};
    use crate::config::{Config, Layers};
    use crate::domain::ImageLocation;
    use crate::model::bundle::digest_of;

    #[tokio::test]
    async fn the_demo_bundle_says_where_it_looked_and_of_another_bundle_nothing_is_said() {
        let set = vec!["model.device=cpu".to_owned()];
        let config = Config::load(&Layers { set, ..Layers::default() }, []).unwrap();
        let images = images(1 << 20, vec![]);
        let (image, png) = photograph(90, ImageLocation::Inline);
        images.keep(image.clone(), Some(&text(&png)));
        let heat = HeatMaps::new(&config.model, images);
        assert_eq!(heat.of(&"0".repeat(64), &image.sha256, Head::Exp).await, Err(NoImage::Unusable));
        let digest = digest_of(&config.model.bundle).unwrap();
        for head in Head::ALL {
            let jpeg = heat.of(&digest, &image.sha256, *head).await.unwrap();
            let shown = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).unwrap();
            assert_eq!((shown.width(), shown.height()), (PANEL_PX, PANEL_PX));
        }
        assert_eq!(heat.of(&digest, "unknown", Head::Te).await, Err(NoImage::NotHeld));
    }

    #[tokio::test]
    async fn a_bundle_that_cannot_be_loaded_costs_the_maps_and_nothing_else() {
        let mut settings = Config::load(&Layers::default(), []).unwrap().model;
        settings.bundle = "no/such/bundle".into();
        let images = images(1 << 20, vec![]);
        let (image, png) = photograph(90, ImageLocation::Inline);
        images.keep(image.clone(), Some(&text(&png)));
        let heat = HeatMaps::new(&settings, images.clone());
        assert_eq!(heat.of("m", &image.sha256, Head::Exp).await, Err(NoImage::Unusable));
        assert!(images.shown(&image.sha256).await.is_ok());
    }
}

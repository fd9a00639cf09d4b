//! The grader: two ONNX Runtime sessions used in turn.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use ort::environment::Environment;

use super::bundle::Bundle;
use super::contract::HEADS;
use super::device::Device;
use super::manifest::{HeadManifest, HeadManifests, Manifest};
use super::multitask::EMBEDDING_WIDTH;
use super::networks::{Networks, Said};
use super::runs::runs;
use super::tensor::outside;
use super::warm_up;
use super::{ModelError, ModelSettings, cores, runtime};
use crate::domain::{AbstainReason, GradeClass, GraderIdentity, HeadGrade, Heads, Picture, Population};
use crate::pipeline::grade::{GradedBatch, Grader, GraderError, NotFinite, Opinion};

/// Loads the bundle and makes the graders, warm: each has graded every batch size. Blocks: verifies
/// files, may fetch ONNX Runtime.
///
/// # Errors
/// [`ModelError`] saying which setting, file or device is wrong and what to do.
pub fn load_graders(settings: &ModelSettings) -> Result<Vec<Box<dyn Grader>>, ModelError> {
    Ok(load(settings)?.into_iter().map(|grader| Box::new(grader) as Box<dyn Grader>).collect())
}

pub(super) fn load(settings: &ModelSettings) -> Result<Vec<OnnxGrader>, ModelError> {
    settings.validate()?;
    let bundle = Bundle::open(&settings.bundle)?;
    let environment = runtime::environment(&settings.runtime, settings.threads(cores()))?;
    Device::first_usable(settings.device, settings.device_id, |device| {
        let warm = || {
            let mut grader =
                OnnxGrader::load(&environment, &bundle, device, settings.batch_sizes_on(device, cores()))?;
            let failed = |source| ModelError::WarmUp { device: device.to_string(), source };
            grader.warm_up().map(|()| grader).map_err(failed)
        };
        // Beside each other: one after the other they would keep all cores but one waiting.
        let graders = thread::scope(|scope| {
            let count = settings.graders_on(device, cores());
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(warm)).collect();
            let joined =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.collect::<Result<Vec<_>, ModelError>>()
        })?;
        tracing::info!(%device, graders = graders.len(), "models loaded and warm");
        Ok(graders)
    })
}

/// Both models on one device.
pub struct OnnxGrader {
    identity: GraderIdentity,
    pub(super) manifest: Manifest,
    max_batch_frames: usize,
    pub(super) networks: Networks,
    population: Option<Arc<Population>>,
}

impl OnnxGrader {
    /// Loads both models of a bundle for a device.
    fn load(
        environment: &Environment,
        bundle: &Bundle,
        device: Device,
        batch_sizes: &[usize],
    ) -> Result<Self, ModelError> {
        let manifest = bundle.manifest();
        let networks = Networks::load(environment, bundle, device, batch_sizes)?;
        let precisions = [manifest.files.embedding.precision, manifest.files.multitask.precision];
        Ok(Self {
            identity: GraderIdentity {
                model: bundle.identity(),
                device: device.to_string(),
                precision: precisions.map(|precision| precision.as_str()).join("+"),
            },
            manifest: manifest.clone(),
            max_batch_frames: batch_sizes.last().copied().unwrap_or(1),
            networks,
            population: bundle.population().cloned(),
        })
    }

    /// Grades pictures whose answers must all be numbers.
    fn all_finite(&mut self, pictures: &[&Picture]) -> Result<Vec<Opinion>, GraderError> {
        let opinions = self.grade(pictures)?.opinions;
        let frames = opinions.len();
        opinions
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| GraderError(format!("{frames} frames: {error}")))
    }
}

impl Grader for OnnxGrader {
    fn identity(&self) -> &GraderIdentity {
        &self.identity
    }

    fn population(&self) -> Option<Arc<Population>> {
        self.population.clone()
    }

    fn input_side_px(&self) -> usize {
        self.networks.images.side_px()
    }

    fn max_batch_frames(&self) -> usize {
        self.max_batch_frames
    }

    /// Also refuses a model whose answer for a picture depends on the others in the batch.
    fn warm_up(&mut self) -> Result<(), GraderError> {
        let pictures = warm_up::pictures(self.input_side_px()).ok_or_else(outside)?;
        let mut alone = Vec::with_capacity(pictures.len());
        for picture in &pictures {
            alone.extend(self.all_finite(&[picture])?);
        }
        let mut sizes =
            [self.networks.embedding.sizes.as_slice(), self.networks.multitask.sizes.as_slice()].concat();
        sizes.sort_unstable();
        sizes.dedup();
        let files = &self.manifest.files;
        let allowed = warm_up::max_difference([files.embedding.precision, files.multitask.precision]);
        for frames in sizes {
            let batch: Vec<&Picture> = pictures.iter().cycle().take(frames).collect();
            for (found, expected) in self.all_finite(&batch)?.iter().zip(alone.iter().cycle()) {
                let difference = warm_up::difference(&found.heads, &expected.heads);
                if difference > allowed {
                    return Err(GraderError(format!(
                        "the answer for a picture depends on the others in its batch: a probability differs by \
                         {difference:.4} alone and among {frames}; lower max_batch_frames in the manifest, to 1 \
                         for a network in dynamic int8"
                    )));
                }
            }
        }
        Ok(())
    }

    fn grade(&mut self, pictures: &[&Picture]) -> Result<GradedBatch, GraderError> {
        let frames = pictures.len();
        if !(1..=self.max_batch_frames).contains(&frames) {
            let limit = self.max_batch_frames;
            return Err(GraderError(format!("batch of {frames} frames is not within 1 and {limit}")));
        }
        let networks = &mut self.networks;
        networks.images.fill(pictures)?;
        let began = Instant::now();
        for run in runs(frames, &networks.embedding.sizes) {
            networks.embed(run)?;
        }
        let embedding = began.elapsed();
        let began = Instant::now();
        let mut opinions = Vec::with_capacity(frames);
        for run in runs(frames, &networks.multitask.sizes) {
            opinions.extend(opinions_of(&networks.opine(run)?, &self.manifest)?);
        }
        opinions.truncate(frames);
        Ok(GradedBatch { opinions, embedding, multitask: began.elapsed() })
    }
}

/// Opinions on the frames of a run, padding included.
fn opinions_of(said: &Said<'_>, manifest: &Manifest) -> Result<Vec<Result<Opinion, NotFinite>>, GraderError> {
    let [exp, icm, te] = HEADS;
    let exp = head_grades(said, exp, &manifest.heads.exp)?;
    let icm = head_grades(said, icm, &manifest.heads.icm)?;
    let te = head_grades(said, te, &manifest.heads.te)?;
    let distances = said.distances()?;
    let distance = |frame| distances.and_then(|distances| distances.get(frame)).map(|x| f64::from(*x));
    // The embedding is looked at too: a ReLU may turn what is not a number into a zero.
    let embeddings = said.embeddings.chunks_exact(EMBEDDING_WIDTH);
    let frames = (0..).zip(embeddings).zip(exp).zip(icm).zip(te);
    let opinions = frames.map(|((((frame, embedding), exp), icm), te)| match (exp, icm, te) {
        (Some(exp), Some(icm), Some(te)) if embedding.iter().all(|x| x.is_finite()) => {
            let heads = Heads::new(exp, icm, te);
            let training_distance = distance(frame);
            let mut reasons = Vec::new();
            if let (Some(distance), Some(limit)) = (training_distance, &manifest.out_of_distribution)
                && limit.refuses(distance)
            {
                reasons.push(AbstainReason::OutOfDistribution);
            }
            if is_unsure(&heads, &manifest.heads) {
                reasons.push(AbstainReason::LowConfidence);
            }
            Ok(Opinion { heads, reasons, training_distance, embedding: embedding.into() })
        }
        _ => Err(NotFinite),
    });
    Ok(opinions.collect())
}

/// Whether a head that is present is less sure than the bundle demands.
fn is_unsure(heads: &Heads, manifest: &HeadManifests) -> bool {
    let below = |confidence: Option<f64>, head: &HeadManifest| match (confidence, head.abstain_below) {
        (Some(confidence), Some(limit)) => confidence < limit,
        _ => false,
    };
    below(Some(heads.exp.confidence), &manifest.exp)
        || below(heads.icm.as_ref().map(|head| head.confidence), &manifest.icm)
        || below(heads.te.as_ref().map(|head| head.confidence), &manifest.te)
}

fn head_grades<G: GradeClass>(
    said: &Said<'_>,
    name: &str,
    head: &HeadManifest,
) -> Result<Vec<Option<HeadGrade<G>>>, GraderError> {
    let rows = said.output(name, G::ALL.len())?.chunks_exact(G::ALL.len());
    Ok(rows.map(|row| HeadGrade::from_logits(row, head.temperature)).collect())
}

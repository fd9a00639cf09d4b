//! The grader: two ONNX Runtime sessions used in turn.

use std::time::Instant;

use ort::environment::Environment;
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;

use super::bundle::{Bundle, Network};
use super::contract::{EMBEDDING, HEADS, IMAGE, check_embedding, check_multitask, check_opset};
use super::device::Device;
use super::manifest::{HeadManifest, HeadManifests, Input, ModelFile};
use super::multitask::EMBEDDING_WIDTH;
use super::runs::{Run, padded, runs, usable_sizes};
use super::warm_up::{self, MAX_DIFFERENCE};
use super::{ModelError, ModelSettings, runtime};
use crate::domain::{AbstainReason, GradeClass, GraderIdentity, HeadGrade, Heads, Picture};
use crate::pipeline::grade::{GradedBatch, Grader, GraderError, NotFinite, Opinion};

const CHANNELS: usize = 3;

/// Loads the bundle and makes the graders, warm: each has graded every batch size. Blocks: verifies
/// files, may fetch ONNX Runtime.
///
/// # Errors
/// [`ModelError`] saying which setting, file or device is wrong and what to do.
pub fn load_graders(settings: &ModelSettings) -> Result<Vec<Box<dyn Grader>>, ModelError> {
    settings.validate()?;
    let bundle = Bundle::open(&settings.bundle, &settings.runtime.cache_dir)?;
    let environment = runtime::environment(&settings.runtime, settings.intra_op_threads)?;
    Device::first_usable(settings.device, settings.device_id, |device| {
        let mut graders: Vec<Box<dyn Grader>> = Vec::with_capacity(settings.graders);
        while graders.len() < settings.graders {
            let mut grader = OnnxGrader::load(&environment, &bundle, device, &settings.batch_sizes)?;
            let failed = |source| ModelError::WarmUp { device: device.to_string(), source };
            grader.warm_up().map_err(failed)?;
            graders.push(Box::new(grader));
        }
        tracing::info!(%device, graders = graders.len(), "models loaded and warm");
        Ok(graders)
    })
}

/// Both models on one device, with the buffers that a batch is built in.
pub struct OnnxGrader {
    identity: GraderIdentity,
    heads: HeadManifests,
    side_px: usize,
    max_batch_frames: usize,
    embedding: Model,
    multitask: Model,
    /// What each grey value becomes in each channel.
    normalised: [[f32; 256]; CHANNELS],
    /// `[frames, 3, side, side]`
    images: Vec<f32>,
    /// `[frames, 384]`
    embeddings: Vec<f32>,
}

/// A session and the batch sizes it is run with.
struct Model {
    session: Session,
    sizes: Vec<usize>,
}

impl Model {
    fn load(
        environment: &Environment,
        device: Device,
        network: &Network,
        file: &ModelFile,
        batch_sizes: &[usize],
        check: fn(&Session) -> Result<(), String>,
    ) -> Result<Self, ModelError> {
        let session = device.session(environment, network)?;
        check_opset(&session, file.opset)
            .and_then(|()| check(&session))
            .map_err(|reason| ModelError::bundle(network.path(), reason))?;
        Ok(Self { session, sizes: usable_sizes(batch_sizes, file.max_batch_frames) })
    }
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
        let load = |network, file, check| Model::load(environment, device, network, file, batch_sizes, check);
        let embedding = load(bundle.embedding(), &manifest.files.embedding, check_embedding)?;
        let multitask = load(bundle.multitask(), &manifest.files.multitask, check_multitask)?;
        let max_batch_frames = batch_sizes.last().copied().unwrap_or(1);
        let capacity =
            padded(max_batch_frames, &embedding.sizes).max(padded(max_batch_frames, &multitask.sizes));
        let side_px = manifest.input.side_px;
        let precisions = [manifest.files.embedding.precision, manifest.files.multitask.precision];
        Ok(Self {
            identity: GraderIdentity {
                model: bundle.identity(),
                device: device.to_string(),
                precision: precisions.map(|precision| precision.as_str()).join("+"),
            },
            heads: manifest.heads.clone(),
            side_px,
            max_batch_frames,
            embedding,
            multitask,
            normalised: normalised(&manifest.input),
            images: vec![0.0; capacity * CHANNELS * side_px * side_px],
            embeddings: vec![0.0; capacity * EMBEDDING_WIDTH],
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

    /// Writes the pictures into the batch tensor, each three times, and zeros behind them.
    fn fill(&mut self, pictures: &[&Picture]) {
        let pixels = self.side_px * self.side_px;
        let planes = self.images.chunks_exact_mut(pixels);
        let sources =
            pictures.iter().flat_map(|picture| self.normalised.iter().map(|lut| (picture.grey(), lut)));
        let mut planes = planes.into_iter();
        for ((grey, lut), plane) in sources.zip(planes.by_ref()) {
            for (target, value) in plane.iter_mut().zip(grey) {
                *target = lut[usize::from(*value)];
            }
        }
        planes.for_each(|plane| plane.fill(0.0));
    }

    /// Fills `embeddings` from `images`.
    fn embed(&mut self, run: Run) -> Result<(), GraderError> {
        let images = part(&self.images, run, CHANNELS * self.side_px * self.side_px)?;
        let image = TensorRef::from_array_view(([run.frames, CHANNELS, self.side_px, self.side_px], images))
            .map_err(failed)?;
        let outputs = self.embedding.session.run(ort::inputs![IMAGE => image]).map_err(failed)?;
        let answer = output(&outputs, EMBEDDING, run.frames * EMBEDDING_WIDTH)?;
        let first = run.first_frame * EMBEDDING_WIDTH;
        let target = self.embeddings.get_mut(first..first + answer.len()).ok_or_else(outside)?;
        target.copy_from_slice(answer);
        Ok(())
    }

    /// Opinions on the frames of a run, padding included.
    fn opine(&mut self, run: Run) -> Result<Vec<Result<Opinion, NotFinite>>, GraderError> {
        let images = part(&self.images, run, CHANNELS * self.side_px * self.side_px)?;
        let embeddings = part(&self.embeddings, run, EMBEDDING_WIDTH)?;
        let image = TensorRef::from_array_view(([run.frames, CHANNELS, self.side_px, self.side_px], images))
            .map_err(failed)?;
        let embedding =
            TensorRef::from_array_view(([run.frames, EMBEDDING_WIDTH], embeddings)).map_err(failed)?;
        let inputs = ort::inputs![IMAGE => image, EMBEDDING => embedding];
        let outputs = self.multitask.session.run(inputs).map_err(failed)?;
        let [exp, icm, te] = HEADS;
        let heads = &self.heads;
        let exp = head_grades(&outputs, exp, run.frames, &heads.exp)?;
        let icm = head_grades(&outputs, icm, run.frames, &heads.icm)?;
        let te = head_grades(&outputs, te, run.frames, &heads.te)?;
        // The embedding is looked at too: a ReLU may turn what is not a number into a zero.
        let known = embeddings.chunks_exact(EMBEDDING_WIDTH).map(|row| row.iter().all(|x| x.is_finite()));
        let opinions =
            known.zip(exp).zip(icm).zip(te).map(|(((known, exp), icm), te)| match (exp, icm, te) {
                (Some(exp), Some(icm), Some(te)) if known => Ok(opinion(Heads::new(exp, icm, te), heads)),
                _ => Err(NotFinite),
            });
        Ok(opinions.collect())
    }
}

impl Grader for OnnxGrader {
    fn identity(&self) -> &GraderIdentity {
        &self.identity
    }

    fn input_side_px(&self) -> usize {
        self.side_px
    }

    fn max_batch_frames(&self) -> usize {
        self.max_batch_frames
    }

    /// Also refuses a model whose answer for a picture depends on the others in the batch.
    fn warm_up(&mut self) -> Result<(), GraderError> {
        let pictures = warm_up::pictures(self.side_px).ok_or_else(outside)?;
        let mut alone = Vec::with_capacity(pictures.len());
        for picture in &pictures {
            alone.extend(self.all_finite(&[picture])?);
        }
        let mut sizes = [self.embedding.sizes.as_slice(), self.multitask.sizes.as_slice()].concat();
        sizes.sort_unstable();
        sizes.dedup();
        for frames in sizes {
            let batch: Vec<&Picture> = pictures.iter().cycle().take(frames).collect();
            for (found, expected) in self.all_finite(&batch)?.iter().zip(alone.iter().cycle()) {
                let difference = warm_up::difference(&found.heads, &expected.heads);
                if difference > MAX_DIFFERENCE {
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
        if let Some(odd) = pictures.iter().find(|picture| picture.side_px() != self.side_px) {
            let (found, expected) = (odd.side_px(), self.side_px);
            return Err(GraderError(format!("picture of {found} pixels a side, expected {expected}")));
        }
        self.fill(pictures);
        let began = Instant::now();
        for run in runs(frames, &self.embedding.sizes) {
            self.embed(run)?;
        }
        let embedding = began.elapsed();
        let began = Instant::now();
        let mut opinions = Vec::with_capacity(self.embeddings.len() / EMBEDDING_WIDTH);
        for run in runs(frames, &self.multitask.sizes) {
            opinions.extend(self.opine(run)?);
        }
        opinions.truncate(frames);
        Ok(GradedBatch { opinions, embedding, multitask: began.elapsed() })
    }
}

fn normalised(input: &Input) -> [[f32; 256]; CHANNELS] {
    std::array::from_fn(|channel| {
        #[allow(clippy::cast_possible_truncation, reason = "single precision is what the network takes")]
        let (mean, std) = (input.mean[channel] as f32, input.std[channel] as f32);
        std::array::from_fn(|grey| {
            #[allow(clippy::cast_precision_loss, reason = "0 to 255 are exact in f32")]
            let value = grey as f32 / 255.0;
            (value - mean) / std
        })
    })
}

fn opinion(heads: Heads, manifest: &HeadManifests) -> Opinion {
    let below = |confidence: Option<f64>, head: &HeadManifest| match (confidence, head.abstain_below) {
        (Some(confidence), Some(limit)) => confidence < limit,
        _ => false,
    };
    let unsure = below(Some(heads.exp.confidence), &manifest.exp)
        || below(heads.icm.as_ref().map(|head| head.confidence), &manifest.icm)
        || below(heads.te.as_ref().map(|head| head.confidence), &manifest.te);
    let reasons = if unsure { vec![AbstainReason::LowConfidence] } else { Vec::new() };
    Opinion { heads, reasons }
}

fn head_grades<G: GradeClass>(
    outputs: &SessionOutputs<'_>,
    name: &str,
    frames: usize,
    head: &HeadManifest,
) -> Result<Vec<Option<HeadGrade<G>>>, GraderError> {
    let logits = output(outputs, name, frames * G::ALL.len())?;
    let rows = logits.chunks_exact(G::ALL.len());
    Ok(rows.map(|row| HeadGrade::from_logits(row, head.temperature)).collect())
}

/// The values of an output, which must be as many as the contract says.
fn output<'a>(outputs: &'a SessionOutputs<'_>, name: &str, length: usize) -> Result<&'a [f32], GraderError> {
    let value = outputs.get(name).ok_or_else(|| GraderError(format!("no output {name}")))?;
    let (_, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
    if values.len() == length {
        return Ok(values);
    }
    Err(GraderError(format!("output {name} has {} values, expected {length}", values.len())))
}

fn part(values: &[f32], run: Run, per_frame: usize) -> Result<&[f32], GraderError> {
    values.get(run.first_frame * per_frame..(run.first_frame + run.frames) * per_frame).ok_or_else(outside)
}

fn outside() -> GraderError {
    GraderError("batch reaches past its buffer".to_owned())
}

fn failed(error: ort::Error) -> GraderError {
    GraderError(error.to_string())
}

//! The limits: the same sessions in a loop, and a consumer that drops every message.

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use memebg::config::{Config, Layers};
use memebg::model::{Bundle, runtime};
use ort::session::Session;
use ort::value::TensorRef;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::device::Device;
use crate::feed;
use crate::rate::{PATIENCE, said};
use crate::stream::Stream;

const SIDE_PX: usize = 224;
const EMBEDDING_WIDTH: usize = 384;

/// As many pairs of sessions as memebg has graders, each with a thread and with tensors that are ready.
pub struct Sessions {
    pairs: Vec<Pair>,
    /// Frames in a batch.
    batch: usize,
}

/// Both networks of a bundle.
struct Pair {
    embedding: Session,
    multitask: Session,
    /// Frames that the embedding network takes at a time.
    at_a_time: usize,
    images: Vec<f32>,
}

impl Sessions {
    pub fn load(device: &Device, bundle: &Path) -> Self {
        let pairs = (0..device.graders()).map(|_| Pair::load(device, bundle)).collect();
        Self { pairs, batch: device.batch() }
    }

    /// Frames per second over at least so many frames.
    pub fn rate(&mut self, frames: u64) -> f64 {
        let batches = frames.div_ceil((self.batch * self.pairs.len()) as u64);
        let together = Barrier::new(self.pairs.len());
        let seconds = std::thread::scope(|scope| {
            let work = |pair: &'_ mut Pair| {
                pair.batch();
                together.wait();
                let began = Instant::now();
                (0..batches).for_each(|_| pair.batch());
                began.elapsed().as_secs_f64()
            };
            let threads: Vec<_> = self.pairs.iter_mut().map(|pair| scope.spawn(move || work(pair))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it runs")).fold(0.0, f64::max)
        });
        said("bare sessions", (batches as usize * self.batch * self.pairs.len()) as f64 / seconds)
    }
}

impl Pair {
    fn load(device: &Device, bundle: &Path) -> Self {
        let config = Config::load(&Layers::default(), []).expect("the defaults");
        let environment =
            runtime::environment(&device.runtime(config.model.runtime), 1).expect("ONNX Runtime");
        let bundle = Bundle::open(bundle).expect("a bundle");
        let load = |network: &[u8]| {
            let builder = Session::builder(&environment).expect("a builder");
            let builder = builder.with_deterministic_compute(true).expect("an option");
            device.on(builder).commit_from_memory(network).expect("a network")
        };
        let (embedding, multitask) = (load(bundle.embedding().data()), load(bundle.multitask().data()));
        let picture = image::imageops::thumbnail(&feed::drawn(1), SIDE_PX as u32, SIDE_PX as u32);
        let plane: Vec<f32> = picture.as_raw().iter().map(|grey| f32::from(*grey) / 255.0).collect();
        let at_a_time = bundle.manifest().files.embedding.max_batch_frames.min(device.batch());
        Self { embedding, multitask, at_a_time, images: plane.repeat(3 * device.batch()) }
    }

    fn batch(&mut self) {
        let per_frame = 3 * SIDE_PX * SIDE_PX;
        let batch = self.images.len() / per_frame;
        let mut embeddings = Vec::with_capacity(batch * EMBEDDING_WIDTH);
        for part in self.images.chunks(self.at_a_time * per_frame) {
            let shape = [part.len() / per_frame, 3, SIDE_PX, SIDE_PX];
            let image = TensorRef::from_array_view((shape, part)).expect("a tensor");
            let outputs = self.embedding.run(ort::inputs!["image" => image]).expect("embeddings");
            embeddings
                .extend_from_slice(outputs["embedding"].try_extract_tensor::<f32>().expect("numbers").1);
        }
        let shape = [batch, 3, SIDE_PX, SIDE_PX];
        let image = TensorRef::from_array_view((shape, self.images.as_slice())).expect("a tensor");
        let embedding =
            TensorRef::from_array_view(([batch, EMBEDDING_WIDTH], embeddings.as_slice())).expect("a tensor");
        let inputs = ort::inputs!["image" => image, "embedding" => embedding];
        let outputs = self.multitask.run(inputs).expect("grades");
        black_box(outputs["exp"].try_extract_tensor::<f32>().expect("numbers"));
    }
}

/// Frames per second of a consumer that drops every message, over a topic that is full before.
pub fn consume(stream: &Stream<'_>, group: &str, frames: u64) -> f64 {
    let mut client = stream.kafka.client();
    client.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    client.set("partition.assignment.strategy", "cooperative-sticky");
    client.set("queued.max.messages.kbytes", "65536");
    let consumer: BaseConsumer = client.create().expect("a consumer");
    consumer.subscribe(&[&stream.frames()]).expect("a subscription");
    let (mut began, mut done, mut bytes) = (None, 0, 0);
    let deadline = Instant::now() + PATIENCE;
    while done < frames {
        assert!(Instant::now() < deadline, "{done} of {frames} frames");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        bytes += message.expect("a message").payload_len();
        began.get_or_insert_with(Instant::now);
        done += 1;
    }
    assert!(bytes > 0, "the messages have values");
    said(group, frames as f64 / began.expect("a frame").elapsed().as_secs_f64())
}

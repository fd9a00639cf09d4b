//! How old a frame is when its grade is published, under a load that comes at random moments.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::common::kafka::Kafka;
use crate::rate::PATIENCE;
use crate::served::{self, Served};
use crate::stream::Stream;
use crate::table::Table;
use crate::{Bench, feed};

const PARTITIONS: usize = 6;
/// Frames that come before those that count.
const FIRST: u64 = 10;
/// Frames per second as a share of what can be graded, how often, and for how many seconds. A GPU grades a hundred times
/// as many frames per second, so that it needs less time.
const LOADS: [(f64, usize, f64); 3] = [(0.1, 1, 60.0), (0.5, 5, 40.0), (0.9, 3, 40.0)];
const LOADS_OF_A_GPU: [(f64, usize, f64); 3] = [(0.1, 1, 5.0), (0.5, 3, 8.0), (0.9, 1, 8.0)];
/// `batch.max_wait_ms`.
const MAX_WAIT_MS: f64 = 50.0;

pub fn measure(bench: &Bench, table: &mut Table) {
    let kafka = Kafka::start();
    let create = |name: &str| bench.runtime.block_on(Stream::create(&kafka, name, PARTITIONS));
    let (frames, loads) = if bench.device.is_gpu() { (12_000, LOADS_OF_A_GPU) } else { (300, LOADS) };
    let frames = bench.pick(frames, 20);
    let stream = create("capacity");
    stream.send(feed::selected(frames));
    let mut capacities = Vec::new();
    for (share, rounds, seconds) in loads {
        let [mut middle, mut late, mut bounds, mut all] = [const { Vec::new() }; 4];
        for round in 0..bench.pick(rounds, 1) {
            let name = format!("latency-{share}-{round}");
            // Each time, because a machine that is shared is not as fast now as it was minutes ago.
            let capacity = served::run(bench, &stream, &name, frames, &bench.bundles.quick, &[]);
            capacities.push(capacity);
            let stream = create(&name);
            let (mut ages, batch_ms) =
                one_run(bench, &stream, share * capacity, bench.pick(seconds, 2.0), round);
            ages.sort_by(f64::total_cmp);
            middle.push(percentile(&ages, 0.5));
            late.push(percentile(&ages, 0.99));
            eprintln!("    {name}: p99 {:.0} ms, a batch takes {batch_ms:.1} ms", percentile(&ages, 0.99));
            bounds.push(MAX_WAIT_MS + 2.0 * batch_ms);
            all.append(&mut ages);
        }
        all.sort_by(f64::total_cmp);
        let what = format!("age at publish at {:.0} % of capacity", share * 100.0);
        table.figure(format!("{what}, p50"), "ms", &middle);
        table.beside(format!("{what}, p99"), "ms", &late, "50 ms + 2 x inference of a batch", &bounds);
        table.figure(format!("{what}, p999 of all {} frames", all.len()), "ms", &[percentile(&all, 0.999)]);
    }
    table.figure(format!("capacity, {}", bench.device.quick()), "frames/s", &capacities);
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[(sorted.len() as f64 * share) as usize]
}

/// Ages of the frames, and how long the models took for a batch.
fn one_run(
    bench: &Bench,
    stream: &Stream<'_>,
    per_second: f64,
    seconds: f64,
    round: usize,
) -> (Vec<f64>, f64) {
    let served = Served::start(bench, stream, "latency", &bench.bundles.quick, &[]);
    served.ready();
    stream.send(feed::selected(FIRST));
    served.finish(FIRST);
    let before = Inference::of(&served);
    let sent = send_at_random(stream, per_second, seconds, round);
    served.finish(FIRST + sent.len() as u64);
    let batch_ms = Inference::of(&served).batch_ms_since(&before);
    served.stop();
    (ages_ms(stream, &sent), batch_ms)
}

/// What the models did.
struct Inference {
    seconds: f64,
    batches: f64,
}

impl Inference {
    fn of(served: &Served) -> Self {
        Self {
            seconds: served.metric("memebg_inference_duration_seconds_sum"),
            batches: served.metric("memebg_batch_size_frames_count"),
        }
    }

    fn batch_ms_since(&self, earlier: &Self) -> f64 {
        (self.seconds - earlier.seconds) / (self.batches - earlier.batches) * 1e3
    }
}

/// Sends wanted frames for so long, independently of each other and so many per second in the mean (a Poisson process), at other
/// moments in each `round`.
/// When each was sent, milliseconds since 1970, by embryo.
fn send_at_random(stream: &Stream<'_>, per_second: f64, seconds: f64, round: usize) -> HashMap<String, i64> {
    let producer: BaseProducer = stream.kafka.client().set("linger.ms", "0").create().expect("a producer");
    let (topic, mut sent, mut state) = (stream.frames(), HashMap::new(), round as u64 + 1);
    let frames = (per_second * seconds).ceil() as u64;
    let began = Instant::now();
    let mut due = Duration::ZERO;
    for (embryo_id, event) in feed::selected(FIRST + frames).skip(FIRST as usize) {
        // Knuth's MMIX generator; the upper 32 bits as a number above 0 and up to 1.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((state >> 32) as f64 + 1.0) / (1_u64 << 32) as f64;
        due += Duration::from_secs_f64(-uniform.ln() / per_second);
        sleep(due.saturating_sub(began.elapsed()));
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_millis() as i64;
        let record = BaseRecord::to(&topic).key(&embryo_id).payload(&event).timestamp(now);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        producer.poll(Duration::ZERO);
        sent.insert(embryo_id, now);
    }
    producer.flush(PATIENCE).expect("the frames are confirmed");
    sent
}

/// Between the time stamps of frame and grade event.
fn ages_ms(stream: &Stream<'_>, sent: &HashMap<String, i64>) -> Vec<f64> {
    let mut client = stream.kafka.client();
    let consumer: BaseConsumer = client.set("group.id", "ages").create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in (0..).take(PARTITIONS) {
        all.add_partition_offset(&stream.grades(), partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("an assignment");
    let (deadline, mut ages) = (Instant::now() + PATIENCE, Vec::new());
    while ages.len() < sent.len() {
        assert!(Instant::now() < deadline, "{} grade events of {}", ages.len(), sent.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("a message");
        let event: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let published = message.timestamp().to_millis().expect("a time stamp");
        ages.extend(
            sent.get(event["embryo_id"].as_str().expect("an embryo")).map(|at| (published - at) as f64),
        );
    }
    ages
}

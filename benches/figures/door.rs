//! What it costs to say no, Kafka not counted: the door of the pipeline on a frame that is not wanted, beside copying the
//! message once; and whether that grows with the embryos that are remembered.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use memebg::config::{Config, Layers};
use memebg::domain::FRAME_EVENT_TYPE;
use memebg::pipeline::intake::Intake;
use memebg::pipeline::message::{MessageView, Position};
use memebg::pipeline::receipt::SharedLedger;
use memebg::pipeline::select::Selector;
use memebg::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::Bench;
use crate::feed::{Message, skipped};
use crate::table::Table;

const IMAGE_BYTES: usize = 45_000;

pub fn measure(bench: &Bench, table: &mut Table) {
    let config = Config::load(&Layers::default(), []).expect("the defaults");
    let metrics = Metrics::new(&[]).expect("metrics");
    let ledger = SharedLedger::new(config.flow.clone(), metrics.clone(), CancellationToken::new());
    let selector = Arc::new(Mutex::new(Selector::new(config.select.clone())));
    let (admit, admitted) = tokio::sync::mpsc::channel(1);
    let intake = Intake::new(
        ledger,
        selector,
        config.select,
        config.kafka.max_value_bytes,
        admit,
        metrics.clone(),
        memebg::telemetry::traces::Traces::default(),
    );
    let frames: Vec<Message> = skipped(700, IMAGE_BYTES, 96).collect();
    let messages = bench.pick(100, 1);
    let (mut ours, mut copies, mut offset) = (Vec::new(), Vec::new(), 0);
    for _ in 0..bench.pick(200, 1) {
        ours.push(microseconds(&frames, messages, |frame| {
            intake.receive(&view(frame, offset));
            offset += 1;
        }));
        copies.push(microseconds(&frames, messages, |frame| drop(black_box(view(frame, 0).to_raw()))));
    }
    assert!(admitted.is_empty() && metrics.totals().skipped.values().sum::<u64>() > 0, "all are skipped");
    table.beside("saying no to a frame of 60 kB", "µs", &ours, "one copy of it", &copies);
}

fn view((key, value): &Message, offset: i64) -> MessageView<'_> {
    MessageView {
        topic: "incubator.frames.v1",
        position: Position { partition: 0, offset },
        key: Some(key.as_bytes()),
        value: Some(value),
        headers: vec![("ce_specversion", Some(b"1.0")), ("ce_type", Some(FRAME_EVENT_TYPE.as_bytes()))],
        timestamp_ms: Some(0),
    }
}

/// Microseconds per message.
fn microseconds(frames: &[Message], messages: usize, mut work: impl FnMut(&Message)) -> f64 {
    let began = Instant::now();
    frames.iter().cycle().take(messages).for_each(|frame| work(black_box(frame)));
    began.elapsed().as_secs_f64() * 1e6 / messages as f64
}

//! What it costs to say no: the door of the pipeline on a frame that is not wanted, beside copying the
//! message once, in turn within one run. Most frames of an incubator are not wanted.
//! `cargo bench --bench skip`

use std::hint::black_box;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use memebg::config::{Config, Layers};
use memebg::pipeline::intake::Intake;
use memebg::pipeline::message::{MessageView, Position};
use memebg::pipeline::receipt::SharedLedger;
use memebg::pipeline::select::Selector;
use memebg::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

mod turns;

/// Base64 of a photograph of 45 kB, as 500 px JPEGs often are.
const IMAGE_TEXT_BYTES: usize = 60_000;
const ROUNDS: usize = 20_000;

fn main() -> Result<()> {
    let config = Config::load(&Layers::default(), [])?;
    let metrics = Metrics::new(&[])?;
    let ledger = SharedLedger::new(config.flow.clone(), metrics.clone(), CancellationToken::new());
    let selector = Arc::new(Mutex::new(Selector::new(config.select.clone())));
    let (admit, admitted) = tokio::sync::mpsc::channel(1);
    let bytes = config.kafka.max_value_bytes;
    let intake = Intake::new(ledger, selector, config.select, bytes, admit, metrics.clone());

    let event = event();
    let message = |offset| MessageView {
        topic: "incubator.frames.v1",
        position: Position { partition: 0, offset },
        key: Some(b"D2026.01.31_S00001_I0001_P-2"),
        value: Some(event.as_bytes()),
        headers: vec![
            ("ce_specversion", Some(b"1.0".as_slice())),
            ("ce_type", Some(memebg::domain::FRAME_EVENT_TYPE.as_bytes())),
        ],
        timestamp_ms: Some(0),
    };
    let mut offset = 0;
    let (door, copy) = turns::take(
        ROUNDS,
        || {
            offset += 1;
            intake.receive(black_box(&message(offset)));
        },
        || drop(black_box(message(0).to_raw())),
    );
    println!("{ROUNDS} rounds in turn, one frame event of {} bytes", event.len());
    let door = turns::report("memebg: read, validate, decide, settle, count", &door)?;
    let copy = turns::report("one copy of the message", &copy)?;
    println!("saying no takes {:.2} times a copy", door.as_secs_f64() / copy.as_secs_f64());
    let skipped: u64 = metrics.totals().skipped.values().sum();
    anyhow::ensure!(skipped > 0 && admitted.is_empty(), "a frame was not skipped");
    Ok(())
}

/// A day-3 frame.
fn event() -> String {
    let image = "QUJD".repeat(IMAGE_TEXT_BYTES / 4);
    let sha256 = "0".repeat(64);
    format!(
        r#"{{"site_id":"site-1","instrument":{{"vendor":"memebg","model":"synthetic","serial":"1"}},
        "slide_id":"S00001","well":2,"embryo_id":"D2026.01.31_S00001_I0001_P-2","run":200,
        "focal_plane_index":1,"focal_offset_um":-15.0,"focal_plane_count":7,
        "captured_at":"2026-02-03T08:30:00Z","insemination_time":"2026-01-31T08:30:00Z",
        "insemination_method":"ICSI","time_zero_source":"incubator","image":{{"data":"{image}",
        "sha256":"{sha256}","media_type":"image/jpeg","bytes":45000,"width":500,"height":500}}}}"#
    )
}

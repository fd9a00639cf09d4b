//! The streaming pipeline that grades human blastocysts as time-lapse incubators photograph them.
//!
//! ```text
//! incubators ─▶ Kafka ─▶ intake ─▶ decode ─▶ focus ─▶ batch ─▶ grade ─▶ publish ─▶ Kafka ─▶ EMR
//!                          │ skip    │ reject   │ abstain           │ reject
//!                          ▼ counted ▼ dead letter                  ▼ dead letter
//! ```
//!
//! # The route of one frame
//! 1. The poll thread ([`kafka::source`]) hands the message, still borrowed from the consumer, to the
//!    door ([`pipeline::intake`]), where the ledger opens a receipt.
//! 2. A frame that is not wanted ([`pipeline::select`]) is settled there; its image is never touched.
//! 3. The image is fetched or decoded from base64, verified and scaled on a pool of threads
//!    ([`pipeline::decode`]); one of poor quality becomes an abstained grade event.
//! 4. The planes of a run may wait for each other ([`pipeline::focus`]), then a batch is closed for an
//!    idle grader ([`pipeline::batch`]).
//! 5. The grader ([`pipeline::grade`], [`model`]) runs both models.
//! 6. The grade event, or the dead letter, is published ([`pipeline::publish`], [`kafka::sink`]), and
//!    only when the broker has confirmed it is the receipt settled.
//! 7. Watermarks of settled frames are committed every second, and before a partition is given back.
//!
//! # The delivery guarantee
//! At least once. The watermark of a partition never passes a frame that is not settled, so whatever
//! ends the process, the frame is read again; and its grade has the same deterministic id
//! ([`domain::GradeId`]), so a consumer that upserts sees it once.
//!
//! Exactly once, if asked for ([`kafka::Delivery`]): step 6 puts the event into an outbox
//! ([`pipeline::outbox`]), and step 7 publishes what nothing open lies before, together with its offsets,
//! in one transaction.

pub mod adapter;
pub mod board;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod emr;
pub mod fhir;
pub mod glyph;
pub mod heatmap;
pub mod incubator;
pub mod kafka;
pub mod model;
pub mod pipeline;
pub mod random;
pub mod report;
pub mod service;
pub mod summaries;
pub mod telemetry;
pub mod training;

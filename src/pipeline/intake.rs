//! The door of the pipeline, on the poll thread: opens a receipt, reads the event, decides.
//!
//! It works on the message while the consumer still owns it, so that a frame that is not wanted
//! costs a scan of its JSON and nothing else: no copy, no base64, no hand-over to another thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::Utc;
use tokio::sync::mpsc;

use super::event::{self, Incoming};
use super::message::{MessageView, RawMessage};
use super::publish::traceparent_of;
use super::receipt::{Envelope, Outcome, SharedLedger};
use super::select::{Decision, SelectSettings, Selector};
use crate::domain::{Frame, Rejection, RejectionCode, SkipReason};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{FrameTrace, Traces};

/// A message that goes on: its original, and the frame it describes or why it is refused.
#[derive(Debug)]
pub struct Admitted {
    /// The original message.
    pub raw: RawMessage,
    /// What it says.
    pub frame: Result<Wanted, Rejection>,
    /// Its span.
    pub trace: FrameTrace,
}

/// A frame that is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// The frame.
    pub frame: Frame,
    /// Whether only the sharpest plane of its run is to be graded.
    pub candidate: bool,
}

/// The door. One per source.
pub struct Intake {
    ledger: SharedLedger,
    selector: Arc<Mutex<Selector>>,
    settings: SelectSettings,
    max_value_bytes: usize,
    admitted: mpsc::Sender<Envelope<Admitted>>,
    metrics: Metrics,
    traces: Traces,
}

impl Intake {
    /// A door that hands what is wanted, and what must be refused, to `admitted`.
    #[must_use]
    pub fn new(
        ledger: SharedLedger,
        selector: Arc<Mutex<Selector>>,
        settings: SelectSettings,
        max_value_bytes: usize,
        admitted: mpsc::Sender<Envelope<Admitted>>,
        metrics: Metrics,
        traces: Traces,
    ) -> Self {
        Self { ledger, selector, settings, max_value_bytes, admitted, metrics, traces }
    }

    /// Takes one message. Must not be called on a runtime thread: it may block for a moment while
    /// the pipeline makes room.
    pub fn receive(&self, message: &MessageView<'_>) {
        let received_at = Instant::now();
        let receipt = self.ledger.open(message.position, message.size_bytes());
        let mut scratch = Vec::new();
        let (site, decided) = match event::read(message, self.max_value_bytes, &mut scratch) {
            Err(rejection) => (None, Err(rejection)),
            Ok(Incoming { event, .. }) => {
                let decided = self.decide(&event, receipt.partition(), receipt.epoch());
                // Not of an event that is refused: anybody could fill the few labels there are.
                if decided.is_ok() {
                    self.metrics.instrument_frame(&event.instrument.vendor, &event.instrument.model);
                }
                (Some(event.site_id), decided)
            }
        };
        self.metrics.frame_received(site.as_deref().unwrap_or_default());
        let frame = match decided {
            Ok(Decided::Skip(reason)) => {
                receipt.settle(Outcome::Skipped(reason));
                self.metrics.stage_seconds("select", received_at.elapsed());
                return;
            }
            Ok(Decided::Wanted(wanted)) => Ok(*wanted),
            Err(rejection) => Err(rejection),
        };
        self.metrics.stage_seconds("select", received_at.elapsed());
        let raw = message.to_raw();
        let at = (receipt.partition(), receipt.offset());
        let trace = self.traces.frame(traceparent_of(&raw), &raw.topic, at, received_at);
        let envelope = Envelope { body: Admitted { raw, frame, trace }, receipt, received_at };
        // When the pipeline has gone, the receipt is dropped unsettled, which stops the service.
        drop(self.admitted.blocking_send(envelope));
    }

    fn decide(
        &self,
        event: &crate::domain::FrameEvent<'_>,
        partition: i32,
        epoch: u64,
    ) -> Result<Decided, Rejection> {
        let clocks = event.validate(Utc::now(), i64::from(self.settings.clock_tolerance_seconds))?;
        let mut selector = self.selector.lock().unwrap_or_else(PoisonError::into_inner);
        if !selector.knows_site(&event.site_id) {
            return Err(Rejection::new(
                RejectionCode::UnknownSite,
                format!("site {:?} is not one of the configured sites", event.site_id),
            ));
        }
        let candidate = match selector.decide(event, &clocks, partition, epoch) {
            Decision::Skip(reason) => return Ok(Decided::Skip(reason)),
            Decision::Keep => false,
            Decision::Candidate => true,
        };
        Ok(Decided::Wanted(Box::new(Wanted { frame: event.to_frame(clocks), candidate })))
    }
}

enum Decided {
    Skip(SkipReason),
    Wanted(Box<Wanted>),
}

//! The live view of the demo: grades as they come, and one line on how it goes.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::domain::{GradeEvent, GradeStatus, Truth, gardner};
use crate::telemetry::metrics::{Metrics, Totals};

/// Without a terminal, how often the status line is printed.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Prints grades and a status line; prints nothing when silent.
pub(super) struct View {
    bar: Option<ProgressBar>,
    terminal: bool,
    metrics: Metrics,
    last: (Instant, Totals),
}

impl View {
    pub(super) fn new(metrics: Metrics, silent: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = (!silent).then(ProgressBar::new_spinner);
        if let Some(bar) = bar.as_ref().filter(|_| terminal) {
            bar.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, terminal, last: (Instant::now(), metrics.totals()), metrics }
    }

    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) if self.terminal => bar.println(line),
            Some(_) => println!("{line}"),
            None => {}
        }
    }

    pub(super) fn grade(&self, event: &GradeEvent, truth: Option<Truth>) {
        let verdict = match (event.status, &event.gardner) {
            (GradeStatus::Graded, Some(gardner)) => gardner.clone(),
            _ => {
                let reasons: Vec<&str> = event.reasons.iter().map(|reason| reason.as_str()).collect();
                format!("abstained: {}", reasons.join(", "))
            }
        };
        let confidence = event
            .heads
            .as_ref()
            .map(|heads| format!("confidence {:.2}", heads.confidence()))
            .unwrap_or_default();
        let untrained = if event.model.untrained { "  UNTRAINED" } else { "" };
        self.say(&format!(
            "{:<28} well {:<2} {:>6.1} hpi   {verdict:<4} {confidence}{}{untrained}",
            event.embryo_id,
            event.well,
            event.hpi,
            truth.map(|truth| format!("  (is {})", shown(&truth))).unwrap_or_default()
        ));
    }

    /// Refreshes the status line.
    pub(super) fn tick(&mut self) {
        let Some(bar) = &self.bar else { return };
        let (since, before) = &self.last;
        let seconds = since.elapsed().as_secs_f64();
        // On a terminal every second; otherwise every line is a line of output.
        if since.elapsed() < if self.terminal { Duration::from_secs(1) } else { STATUS_EVERY } {
            return;
        }
        let now = self.metrics.totals();
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 frames")]
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let status = format!(
            "{:.0} frames/s  {:.1} grades/s  batch {:.1}  skipped {}  dead letters {}  in flight {}  lag {}",
            rate(now.received, before.received),
            rate(now.graded, before.graded),
            self.metrics.mean_batch_frames(),
            by_reason(&now),
            now.dead_lettered,
            now.in_flight,
            self.metrics.consumer_lag(),
        );
        self.last = (Instant::now(), now);
        if self.terminal {
            bar.set_message(status);
        } else {
            println!("-- {status}");
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What the photograph really shows: a Gardner string, or the stage before there is one.
fn shown(truth: &Truth) -> String {
    match truth.exp {
        Some(exp) => gardner(exp, truth.icm, truth.te),
        None => format!("{:?}", truth.stage).to_lowercase(),
    }
}

fn by_reason(totals: &Totals) -> String {
    let mut reasons: BTreeMap<&str, u64> =
        totals.skipped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    reasons.insert("duplicate", totals.duplicate);
    let shown: Vec<String> = reasons
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if shown.is_empty() { "0".into() } else { shown.join(", ") }
}

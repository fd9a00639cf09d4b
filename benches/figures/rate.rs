//! How fast something gets on.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Nothing that is measured takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(1_800);
/// How often the beginning is looked for.
const LOOK_FOR_THE_FIRST: Duration = Duration::from_millis(5);

/// How far it is, and when that was so, in seconds since any moment.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Frames that were received.
    pub received: u64,
    /// Frames that are done with.
    pub done: u64,
    pub seconds: f64,
}

/// Says one round of it at once: a part that is broken off has not been for nothing.
pub fn said(what: &str, frames_per_second: f64) -> f64 {
    eprintln!("    {what}: {frames_per_second:.1} frames/s");
    frames_per_second
}

/// Frames per second, from the first one that is received until `frames` or more are done with: without start-up. Looks
/// `every` so often whether they are, which must not be too often: it takes its time from what it looks at.
pub fn rate(frames: u64, every: Duration, mut look: impl FnMut() -> Option<Progress>) -> f64 {
    let deadline = Instant::now() + PATIENCE;
    let mut began: Option<Progress> = None;
    loop {
        let seen = look();
        if let Some(seen) = seen.filter(|seen| seen.received > 0) {
            let began = *began.get_or_insert(seen);
            if seen.done >= frames {
                return (seen.done - began.done) as f64 / (seen.seconds - began.seconds);
            }
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {seen:?} of {frames}");
        sleep(if began.is_some() { every } else { LOOK_FOR_THE_FIRST });
    }
}

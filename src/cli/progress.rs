//! Progress bars on the terminal, with the time that is left.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts `what`, or none when nobody wants to see it.
pub(super) fn bar(what: &str, quiet: bool) -> anyhow::Result<ProgressBar> {
    if quiet {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left"))?;
    Ok(ProgressBar::new(0).with_style(style))
}

/// Shows that `done` of `of` are done; the last one takes the bar away.
pub(super) fn counted(bar: &ProgressBar, done: usize, of: usize) {
    bar.set_length(of as u64);
    bar.set_position(done as u64);
    if done == of {
        bar.finish_and_clear();
    }
}

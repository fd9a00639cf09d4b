//! `memebg serve`.

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::service::Service;
use crate::telemetry::metrics::Totals;

pub(super) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(service) = Service::start_unless(&stop, config, stop.clone()).await? else {
        last_word(&Totals::default());
        return Ok(());
    };
    let metrics = service.metrics.clone();
    let end = service.run().await?;
    if end.unfinished_frames > 0 {
        tracing::warn!(end.unfinished_frames, "drain deadline passed; these frames are read again");
    }
    last_word(&metrics.totals());
    Ok(())
}

/// What became of everything that was received.
fn last_word(totals: &Totals) {
    tracing::info!(
        received = totals.received,
        graded = totals.graded,
        abstained = totals.abstained,
        skipped = totals.skipped.values().sum::<u64>(),
        duplicate = totals.duplicate,
        dead_lettered = totals.dead_lettered,
        in_flight = totals.in_flight,
        "stopped"
    );
}

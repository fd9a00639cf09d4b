//! Whether anybody takes traces, where they are sent.

use std::time::Duration;

use super::{Check, shown, within};
use crate::telemetry::traces::reach;

/// Nothing where there is no endpoint. Never a failure: without a collector spans are lost, and no frame.
pub(super) async fn check(endpoint: &str, timeout: Duration) -> Option<Check> {
    const NAME: &str = "telemetry.traces.endpoint";
    if endpoint.is_empty() {
        return None;
    }
    let (place, own) = (shown(endpoint), endpoint.to_owned());
    let reached = within(timeout, move || reach(&own)).await.unwrap_or_else(Err);
    Some(match reached {
        Ok(()) => Check::ok(NAME, format!("{place} takes OTLP over HTTP; a request without a span was sent")),
        Err(reason) => Check::warn(
            NAME,
            format!("{place} takes no traces: {reason}; frames are graded all the same"),
            "check that a collector with OTLP over HTTP runs there, its path (usually /v1/traces), and \
             OTEL_EXPORTER_OTLP_HEADERS where it wants credentials; an empty telemetry.traces.endpoint sends none",
        ),
    })
}

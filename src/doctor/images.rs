//! Whether images can be read from every place of `fetch.allowed_uri_prefixes`.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Check, Fault, clocks, shown};
use crate::config::Config;
use crate::pipeline::fetch::{Unreadable, probe};

/// One check per place, and one of the servers' clocks where a server told it.
pub(super) async fn check(config: &Config, timeout: Duration) -> (Vec<Check>, Option<Check>) {
    let prefixes = &config.fetch.allowed_uri_prefixes;
    if prefixes.is_empty() {
        let found = "no place is listed in fetch.allowed_uri_prefixes: only inline images are accepted";
        return (vec![Check::skipped("images", found)], None);
    }
    let probed = join_all(prefixes.iter().map(|prefix| probe(prefix, timeout))).await;
    let mut ahead = Vec::new();
    let places = prefixes.iter().zip(probed).enumerate();
    let checks = places.map(|(index, (prefix, probed))| {
        let name = format!("images.{index}");
        let place = shown(prefix);
        match probed {
            Ok(readable) => {
                ahead.extend(readable.clock_ahead.map(|ahead| (name.clone(), ahead)));
                Check::ok(name, format!("{place} {}", readable.how))
            }
            Err(Unreadable::Setup(reason)) => Check::fail(
                name,
                format!("{place}: {reason}"),
                "mend this entry of fetch.allowed_uri_prefixes, or mount what it names; the service does not start",
            )
            .because_of(Fault::Configuration),
            Err(Unreadable::Refused(reason)) => Check::fail(
                name,
                format!("{place} is unreadable: {reason}"),
                "check the permissions of the directory, or the store's credentials in the environment; a store that \
                 may be read and not listed answers 403 for what is not there, so also grant listing",
            ),
            Err(Unreadable::Unreachable(reason)) => Check::fail(
                name,
                format!("{place} cannot be reached: {reason}"),
                "check that the server runs and that this machine reaches it (name, port, firewall, proxy); frames \
                 whose images lie there become dead letters, to be replayed with --code image_unreachable",
            )
            .because_of(Fault::Unreachable),
        }
    });
    let checks = checks.collect();
    let clock = clocks::of_servers(&ahead, config.select.clock_tolerance_seconds);
    (checks, clock)
}

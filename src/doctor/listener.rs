//! Whether the address of metrics and probes is free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Check;
use crate::telemetry::http::TelemetryServer;

const NAME: &str = "telemetry.listen";
/// Loopback answers at once.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn check(listen: &str) -> Check {
    let error = match TelemetryServer::bind(listen).await {
        Ok(server) if listen.ends_with(":0") => {
            return Check::ok(NAME, format!("a free port is taken, {} this time", server.address()));
        }
        Ok(server) => return Check::ok(NAME, format!("{} is free", server.address())),
        Err(error) => error,
    };
    match is_memebg(listen).await {
        Some(true) => Check::warn(
            NAME,
            format!("{listen} is in use by a running memebg"),
            "nothing to do if that is the service; a second one on this machine needs another telemetry.listen",
        ),
        Some(false) => Check::fail(
            NAME,
            format!("{listen} is in use by another program"),
            "set telemetry.listen to a free address:port, or end that program (`ss -ltnp` names it)",
        ),
        None => Check::fail(
            NAME,
            error.to_string(),
            "set telemetry.listen to a free address:port of this machine",
        ),
    }
}

/// Whether it is a memebg that listens there; `None` when nobody does.
async fn is_memebg(listen: &str) -> Option<bool> {
    let mut address: SocketAddr = tokio::net::lookup_host(listen).await.ok()?.next()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    tokio::time::timeout(TIMEOUT, tokio::net::TcpStream::connect(address)).await.ok()?.ok()?;
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().ok()?;
    let asked = async { client.get(format!("http://{address}/metrics")).send().await?.text().await };
    Some(asked.await.is_ok_and(|metrics| metrics.contains("memebg_build_info")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[tokio::test]
    async fn a_free_address_is_told_from_one_that_is_taken_or_not_ours() {
        assert_eq!(check("127.0.0.1:0").await.status, Status::Ok);
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let check_taken = check(&listen).await;
        assert!(check_taken.found.contains("another program"), "{check_taken:?}");
        drop(taken);
        assert_eq!(check(&listen).await.found, format!("{listen} is free"));
        let foreign = check("192.0.2.1:9464").await;
        assert!(foreign.status.as_str() == "fail" && foreign.found.contains("192.0.2.1"), "{foreign:?}");
    }
}

//! Whether an address to listen on is free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Check;
use crate::telemetry::http::TelemetryServer;

/// Loopback answers at once.
const TIMEOUT: Duration = Duration::from_secs(2);

/// An address, and how one of ours is told that listens there.
pub(super) struct Listener<'a> {
    /// Option that names the address.
    pub(super) name: &'static str,
    pub(super) listen: &'a str,
    /// What is asked for.
    pub(super) path: &'static str,
    /// What is in the answer of one of ours.
    pub(super) marks: &'static [&'static str],
    /// What is to be done where one of ours listens.
    pub(super) advice: &'static str,
}

/// The address of metrics and probes.
pub(super) async fn telemetry(listen: &str) -> Check {
    let bound = TelemetryServer::bind(listen).await.map(|server| server.address());
    let listener = Listener {
        name: "telemetry.listen",
        listen,
        path: "/metrics",
        marks: &["memebg_build_info"],
        advice: "nothing to do if that is the service; a second one on this machine needs another telemetry.listen",
    };
    check(&listener, bound.map_err(|error| error.to_string())).await
}

/// `bound` is the address that was taken and given back, or why it could not be.
pub(super) async fn check(listener: &Listener<'_>, bound: Result<SocketAddr, String>) -> Check {
    let Listener { name, listen, advice, .. } = listener;
    let error = match bound {
        Ok(address) if listen.ends_with(":0") => {
            return Check::ok(*name, format!("a free port is taken, {address} this time"));
        }
        Ok(address) => return Check::ok(*name, format!("{address} is free")),
        Err(error) => error,
    };
    match is_ours(listener).await {
        Some(true) => Check::warn(*name, format!("{listen} is in use by a running memebg"), *advice),
        Some(false) => Check::fail(
            *name,
            format!("{listen} is in use by another program"),
            format!("set {name} to a free address:port, or end that program (`ss -ltnp` names it)"),
        ),
        None => Check::fail(*name, error, format!("set {name} to a free address:port of this machine")),
    }
}

/// Whether it is a memebg that listens there; `None` when nobody does.
async fn is_ours(listener: &Listener<'_>) -> Option<bool> {
    let mut address: SocketAddr = tokio::net::lookup_host(listener.listen).await.ok()?.next()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    tokio::time::timeout(TIMEOUT, tokio::net::TcpStream::connect(address)).await.ok()?.ok()?;
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().ok()?;
    let url = format!("http://{address}{}", listener.path);
    let asked = async { client.get(url).send().await?.text().await };
    Some(asked.await.is_ok_and(|text| listener.marks.iter().any(|mark| text.contains(mark))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[tokio::test]
    async fn a_free_address_is_told_from_one_that_is_taken_or_not_ours() {
        assert_eq!(telemetry("127.0.0.1:0").await.status, Status::Ok);
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let check_taken = telemetry(&listen).await;
        assert!(check_taken.found.contains("another program"), "{check_taken:?}");
        drop(taken);
        assert_eq!(telemetry(&listen).await.found, format!("{listen} is free"));
        let foreign = telemetry("192.0.2.1:9464").await;
        assert!(foreign.status.as_str() == "fail" && foreign.found.contains("192.0.2.1"), "{foreign:?}");
    }
}

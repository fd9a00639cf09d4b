//! Connections to web servers that lead only where the allow-list says.
//!
//! A name in the allow-list is somebody else's to point: at this machine, or at the service by which a
//! cloud hands a machine its credentials. Such an address counts only where the allow-list names it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Where one cloud hands out credentials over IPv6; the others do it at a link-local address.
const UNIQUE_LOCAL_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// The addresses behind a host name.
pub(super) type Lookup = fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;

/// Asks the system.
pub(super) fn system(name: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
}

/// Connects without following redirects: a redirect would lead wherever the server likes, inside the
/// network of the laboratory too. The APIs of the cloud stores redirect between their own regions and
/// keep the usual client.
#[derive(Debug)]
pub(super) struct Connector {
    /// The host of the allow-list.
    pub(super) host: String,
    pub(super) https_only: bool,
    pub(super) lookup: Lookup,
}

/// The server wants to send us elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("redirect refused")]
pub(super) struct Redirected;

/// The name of the server leads to this machine or to its cloud's credentials.
#[derive(Debug, thiserror::Error)]
#[error("all addresses of the host are loopback or link-local")]
pub(super) struct Inward;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let resolver = Outward { host: self.host.clone(), lookup: self.lookup };
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::custom(|attempt| attempt.error(Redirected)))
            .https_only(self.https_only)
            .dns_resolver(Arc::new(resolver))
            .build()
            .map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}

/// Leaves out of what a name resolves to whatever the operator cannot have meant.
struct Outward {
    host: String,
    lookup: Lookup,
}

impl Resolve for Outward {
    fn resolve(&self, name: Name) -> Resolving {
        // Other names are those of the operator's proxies. `localhost` says itself what it is.
        let checked = name.as_str() == self.host && self.host != "localhost";
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let mut found = found.await?;
            let any = !found.is_empty();
            found.retain(|address| !checked || !is_inward(address.ip()));
            if any && found.is_empty() {
                return Err(Inward.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Private networks are not inward: that is where a laboratory's image server is.
fn is_inward(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_link_local() || address.octets()[0] == 0 || is_group(address)
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address == UNIQUE_LOCAL_METADATA
        }
    }
}

fn is_group(address: Ipv4Addr) -> bool {
    address.is_multicast() || address.is_broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_clouds_credentials_are_inward_and_a_private_network_is_not() {
        for inward in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(is_inward(inward.parse().unwrap()), "{inward}");
        }
        for outward in ["10.1.2.3", "172.16.0.9", "192.168.1.4", "8.8.8.8", "fd12:3456::7", "2001:db8::1"] {
            assert!(!is_inward(outward.parse().unwrap()), "{outward}");
        }
    }

    #[tokio::test]
    async fn of_several_addresses_the_outward_ones_are_used_and_a_proxys_name_is_not_looked_at() {
        let lookup: Lookup = |_| {
            let found =
                ["169.254.169.254", "10.1.2.3", "::1"].map(|ip| (ip.parse::<IpAddr>().unwrap(), 0).into());
            Box::pin(async move { Ok(found.to_vec()) })
        };
        let resolver = Outward { host: "images.example".to_owned(), lookup };
        let resolve = async |name: &str| {
            let found = resolver.resolve(name.parse().unwrap()).await.unwrap();
            found.map(|address| address.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(resolve("images.example").await, ["10.1.2.3"]);
        assert_eq!(resolve("proxy.example").await.len(), 3);
    }
}

//! Options of `memebg emr`, checked.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::fhir::FhirVersion;

/// Options of `memebg emr`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmrSettings {
    /// Release of FHIR.
    pub version: FhirVersion,
    /// Base URL of a FHIR server; empty: none.
    pub server: String,
    /// Topic of bundles; empty: none.
    pub topic: String,
    /// Consumer group. Empty: `kafka.group_id` and `-emr`.
    pub group_id: String,
    /// File with a bearer token; empty: none.
    pub token_file: PathBuf,
    /// PEM file with the certificate authorities of the server; empty: those of the system.
    pub ca_file: PathBuf,
    /// Whether a server that is not on this machine may be spoken to without TLS.
    pub allow_http: bool,
    /// One attempt may take this long.
    pub timeout_ms: u64,
    /// Embryos that are sent at a time.
    pub max_concurrent: usize,
    /// Wait after the first failed attempt; doubles with each further one.
    pub backoff_ms: u64,
    /// Longest wait between two attempts.
    pub max_backoff_ms: u64,
}

impl EmrSettings {
    /// The consumer group.
    #[must_use]
    pub fn group(&self, service_group: &str) -> String {
        if self.group_id.is_empty() { format!("{service_group}-emr") } else { self.group_id.clone() }
    }

    /// The server's base URL; `None` where bundles go to no server.
    ///
    /// # Errors
    /// When it is no URL that bundles may be sent to.
    pub fn server_url(&self) -> Result<Option<Url>, String> {
        if self.server.is_empty() {
            return Ok(None);
        }
        // The URL is not repeated: somebody may have written a password into it.
        let url = Url::parse(&self.server).map_err(|error| format!("emr.server is not a URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("emr.server has a user in it; put a token into emr.token_file".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("emr.server has a query or a fragment; give the base URL alone".into());
        }
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http || is_loopback(&url) => {}
            "http" => {
                return Err(
                    "emr.server is not on this machine and has no TLS: use https, or set emr.allow_http \
                            where the network is safe"
                        .into(),
                );
            }
            _ => return Err("emr.server is neither https nor http".into()),
        }
        Ok(Some(url))
    }

    /// Checks what can be checked without a cluster and a server. `others` are topics with the names of their options.
    ///
    /// # Errors
    /// The option that cannot be used.
    pub fn validate(&self, service_group: &str, others: &[(&str, &str)]) -> Result<(), String> {
        self.server_url()?;
        if self.group(service_group) == service_group {
            return Err("emr.group_id is kafka.group_id; the two read different topics".into());
        }
        if let Some((option, _)) = others.iter().find(|(_, topic)| *topic == self.topic) {
            return Err(format!("emr.topic {:?} is {option}", self.topic));
        }
        for (option, value) in [("emr.timeout_ms", self.timeout_ms), ("emr.backoff_ms", self.backoff_ms)] {
            if value == 0 {
                return Err(format!("{option} must be above 0"));
            }
        }
        if self.max_backoff_ms < self.backoff_ms {
            return Err("emr.max_backoff_ms is below emr.backoff_ms".into());
        }
        if !(1..=64).contains(&self.max_concurrent) {
            return Err(format!("emr.max_concurrent {} is not within 1 and 64", self.max_concurrent));
        }
        Ok(())
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str) -> EmrSettings {
        EmrSettings {
            version: FhirVersion::R4,
            server: server.into(),
            topic: String::new(),
            group_id: String::new(),
            token_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            allow_http: false,
            timeout_ms: 1,
            max_concurrent: 1,
            backoff_ms: 1,
            max_backoff_ms: 1,
        }
    }

    #[test]
    fn without_tls_only_this_machine_is_spoken_to_unless_that_is_allowed() {
        for fine in
            ["", "https://emr.example/fhir", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"]
        {
            assert!(settings(fine).server_url().is_ok(), "{fine}");
        }
        let far = settings("http://emr.example/fhir");
        assert!(far.server_url().unwrap_err().contains("emr.allow_http"));
        assert!(EmrSettings { allow_http: true, ..far }.server_url().is_ok());
    }

    #[test]
    fn a_url_that_is_none_or_has_a_secret_in_it_is_refused_and_not_repeated() {
        for wrong in
            ["emr", "ftp://emr/", "https://me:hidden@emr/", "https://emr/?a=hidden", "https://emr/#x"]
        {
            let why = settings(wrong).server_url().unwrap_err();
            assert!(why.starts_with("emr.server") && !why.contains("hidden"), "{why}");
        }
    }

    #[test]
    fn other_options_that_cannot_be_are_named() {
        let fine = settings("");
        assert_eq!(fine.validate("memebg", &[("summaries.topic", "s")]), Ok(()));
        let why = |settings: EmrSettings| settings.validate("g", &[("summaries.topic", "s")]).unwrap_err();
        assert!(why(EmrSettings { group_id: "g".into(), ..fine.clone() }).contains("emr.group_id"));
        assert!(why(EmrSettings { topic: "s".into(), ..fine.clone() }).contains("summaries.topic"));
        assert!(why(EmrSettings { timeout_ms: 0, ..fine.clone() }).contains("emr.timeout_ms"));
        assert!(why(EmrSettings { backoff_ms: 2, ..fine.clone() }).contains("emr.max_backoff_ms"));
        assert!(why(EmrSettings { max_concurrent: 65, ..fine }).contains("emr.max_concurrent 65"));
    }
}

//! What `memebg emr` needs beside the cluster: somewhere to send bundles to.

use std::time::Duration;

use super::{Check, Fault, within};
use crate::emr::{Capabilities, EmrSettings, Server, Unusable};
use crate::fhir::FhirVersion;

const NAME: &str = "emr.server";

pub(super) async fn check(settings: &EmrSettings, timeout: Duration) -> Check {
    if settings.server.is_empty() {
        return nowhere(settings);
    }
    let own = settings.clone();
    // It reads files, which may lie on a disk that hangs.
    let server = match within(timeout, move || Server::new(&own)).await {
        Ok(Ok(Some(server))) => server,
        Ok(Ok(None)) => return nowhere(settings),
        Ok(Err(reason)) => return unusable(settings, Unusable::Setting(reason)),
        Err(reason) => {
            let advice = "look at the disk that emr.token_file and emr.ca_file lie on";
            return Check::fail(NAME, reason, advice);
        }
    };
    let late = |_| Err(Unusable::Unreachable(format!("no answer within {} s", timeout.as_secs())));
    match tokio::time::timeout(timeout, server.capabilities()).await.unwrap_or_else(late) {
        Ok(said) => of_capabilities(settings, &said),
        Err(reason) => unusable(settings, reason),
    }
}

fn nowhere(settings: &EmrSettings) -> Check {
    if !settings.topic.is_empty() {
        let topic = &settings.topic;
        return Check::skipped(NAME, format!("none is set: bundles go to topic {topic} (emr.topic) alone"));
    }
    Check::fail(
        NAME,
        "neither emr.server nor emr.topic is set: summaries would go nowhere",
        "set emr.server to the base URL of the FHIR server, emr.topic, or both; `memebg emr` does not start without",
    )
    .because_of(Fault::Configuration)
}

fn of_capabilities(settings: &EmrSettings, said: &Capabilities) -> Check {
    let Capabilities { fhir_version, transactions } = said;
    let (name, major) = match settings.version {
        FhirVersion::R4 => ("R4", "4."),
        FhirVersion::R5 => ("R5", "5."),
    };
    let found = format!("a FHIR server of version {fhir_version} answers");
    if !fhir_version.starts_with(major) {
        return Check::fail(
            NAME,
            format!("{found}, and emr.version is {name}"),
            "set emr.version to what the server speaks, R4 (4.x) or R5 (5.x), or emr.server to its base URL of that \
             version",
        );
    }
    if !transactions {
        return Check::warn(
            NAME,
            format!("{found}; it does not say that it does transactions"),
            "ask whoever runs it: every summary is one transaction, with conditional create and update",
        );
    }
    let token =
        if settings.token_file.as_os_str().is_empty() { "no token was shown" } else { "the token was shown" };
    // Many servers say this to anybody.
    let found =
        format!("{found} and does transactions; {token}, and only a summary would show what it allows");
    Check::ok(NAME, found)
}

fn unusable(settings: &EmrSettings, reason: Unusable) -> Check {
    match reason {
        Unusable::Setting(found) => {
            Check::fail(NAME, found, "mend that option or its file; `memebg emr` does not start without")
                .because_of(Fault::Configuration)
        }
        Unusable::Unreachable(found) => Check::fail(
            NAME,
            found,
            "check that the FHIR server runs and that this machine reaches it (name, port, firewall, proxy); summaries \
             wait meanwhile",
        )
        .because_of(Fault::Unreachable),
        Unusable::Untrusted(found) => Check::fail(
            NAME,
            format!("no TLS connection to the FHIR server: {found}"),
            "check emr.ca_file, which replaces the system's authorities, the server's certificate and its host name, and \
             that the port speaks TLS",
        ),
        Unusable::Denied(code) => {
            let advice = if settings.token_file.as_os_str().is_empty() {
                "name a file with a bearer token in emr.token_file"
            } else {
                "check that the token of emr.token_file has not expired and what its owner may do; a renewed one is read \
                 without a restart"
            };
            Check::fail(NAME, format!("the FHIR server does not let us in: it says {code}"), advice)
        }
        Unusable::Elsewhere(found) => Check::fail(
            NAME,
            found,
            "check that emr.server is the base URL of a FHIR server, below which metadata lies",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};
    use crate::doctor::Status;

    fn settings(set: &[&str]) -> EmrSettings {
        let set = set.iter().map(|it| (*it).to_owned()).collect();
        Config::load(&Layers { set, ..Layers::default() }, []).unwrap().emr
    }

    #[tokio::test]
    async fn without_a_server_a_topic_will_do_and_without_both_the_configuration_cannot_be_used() {
        let look = async |set: &[&str]| check(&settings(set), Duration::from_secs(30)).await;
        assert_eq!(look(&[]).await.status, Status::Fail(Fault::Configuration));
        assert_eq!(look(&["emr.topic=bundles"]).await.status, Status::Skipped);
    }

    #[test]
    fn another_release_is_a_failure_and_one_without_transactions_a_warning() {
        let judged = |version, fhir_version: &str, transactions| {
            let said = Capabilities { fhir_version: fhir_version.into(), transactions };
            of_capabilities(&settings(&[&format!("emr.version={version}")]), &said).status.as_str()
        };
        for (version, fine, other) in [("R4", "4.0.1", "5.0.0"), ("R5", "5.0.0", "4.0.1")] {
            assert_eq!(judged(version, fine, true), "ok");
            assert_eq!(judged(version, fine, false), "warn");
            for wrong in [other, "3.0.2", "", "40.1"] {
                assert_eq!(judged(version, wrong, true), "fail", "{wrong}");
            }
        }
    }
}

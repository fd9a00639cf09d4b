//! Whether a FHIR server is one, for `memebg doctor`: it is asked what it can, which changes nothing.

use std::error::Error;
use std::io;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::{Server, body, unreachable};

/// Most bytes of what a server says of itself. One that knows every resource says a megabyte or two.
const MAX_BYTES: usize = 16 << 20;

/// What a server says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Release of FHIR, e.g. `4.0.1`.
    pub fhir_version: String,
    /// Whether it says that it does transactions.
    pub transactions: bool,
}

/// Why that cannot be told. No text repeats the URL, the token or what the server has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// An option.
    Setting(String),
    /// Nothing answers, or says that it cannot now.
    Unreachable(String),
    /// It is not the one that its certificate should be of.
    Untrusted(String),
    /// It does not let us in.
    Denied(u16),
    /// Something else answers, or at another address.
    Elsewhere(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    resource_type: String,
    fhir_version: String,
    #[serde(default)]
    rest: Vec<Rest>,
}

#[derive(Deserialize)]
struct Rest {
    #[serde(default)]
    interaction: Vec<Interaction>,
}

#[derive(Deserialize)]
struct Interaction {
    code: String,
}

impl Server {
    /// Asks the server for its capability statement, as whoever posts to it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn capabilities(&self) -> Result<Capabilities, Unusable> {
        let mut headers = self.headers().map_err(Unusable::Setting)?;
        // What is sent has no body.
        remove(&mut headers);
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => drop(path.pop_if_empty().push("metadata")),
            Err(()) => return Err(Unusable::Setting("emr.server has no path".into())),
        }
        let sent = self.client.get(url).headers(headers).send().await;
        let response = sent.map_err(|error| away(&error))?;
        refuse(response.status())?;
        said(response).await
    }
}

fn remove(headers: &mut HeaderMap) {
    headers.remove(CONTENT_TYPE);
    headers.remove("prefer");
}

fn away(error: &reqwest::Error) -> Unusable {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if is_of_tls(error) {
            return Unusable::Untrusted(error.to_string());
        }
        cause = error.source();
    }
    Unusable::Unreachable(unreachable(error))
}

/// What rustls does not like comes as this kind of error, which may be wrapped in one of another kind.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| {
        error.kind() == io::ErrorKind::InvalidData || error.get_ref().is_some_and(|inner| is_of_tls(inner))
    })
}

fn refuse(status: StatusCode) -> Result<(), Unusable> {
    let code = status.as_u16();
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Err(Unusable::Denied(code))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Err(Unusable::Unreachable(format!("it says {code}")))
        }
        _ if status.is_server_error() => Err(Unusable::Unreachable(format!("it says {code}"))),
        _ if status.is_redirection() => {
            Err(Unusable::Elsewhere(format!("it says {code} and leads elsewhere, which is not followed")))
        }
        _ => Err(Unusable::Elsewhere(format!("it says {code} to whoever asks for its metadata"))),
    }
}

async fn said(response: Response) -> Result<Capabilities, Unusable> {
    let text = body(response, MAX_BYTES).await.map_err(|error| away(&error))?;
    let statement = serde_json::from_slice::<Statement>(&text).ok();
    let statement = statement.filter(|it| it.resource_type == "CapabilityStatement");
    let Some(Statement { fhir_version, rest, .. }) = statement else {
        return Err(Unusable::Elsewhere(
            "what answers is no FHIR server: it has no CapabilityStatement".into(),
        ));
    };
    // It is shown, and a stranger wrote it.
    let plain = |it: &char| it.is_ascii_alphanumeric() || ".-".contains(*it);
    let fhir_version = fhir_version.chars().filter(plain).take(20).collect();
    let mut interactions = rest.iter().flat_map(|rest| &rest.interaction);
    Ok(Capabilities { fhir_version, transactions: interactions.any(|it| it.code == "transaction") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_let_us_in_is_told_from_who_is_away_and_who_is_no_fhir_server() {
        let of = |code| refuse(StatusCode::from_u16(code).unwrap());
        assert_eq!(of(200), Ok(()));
        for denied in [401, 403, 407] {
            assert_eq!(of(denied), Err(Unusable::Denied(denied)));
        }
        for later in [408, 425, 429, 500, 503] {
            assert!(matches!(of(later), Err(Unusable::Unreachable(_))), "{later}");
        }
        for elsewhere in [301, 307, 400, 404, 405] {
            assert!(matches!(of(elsewhere), Err(Unusable::Elsewhere(_))), "{elsewhere}");
        }
    }
}

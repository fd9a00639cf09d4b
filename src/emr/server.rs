//! One attempt: a transaction posted to a FHIR server, and what its answer means.

pub mod capability;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use url::Url;

use super::EmrSettings;
use super::outcome::{Outcome, read};

/// Most bytes of an answer that are looked at. It names what was written, some 200 bytes for each.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server has it.
    Taken,
    /// Another attempt may succeed.
    Later {
        /// What to change if it never does.
        why: String,
        /// Not before this has passed.
        after: Option<Duration>,
    },
    /// Somebody else wrote at the same time; only if it goes on is it the bundle's fault.
    Conflict(String),
    /// The server will never take this one.
    Refused(String),
}

/// A FHIR server.
pub struct Server {
    client: Client,
    base: Url,
    media_type: &'static str,
    token_file: PathBuf,
}

impl Server {
    /// The server of `settings`; `None` where bundles go to none.
    ///
    /// # Errors
    /// The option that cannot be used.
    pub fn new(settings: &EmrSettings) -> Result<Option<Self>, String> {
        let Some(base) = settings.server_url()? else { return Ok(None) };
        let mut client = Client::builder()
            .timeout(Duration::from_millis(settings.timeout_ms))
            // It would lead the token and the grades wherever somebody likes.
            .redirect(redirect::Policy::none());
        if !settings.ca_file.as_os_str().is_empty() {
            let file = settings.ca_file.display();
            let pem = std::fs::read(&settings.ca_file)
                .map_err(|error| format!("cannot read {file} (emr.ca_file): {error}"))?;
            let authorities = Certificate::from_pem_bundle(&pem)
                .map_err(|error| format!("{file} (emr.ca_file) has no PEM certificates: {error}"))?;
            if authorities.is_empty() {
                return Err(format!("{file} (emr.ca_file) has no PEM certificates"));
            }
            client = client.tls_certs_only(authorities);
        }
        let client = client.build().map_err(|error| format!("no HTTP client: {error}"))?;
        let server = Self {
            client,
            base,
            media_type: settings.version.media_type(),
            token_file: settings.token_file.clone(),
        };
        server.headers()?;
        Ok(Some(server))
    }

    /// Read anew every time, so that a token can be renewed.
    fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(ACCEPT, HeaderValue::from_static(self.media_type));
        headers.insert("prefer", HeaderValue::from_static("return=minimal"));
        if !self.token_file.as_os_str().is_empty() {
            let file = self.token_file.display();
            let token = std::fs::read_to_string(&self.token_file)
                .map_err(|error| format!("cannot read {file} (emr.token_file): {error}"))?;
            // The text is not repeated.
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                .map_err(|_| format!("{file} (emr.token_file) holds something that is no token"))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(headers)
    }

    /// Posts a transaction once. `hidden` is left out of whatever the server says.
    pub async fn post(&self, bundle: Vec<u8>, hidden: &str) -> Answer {
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(why) => return Answer::Later { why, after: None },
        };
        let sent = self.client.post(self.base.clone()).headers(headers).body(bundle).send().await;
        match sent {
            Ok(response) => answer(response, hidden).await,
            Err(error) => Answer::Later { why: unreachable(&error), after: None },
        }
    }
}

/// What is wrong between here and there. The URL is not repeated; it is in the configuration.
fn unreachable(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() {
        return "the FHIR server did not answer within emr.timeout_ms".into();
    }
    format!("the FHIR server of emr.server cannot be reached: {cause}")
}

async fn answer(response: Response, hidden: &str) -> Answer {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(retry_after);
    let body = match body(response, MAX_ANSWER_BYTES).await {
        Ok(body) => body,
        Err(error) => return Answer::Later { why: unreachable(&error), after },
    };
    let outcome = read(&body, hidden);
    judge(status, after, &outcome)
}

fn judge(status: StatusCode, after: Option<Duration>, outcome: &Outcome) -> Answer {
    let later = |why: String| Answer::Later { why, after };
    let said = || format!("the FHIR server says {}{outcome}", status.as_u16());
    match status {
        _ if status.is_success() => match outcome {
            Outcome::Transaction | Outcome::Nothing => Answer::Taken,
            // A page to log in, or a cache in between, says 200, too.
            _ => later("what answers at emr.server is no FHIR transaction: check the URL".into()),
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            later(format!("{}: check emr.token_file and what its owner may do", said()))
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            later(format!("{}: check that emr.server is the base URL", said()))
        }
        _ if status.is_redirection() => later(format!("{}: set emr.server to where it leads", said())),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => later(said()),
        _ if status.is_server_error() => later(said()),
        StatusCode::CONFLICT => Answer::Conflict(said()),
        _ => Answer::Refused(said()),
    }
}

/// The body, as far as it is looked at.
async fn body(mut response: Response, most_bytes: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        body.extend_from_slice(&piece);
        if body.len() > most_bytes {
            body.truncate(most_bytes);
            break;
        }
    }
    Ok(body)
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
            (at.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, outcome: &Outcome) -> Answer {
        judge(StatusCode::from_u16(status).unwrap(), None, outcome)
    }

    #[test]
    fn only_a_transaction_that_was_done_counts_as_taken() {
        assert_eq!(judged(200, &Outcome::Transaction), Answer::Taken);
        assert_eq!(judged(202, &Outcome::Nothing), Answer::Taken, "an interface engine");
        assert!(matches!(judged(200, &Outcome::Unreadable), Answer::Later { .. }), "a page to log in");
        assert!(matches!(judged(200, &Outcome::Said("x".into())), Answer::Later { .. }));
    }

    #[test]
    fn what_may_pass_or_be_mended_is_waited_for_and_what_is_wrong_with_a_bundle_is_refused() {
        let nothing = Outcome::Nothing;
        for later in [302, 401, 403, 404, 405, 407, 408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(judged(later, &nothing), Answer::Later { .. }), "{later}");
        }
        for refused in [400, 406, 410, 412, 413, 415, 422] {
            assert!(matches!(judged(refused, &nothing), Answer::Refused(_)), "{refused}");
        }
        assert!(matches!(judged(409, &nothing), Answer::Conflict(_)));
        let Answer::Later { why, .. } = judged(401, &nothing) else { panic!("waits") };
        assert_eq!(why, "the FHIR server says 401: check emr.token_file and what its owner may do");
    }

    #[test]
    fn a_server_may_say_how_long_to_wait_but_not_for_ever() {
        let wait = |text| retry_after(&HeaderValue::from_static(text));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Wed, 21 Oct 2116 07:28:00 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!((wait("soon"), wait("-1")), (None, None));
    }
}

//! `/metrics`, `/livez` and `/readyz` on one port.
//!
//! Bounded without trust in the client: 64 connections at a time, 10 seconds each from accept to the
//! last byte, and hyper's own limits on the size and number of request headers.

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::bounded::{Bounded, GivenUp};
use super::health::Health;
use super::metrics::Metrics;

const MAX_CONNECTIONS: usize = 64;
const CONNECTION_TIME: Duration = Duration::from_secs(10);
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen:?} for metrics and probes, choose a free address:port: {source}")]
pub struct ListenError {
    listen: String,
    source: io::Error,
}

/// An open port that does not answer yet.
#[derive(Debug)]
pub struct TelemetryServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl TelemetryServer {
    /// Opens `listen`, an `address:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// When it is not an address or is in use.
    pub async fn bind(listen: &str) -> Result<Self, ListenError> {
        let failed = |source| ListenError { listen: listen.to_owned(), source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled. A client that is slow then does not hold up the end: its
    /// connection goes on by itself, to its deadline at most.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(self, metrics: Metrics, health: Health, stop: CancellationToken) -> io::Result<()> {
        let routes = Router::new()
            .route("/metrics", get(scrape).with_state((metrics, health.clone())))
            .route("/livez", get(livez).with_state(health.clone()))
            .route("/readyz", get(readyz).with_state(health))
            .layer(map_response(close));
        let listener = Bounded::new(self.listener, MAX_CONNECTIONS, GivenUp::After(CONNECTION_TIME));
        tokio::select! {
            ended = axum::serve(listener, routes).into_future() => ended,
            () = stop.cancelled() => Ok(()),
        }
    }
}

/// One request per connection, so that the time limit of the connection is that of the request.
async fn close(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The probe and the metric cannot disagree: both ask when they are asked.
async fn scrape(State((metrics, health)): State<(Metrics, Health)>) -> Response {
    metrics.set_ready(health.ready().is_ok());
    match metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => {
            let text = format!("metrics cannot be encoded: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn livez(State(health): State<Health>) -> Response {
    probe(health.live())
}

async fn readyz(State(health): State<Health>) -> Response {
    probe(health.ready())
}

fn probe(answer: Result<(), String>) -> Response {
    match answer {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: SocketAddr,
        metrics: Metrics,
        health: Health,
        stop: CancellationToken,
        server: JoinHandle<io::Result<()>>,
    }

    async fn running() -> Running {
        let server = TelemetryServer::bind("127.0.0.1:0").await.unwrap();
        let address = server.address();
        let metrics = Metrics::new(&["north".to_owned()]).unwrap();
        let health = Health::new(Duration::from_secs(30), Duration::from_secs(30));
        let stop = CancellationToken::new();
        let server = tokio::spawn(server.serve(metrics.clone(), health.clone(), stop.clone()));
        Running { address, metrics, health, stop, server }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_in_the_prometheus_text_format() {
        let service = running().await;
        service.metrics.frame_received("north");
        let answer = get(service.address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("memebg_frames_received_total{site=\"north\"} 1\n"), "{answer}");
        assert!(get(service.address, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn probes_follow_the_facts_and_say_why() {
        let service = running().await;
        assert!(get(service.address, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = get(service.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nthe graders are not warmed up\n"), "{answer}");
        assert!(get(service.address, "/metrics").await.contains("\nmemebg_ready 0\n"));
        service.health.warmed_up();
        service.health.polled();
        service.health.connected(true);
        assert!(get(service.address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(service.address, "/metrics").await.contains("\nmemebg_ready 1\n"));
        service.health.fatal("the device is gone");
        let answer = get(service.address, "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("the device is gone\n"), "{answer}");
    }

    #[tokio::test]
    async fn cancelling_ends_the_server_and_frees_the_port_though_a_client_says_nothing() {
        let service = running().await;
        let silent = TcpStream::connect(service.address).await.unwrap();
        assert!(get(service.address, "/livez").await.starts_with("HTTP/1.1 200"));
        service.stop.cancel();
        service.server.await.unwrap().unwrap();
        assert!(TcpStream::connect(service.address).await.is_err());
        drop(silent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_finishes_its_request_is_cut_off() {
        let service = running().await;
        let mut slow = TcpStream::connect(service.address).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.unwrap();
        let mut answer = Vec::new();
        // The paused clock jumps to the deadline once everything waits; without one this never ends.
        let ended = slow.read_to_end(&mut answer).await;
        assert!(ended.is_err() || answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_taken_port_is_refused_with_its_address() {
        let first = TelemetryServer::bind("127.0.0.1:0").await.unwrap();
        let taken = first.address().to_string();
        let error = TelemetryServer::bind(&taken).await.unwrap_err().to_string();
        assert!(error.contains(&taken), "{error}");
    }
}

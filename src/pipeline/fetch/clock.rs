//! The clock of an image server, as the `Date` of its answers tells it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
};

/// How far a server's clock is ahead of ours, once it has answered. Not looked at unless it is watched.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock(Option<Arc<Mutex<Option<TimeDelta>>>>);

impl ServerClock {
    pub(super) fn watched() -> Self {
        Self(Some(Arc::default()))
    }

    /// To the second; negative when it is behind.
    pub(super) fn ahead(&self) -> Option<TimeDelta> {
        *self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connector of the same connections, of which the dates are read.
    pub(super) fn of<C>(&self, connector: C) -> Watched<C> {
        Watched { connector, clock: self.clone() }
    }
}

#[derive(Debug)]
pub(super) struct Watched<C> {
    connector: C,
    clock: ServerClock,
}

impl<C: HttpConnector> HttpConnector for Watched<C> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.connector.connect(options)?;
        Ok(match &self.clock.0 {
            None => client,
            Some(ahead) => HttpClient::new(Dated { client, ahead: Arc::clone(ahead) }),
        })
    }
}

#[derive(Debug)]
struct Dated {
    client: HttpClient,
    ahead: Arc<Mutex<Option<TimeDelta>>>,
}

impl HttpService for Dated {
    // What `async fn` is in this trait.
    fn call<'service, 'answer>(
        &'service self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'answer>>
    where
        'service: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let response = self.client.execute(request).await?;
            let date = response.headers().get("date").and_then(|date| date.to_str().ok());
            if let Some(date) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) {
                let ahead = date.to_utc() - Utc::now();
                *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
            }
            Ok(response)
        })
    }
}

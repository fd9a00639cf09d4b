//! The live board: a page that shows every well with its last photograph and grade, and takes reviews.
//!
//! It only looks on. It is in no consumer group, commits nothing and keeps nothing: on start it reads the summaries,
//! grades and photographs of the last hours, all of it bounded. The one thing that it writes is what a reviewer says.

pub mod access;
pub mod images;
pub mod intake;
pub mod review;
pub mod settings;
pub mod wall;

mod heat;
mod listen;
mod page;
mod routes;
mod stream;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::domain::Review;
use crate::kafka::KafkaSettings;
use crate::kafka::review_sink::ReviewSink;
use crate::kafka::watch::{Followed, Lag, follow};
use crate::model::ModelSettings;
use crate::pipeline::decode::DecodeSettings;
use crate::pipeline::fetch::{FetchSettings, Fetcher};
use crate::pipeline::select::SelectSettings;
use crate::telemetry::health::Health;
use access::Access;
use heat::HeatMaps;
use images::Images;
use intake::{Board, Topics};
use routes::{Shared, router};
pub use settings::{AuthKind, BoardSettings};
use wall::Wall;

/// Above the time after which a review is said not to be recorded.
const LAST_ANSWERS: Duration = Duration::from_secs(12);
/// How often it is asked how many frames wait.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Where reviews go.
pub trait ReviewOut: Send + Sync + 'static {
    /// Resolves when the review is recorded.
    ///
    /// # Errors
    /// Why it is not.
    fn send<'a>(&'a self, review: &'a Review) -> BoxFuture<'a, Result<(), String>>;
}

impl ReviewOut for ReviewSink {
    fn send<'a>(&'a self, review: &'a Review) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.send(review))
    }
}

/// What the board is built from.
pub struct BoardParts {
    /// Its options.
    pub settings: BoardSettings,
    /// Cluster and topics, as the service has them.
    pub kafka: KafkaSettings,
    /// Topic of summaries.
    pub summaries_topic: String,
    /// Topic of reviews.
    pub reviews_topic: String,
    /// Which frames the service grades.
    pub select: SelectSettings,
    /// Where their images may lie.
    pub fetch: FetchSettings,
    /// What may be decoded.
    pub decode: DecodeSettings,
    /// Which model says where it looked.
    pub model: ModelSettings,
    /// Facts for the probes.
    pub health: Health,
    /// Ends it.
    pub stop: CancellationToken,
}

/// An open port that does not answer yet.
pub struct BoardServer {
    parts: BoardParts,
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl BoardServer {
    /// Opens the port.
    ///
    /// # Errors
    /// When it is in use, or an option cannot be used.
    pub async fn bind(parts: BoardParts) -> anyhow::Result<Self> {
        let listen = &parts.settings.listen;
        let access = Access::new(&parts.settings).map_err(anyhow::Error::msg)?;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen:?} for the board, choose a free address:port in board.listen")
        })?;
        let address = listener.local_addr()?;
        let fetcher = Fetcher::new(&parts.fetch, parts.decode.max_image_bytes)?;
        let images = Images::new(parts.decode.clone(), fetcher, parts.settings.max_image_bytes);
        let topics = Topics {
            frames: parts.kafka.frames_topic.clone(),
            grades: parts.kafka.grades_topic.clone(),
            dead_letters: parts.kafka.dead_letters_topic.clone(),
            summaries: parts.summaries_topic.clone(),
        };
        let wall = Wall::new(parts.settings.max_embryos, parts.settings.max_frames_per_embryo);
        let heat_maps = parts.settings.heat_maps;
        let board =
            Board::new(topics, parts.select.clone(), parts.kafka.max_value_bytes, images, wall, heat_maps);
        let reviews: Arc<dyn ReviewOut> = Arc::new(ReviewSink::new(&parts.kafka, &parts.reviews_topic)?);
        let heat = heat_maps.then(|| HeatMaps::new(&parts.model, board.images().clone()));
        let shared = Arc::new(Shared { access, board, heat, reviews, stop: parts.stop.clone() });
        Ok(Self { parts, listener, address, shared })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads and answers until it is asked to stop.
    ///
    /// # Errors
    /// When the topics cannot be read any more or the listener fails for good.
    pub async fn serve(self) -> anyhow::Result<()> {
        let BoardParts { settings, kafka, health, stop, .. } = self.parts;
        let service = router(Arc::clone(&self.shared)).into_make_service_with_connect_info::<listen::Peer>();
        let answering = axum::serve(listen::bounded(self.listener), service)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let mut answering = std::pin::pin!(answering.into_future());

        let board = self.shared.board.clone();
        let followed = followed(&settings, &kafka, &self.shared.board.topics().summaries, Utc::now());
        let (lag, until, read_until) = (Lag::new(&kafka)?, stop.clone(), stop.clone());
        let mut reading = tokio::task::spawn_blocking(move || {
            follow(&kafka, &followed, &health, &read_until, |message| board.receive(message, Utc::now()))
        });
        let asking = tokio::spawn(ask_for_lag(lag, self.shared.board.clone(), until));
        let mut answered = false;
        let ended = tokio::select! {
            ended = &mut answering => {
                answered = true;
                ended.context("the board's listener failed")
            }
            ended = &mut reading => ended?.context("the board cannot read its topics"),
            () = stop.cancelled() => Ok(()),
        };
        stop.cancel();
        // Who has just sent a review is told whether it is recorded. Without one this ends at once.
        if !answered && tokio::time::timeout(LAST_ANSWERS, &mut answering).await.is_err() {
            tracing::warn!("a request was still being answered");
        }
        asking.await?;
        if !reading.is_finished() {
            reading.await??;
        }
        if let Some(heat) = &self.shared.heat {
            heat.idle().await;
        }
        ended
    }
}

/// What is recent. Whatever is said of an embryo, its summary follows: one that is older is of an embryo of which nothing
/// was heard since.
fn followed(
    settings: &BoardSettings,
    kafka: &KafkaSettings,
    summaries_topic: &str,
    now: DateTime<Utc>,
) -> Vec<Followed> {
    let since = |hours: u32| (hours > 0).then(|| (now - TimeDelta::hours(hours.into())).timestamp_millis());
    [
        (summaries_topic, "summaries.topic", settings.history_hours),
        (&kafka.grades_topic, "kafka.grades_topic", settings.history_hours),
        (&kafka.dead_letters_topic, "kafka.dead_letters_topic", settings.history_hours),
        (&kafka.frames_topic, "kafka.frames_topic", settings.image_history_hours),
    ]
    .map(|(topic, option, hours)| Followed { topic: topic.to_owned(), option, since_ms: since(hours) })
    .into()
}

async fn ask_for_lag(lag: Lag, board: Board, stop: CancellationToken) {
    let lag = Arc::new(lag);
    while !stop.is_cancelled() {
        let asked = Arc::clone(&lag);
        let answer = tokio::task::spawn_blocking(move || asked.frames()).await;
        board.set_lag(answer.ok().and_then(|answer| answer.ok()));
        tokio::select! {
            () = tokio::time::sleep(LAG_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

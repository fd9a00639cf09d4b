//! What an open page is told, as server-sent events: the cells that changed, and how it goes.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use chrono::Utc;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::intake::Board;
use super::wall::{Embryo, Place};
use crate::domain::{EmbryoSummary, GradeStatus};

/// A wall is looked at from some metres away: more often than this nobody sees.
const TELL_EVERY: Duration = Duration::from_secs(1);
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Cells in one event.
const MAX_CELLS: usize = 200;

/// One well of the wall.
#[derive(Debug, Serialize)]
pub struct Cell<'a> {
    /// The embryo.
    pub embryo_id: &'a str,
    /// Where it lies.
    #[serde(flatten)]
    pub place: &'a Place,
    /// The last photograph.
    pub latest: Option<Latest<'a>>,
    /// What all photographs say together.
    pub summary: Option<&'a EmbryoSummary>,
}

/// The last photograph, in short.
#[derive(Debug, Serialize)]
pub struct Latest<'a> {
    status: GradeStatus,
    reasons: &'a [crate::domain::AbstainReason],
    gardner: Option<&'a str>,
    confidence: Option<f64>,
    hpi: f64,
    captured_at: chrono::DateTime<Utc>,
    graded_at: chrono::DateTime<Utc>,
    image_sha256: &'a str,
    /// Whether the image can be shown.
    image: bool,
    untrained: bool,
    model_digest: &'a str,
    /// Whether it can be asked where the model looked for the expansion.
    map: bool,
}

impl<'a> Cell<'a> {
    /// The cell of an embryo.
    #[must_use]
    pub fn new(embryo_id: &'a str, embryo: &'a Embryo, board: &Board) -> Self {
        let latest = embryo.latest().map(|frame| Latest {
            status: frame.status,
            reasons: &frame.reasons,
            gardner: frame.gardner.as_deref(),
            confidence: frame.confidence,
            hpi: frame.hpi,
            captured_at: frame.captured_at,
            graded_at: frame.graded_at,
            image_sha256: &frame.image_sha256,
            image: board.images().holds(&frame.image_sha256),
            untrained: frame.model.untrained,
            model_digest: &frame.model.digest,
            map: board.has_maps() && frame.heads.is_some(),
        });
        Self { embryo_id, place: &embryo.place, latest, summary: embryo.summary.as_ref() }
    }
}

#[derive(Serialize)]
struct WallEvent<'a> {
    /// Whether any other cell is to be forgotten.
    all: bool,
    cells: Vec<Cell<'a>>,
    gone: Vec<&'a String>,
}

/// The stream of one page. It ends when the server does.
pub(super) fn events(
    board: Board,
    stop: CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let first = (board, stop, 0, Vec::new());
    let stream = stream::unfold(first, |(board, stop, mut seen, mut waiting)| async move {
        if waiting.is_empty() {
            if seen > 0 {
                tokio::select! {
                    () = sleep(TELL_EVERY) => {}
                    () = stop.cancelled() => return None,
                }
            }
            waiting = news(&board, &mut seen);
        }
        let next = waiting.pop()?;
        Some((Ok(next), (board, stop, seen, waiting)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE))
}

/// What there is to say, the first last. Never nothing.
fn news(board: &Board, seen: &mut u64) -> Vec<Event> {
    let mut events = Vec::new();
    {
        let wall = board.wall();
        let changes = wall.changes(*seen);
        let mut all = changes.all;
        let mut gone = changes.gone;
        // A page that was never told is told that there is nothing, too.
        let mut chunks: Vec<_> = changes.embryos.chunks(MAX_CELLS).collect();
        if chunks.is_empty() && (all || !gone.is_empty()) {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let cells = chunk.iter().map(|(id, embryo)| Cell::new(id, embryo, board)).collect();
            let event = WallEvent { all, cells, gone: std::mem::take(&mut gone) };
            all = false;
            events.push(told("wall", &event));
        }
        *seen = changes.sequence;
    }
    events.push(told("standing", &board.standing(Utc::now())));
    events.reverse();
    events
}

fn told(name: &str, what: &impl Serialize) -> Event {
    // Numbers and text only: it can be written.
    let json = serde_json::to_string(what).unwrap_or_default();
    Event::default().event(name).data(json)
}

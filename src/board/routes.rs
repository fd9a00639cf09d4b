//! What the board answers. One list, so that a test can ask for every entry of it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use chrono::Utc;
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Account, Refused};
use super::heat::HeatMaps;
use super::images::NoImage;
use super::intake::Board;
use super::listen::Peer;
use super::review::{MAX_FORM_BYTES, NoReview, review};
use super::stream::{Cell, events};
use super::{ReviewOut, page};
use crate::domain::{Head, Review};

const SIGN_IN: &str = "/sign-in";
/// Guessing a token is slow.
const AFTER_A_WRONG_TOKEN: Duration = Duration::from_secs(1);
const NEVER_CHANGES: &str = "private, max-age=31536000, immutable";

/// What every route may use.
pub(super) struct Shared {
    pub(super) access: Access,
    pub(super) board: Board,
    pub(super) heat: Option<HeatMaps>,
    pub(super) reviews: Arc<dyn ReviewOut>,
    pub(super) stop: CancellationToken,
}

pub(super) type Routes = Vec<(Method, &'static str, MethodRouter<Arc<Shared>>)>;

/// Every route. [`guard`] stands before them all.
pub(super) fn routes() -> Routes {
    vec![
        (Method::GET, "/", get(index)),
        (Method::GET, "/assets/{name}", get(asset)),
        (Method::GET, "/api/events", get(stream)),
        (Method::GET, "/api/embryos/{id}", get(embryo)),
        (Method::GET, "/api/embryos/{id}/blinded", get(blinded)),
        (Method::GET, "/api/images/{sha256}", get(image)),
        (Method::GET, "/api/maps/{model}/{sha256}/{head}", get(map)),
        (Method::POST, "/api/reviews", post(send_review)),
        (Method::POST, SIGN_IN, post(sign_in)),
        (Method::POST, "/sign-out", post(sign_out)),
    ]
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let joined =
        routes().into_iter().fold(Router::new(), |router, (_, path, route)| router.route(path, route));
    joined
        .fallback(async || answer(StatusCode::NOT_FOUND, "there is no such page"))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

/// Lets nobody through to any route, known or not, who may not look.
async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let access = &shared.access;
    let signs_in =
        access.has_sign_in() && request.method() == Method::POST && request.uri().path() == SIGN_IN;
    let admitted = if signs_in {
        access.is_ours(request.method(), request.headers()).map(|()| Account::default())
    } else {
        access.admit(request.method(), request.headers(), peer)
    };
    let mut response = match admitted {
        Ok(account) => {
            request.extensions_mut().insert(account);
            next.run(request).await
        }
        Err(Refused::Host) => answer(
            StatusCode::MISDIRECTED_REQUEST,
            "this is not a name of the board: add it to board.hosts if it should be",
        ),
        Err(Refused::Origin) => answer(StatusCode::FORBIDDEN, "this does not come from a page of the board"),
        Err(Refused::Unknown) if access.has_sign_in() && request.uri().path() == "/" => unauthorised_page(),
        Err(Refused::Unknown) => unauthorised(),
    };
    page::protect(response.headers_mut());
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn unauthorised() -> Response {
    let mut response = answer(StatusCode::UNAUTHORIZED, "sign in first");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn unauthorised_page() -> Response {
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], Html(page::SIGN_IN)).into_response()
}

async fn index() -> Html<&'static str> {
    Html(page::INDEX)
}

async fn asset(Path(name): Path<String>) -> Response {
    match page::asset(&name) {
        Some((media_type, content)) => {
            ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, "private, no-cache")], content).into_response()
        }
        None => answer(StatusCode::NOT_FOUND, "there is no such file"),
    }
}

async fn stream(State(shared): State<Arc<Shared>>) -> Response {
    events(shared.board.clone(), shared.stop.clone()).into_response()
}

/// All that is known of an embryo.
async fn embryo(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let wall = shared.board.wall();
    let Some(embryo) = wall.embryo(&id) else { return no_embryo() };
    let held = |sha256: &str| shared.board.images().holds(sha256);
    let frames: Vec<Value> = embryo
        .frames
        .values()
        .map(|frame| json!({"frame": frame, "image": held(&frame.image_sha256)}))
        .collect();
    let cell = Cell::new(&id, embryo, &shared.board);
    json_answer(StatusCode::OK, &json!({"cell": cell, "frames": frames, "maps": shared.heat.is_some()}))
}

/// What a reviewer may see before giving a grade: where the embryo lies, and its photographs. Frames without a grade are
/// among them, and nothing says which.
async fn blinded(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let wall = shared.board.wall();
    let Some(embryo) = wall.embryo(&id) else { return no_embryo() };
    let frames: Vec<Value> = embryo
        .frames
        .values()
        .map(|frame| {
            json!({
                "run": frame.run,
                "hpi": frame.hpi,
                "captured_at": frame.captured_at,
                "focal_plane": frame.focal_plane,
                "image_sha256": frame.image_sha256,
                "image": shared.board.images().holds(&frame.image_sha256),
            })
        })
        .collect();
    let version = embryo.summary.as_ref().map(|summary| summary.version);
    json_answer(
        StatusCode::OK,
        &json!({"embryo_id": id, "place": embryo.place, "frames": frames, "summary_version": version}),
    )
}

async fn image(State(shared): State<Arc<Shared>>, Path(sha256): Path<String>) -> Response {
    picture(shared.board.images().shown(&sha256).await)
}

/// Where a head of the model looked.
async fn map(
    State(shared): State<Arc<Shared>>,
    Path((model, sha256, head)): Path<(String, String, String)>,
) -> Response {
    let head = Head::ALL.iter().find(|known| known.as_str() == head);
    match (&shared.heat, head) {
        (Some(heat), Some(head)) => picture(heat.of(&model, &sha256, *head).await),
        _ => answer(StatusCode::NOT_FOUND, "there are no heat maps here: see board.heat_maps"),
    }
}

fn picture(made: Result<Vec<u8>, NoImage>) -> Response {
    match made {
        Ok(jpeg) => ([(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, NEVER_CHANGES)], jpeg).into_response(),
        Err(NoImage::NotHeld) => answer(StatusCode::NOT_FOUND, "the board does not hold this image"),
        Err(NoImage::Unusable) => answer(StatusCode::BAD_GATEWAY, "this image cannot be shown"),
    }
}

/// 201 when the broker has confirmed it, and never otherwise.
async fn send_review(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let account = request.extensions().get::<Account>().cloned().unwrap_or_default();
    // A form of another page could not say so without asking first.
    let is_json =
        |value: &HeaderValue| value.to_str().is_ok_and(|it| it.split(';').next() == Some("application/json"));
    if !request.headers().get(CONTENT_TYPE).is_some_and(is_json) {
        return answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a review is application/json");
    }
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_FORM_BYTES).await else {
        return answer(StatusCode::PAYLOAD_TOO_LARGE, "a review has 4096 bytes at most");
    };
    let made = review(&body, &shared.board.wall(), Utc::now());
    let review = match made {
        Ok(review) => review,
        Err(error @ NoReview::Form(_)) => {
            return answer(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string());
        }
        Err(error @ NoReview::Embryo) => return answer(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ NoReview::Version(_)) => return answer(StatusCode::CONFLICT, &error.to_string()),
    };
    if let Err(reason) = shared.reviews.send(&review).await {
        tracing::warn!(reason, "a review was not confirmed by the broker");
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "the review was not confirmed and may not be recorded: send it again",
        );
    }
    audit(&review, &account);
    json_answer(
        StatusCode::CREATED,
        &json!({"id": review.id(), "gardner": review.gardner(), "reviewed_at": review.reviewed_at}),
    )
}

/// Who did what when, without the grade: the log is read by others than the topic.
fn audit(review: &Review, account: &Account) {
    tracing::info!(
        target: "memebg::audit",
        review = review.id(),
        embryo = review.embryo_id,
        reviewer = review.reviewer,
        account = account.name.as_deref().unwrap_or("-"),
        blinded = review.blinded,
        summary_version = review.summary.version,
        "review recorded"
    );
}

async fn sign_in(State(shared): State<Arc<Shared>>, headers: HeaderMap, form: Bytes) -> Response {
    let token = url::form_urlencoded::parse(&form).find(|(name, _)| name == "token");
    match token.and_then(|(_, token)| shared.access.sign_in(&token, &headers)) {
        Some(cookie) => {
            (StatusCode::SEE_OTHER, [(LOCATION, "/"), (SET_COOKIE, cookie.as_str())]).into_response()
        }
        None => {
            sleep(AFTER_A_WRONG_TOKEN).await;
            tracing::warn!("somebody tried to sign in to the board with a wrong token");
            unauthorised_page()
        }
    }
}

async fn sign_out(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let cookie = shared.access.sign_out(&headers);
    (StatusCode::SEE_OTHER, [(LOCATION, "/"), (SET_COOKIE, cookie.as_str())]).into_response()
}

fn no_embryo() -> Response {
    answer(StatusCode::NOT_FOUND, "this embryo is not on the board")
}

fn answer(status: StatusCode, message: &str) -> Response {
    json_answer(status, &json!({"error": message}))
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
#[path = "routes/tests.rs"]
mod tests;

use std::net::SocketAddr;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use reqwest::{Client, RequestBuilder, Response as Answer};
use tokio::net::TcpListener;

use super::*;
use crate::board::intake;
use crate::board::listen::bounded;
use crate::board::settings::{AuthKind, BoardSettings, tests::settings};
use crate::board::wall::tests::{event, summary};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Keeps reviews, or says that nobody confirms them.
#[derive(Default)]
struct Topic {
    reviews: Mutex<Vec<Review>>,
    away: bool,
}

impl ReviewOut for Topic {
    fn send<'a>(&'a self, review: &'a Review) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            if self.away {
                return Err("timed out".into());
            }
            self.reviews.lock().unwrap().push(review.clone());
            Ok(())
        })
    }
}

struct Running {
    address: SocketAddr,
    topic: Arc<Topic>,
    board: Board,
    client: Client,
    stop: CancellationToken,
    _token: tempfile::NamedTempFile,
}

async fn running(topic: Topic, change: impl FnOnce(&mut BoardSettings)) -> Running {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), TOKEN).unwrap();
    let mut settings = settings();
    token.path().clone_into(&mut settings.token_file);
    change(&mut settings);
    settings.validate().unwrap();
    let (board, topic, stop) = (intake::tests::board(), Arc::new(topic), CancellationToken::new());
    board.wall().grade(event("e", 412), Utc::now());
    board.wall().summary(summary("e", 2), Utc::now());
    let shared = Shared {
        access: Access::new(&settings).unwrap(),
        board: board.clone(),
        heat: None,
        reviews: topic.clone(),
        stop: stop.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router(Arc::new(shared)).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move { axum::serve(bounded(listener), service).await });
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    Running { address, topic, board, client, stop, _token: token }
}

impl Running {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).send().await.unwrap()
    }

    async fn review(&self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> StatusCode {
        let form = json!({"embryo_id": "e", "reviewer": "rev-7", "exp": 4, "icm": "A", "te": "B",
            "reason": "routine", "blinded": true, "summary_version": 2});
        let request = self.ask(Method::POST, "/api/reviews").header(CONTENT_TYPE, "application/json");
        change(request.body(form.to_string())).send().await.unwrap().status()
    }
}

fn token(settings: &mut BoardSettings) {
    settings.auth = AuthKind::Token;
}

fn proxy(settings: &mut BoardSettings) {
    settings.auth = AuthKind::ProxyHeaders;
    settings.proxy_addresses = vec![[10, 0, 0, 1].into()];
}

fn filled(path: &str) -> String {
    path.replace("{name}", "board.js")
        .replace("{id}", "e")
        .replace("{sha256}", &"0".repeat(64))
        .replace("{model}", "m")
        .replace("{head}", "exp")
}

#[tokio::test]
async fn no_route_answers_whoever_is_not_known() {
    for set in [token, proxy] {
        let board = running(Topic::default(), set).await;
        let unknown = [(Method::GET, "/no/such/page", get(index)), (Method::PUT, "/", get(index))];
        for (method, path, _) in routes().into_iter().chain(unknown) {
            let answer = board.ask(method.clone(), &filled(path)).send().await.unwrap();
            assert_eq!(answer.status(), 401, "{method} {path}");
            let body = answer.text().await.unwrap();
            let only_says_so = body == r#"{"error":"sign in first"}"# || body == page::SIGN_IN;
            assert!(only_says_so, "{method} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn whoever_is_known_is_answered_by_every_route() {
    let board = running(Topic::default(), token).await;
    for (method, path, _) in routes() {
        let answer = board.ask(method.clone(), &filled(path)).bearer_auth(TOKEN).send().await.unwrap();
        // Signing in asks for the token itself.
        assert_eq!(answer.status() == 401, path == SIGN_IN, "{method} {path}");
    }
}

#[tokio::test]
async fn every_answer_is_protected() {
    let board = running(Topic::default(), |_| {}).await;
    for path in ["/", "/assets/board.css", "/api/embryos/e", "/no/such/page", "/api/images/x"] {
        let answer = board.get(path).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
    }
    let page = board.get("/").await.text().await.unwrap();
    for forbidden in ["<style", " style=", " onclick=", "http://", "https://"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn another_name_of_the_host_or_another_page_gets_nothing() {
    let board = running(Topic::default(), |_| {}).await;
    for (method, path, _) in routes() {
        let foreign = board.ask(method.clone(), &filled(path)).header("host", "evil.example");
        assert_eq!(foreign.send().await.unwrap().status(), 421, "{method} {path}");
        if method == Method::POST {
            let foreign = board.ask(method.clone(), path).header("origin", "http://evil.example");
            assert_eq!(foreign.send().await.unwrap().status(), 403, "{method} {path}");
        }
    }
    assert_eq!(board.review(|it| it.header("sec-fetch-site", "cross-site")).await, 403);
    assert!(board.topic.reviews.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_review_is_created_when_the_broker_has_confirmed_it_and_not_otherwise() {
    let board = running(Topic::default(), |_| {}).await;
    let origin = format!("http://{}", board.address);
    assert_eq!(board.review(|it| it.header("origin", origin)).await, 201);
    let reviews = board.topic.reviews.lock().unwrap().clone();
    assert_eq!((reviews.len(), reviews[0].gardner()), (1, "4AB".to_owned()));
    assert_eq!(board.review(|it| it.body("{}")).await, 422);
    assert_eq!(board.review(|it| it.body(" ".repeat(MAX_FORM_BYTES + 1))).await, 413);
    let plain = board.ask(Method::POST, "/api/reviews").header(CONTENT_TYPE, "text/plain").body("{}");
    assert_eq!(plain.send().await.unwrap().status(), 415);
    assert_eq!(board.topic.reviews.lock().unwrap().len(), 1);
    let away = running(Topic { away: true, ..Topic::default() }, |_| {}).await;
    assert_eq!(away.review(|it| it).await, 503);
}

#[tokio::test]
async fn a_blinded_reviewer_is_told_nothing_of_ours() {
    let board = running(Topic::default(), |_| {}).await;
    let blinded = board.get("/api/embryos/e/blinded").await.text().await.unwrap();
    for ours in ["gardner", "4AB", "confidence", "prob", "status", "reasons", "\"exp\"", "grade"] {
        assert!(!blinded.contains(ours), "{ours}: {blinded}");
    }
    let blinded: Value = serde_json::from_str(&blinded).unwrap();
    assert_eq!((&blinded["summary_version"], &blinded["frames"][0]["run"]), (&2.into(), &412.into()));
    let all: Value = serde_json::from_str(&board.get("/api/embryos/e").await.text().await.unwrap()).unwrap();
    assert_eq!(all["cell"]["summary"]["gardner"], "4AB");
    assert_eq!(board.get("/api/embryos/f").await.status(), 404);
}

#[tokio::test]
async fn signing_in_gives_a_cookie_that_opens_the_board_and_signing_out_takes_it() {
    let board = running(Topic::default(), token).await;
    let sign_in = |token: &str| board.ask(Method::POST, SIGN_IN).body(format!("token={token}"));
    assert_eq!(sign_in("wrong").send().await.unwrap().status(), 401);
    assert_eq!(sign_in(TOKEN).header("origin", "http://evil.example").send().await.unwrap().status(), 403);
    let answer = sign_in(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let opened = board.ask(Method::GET, "/").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(opened.status(), 200);
    let out = board.ask(Method::POST, "/sign-out").header("cookie", &cookie).send().await.unwrap();
    assert!(out.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
}

/// The next event of a stream: its name and its data.
async fn next_event(answer: &mut Answer, text: &mut String) -> (String, Value) {
    loop {
        if let Some((event, rest)) = text.split_once("\n\n").map(|(e, r)| (e.to_owned(), r.to_owned())) {
            *text = rest;
            let field = |name| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            return (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap());
        }
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn an_open_page_is_told_everything_and_then_what_changes_until_the_board_ends() {
    let board = running(Topic::default(), |_| {}).await;
    let (mut answer, mut text) = (board.get("/api/events").await, String::new());
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
    let (name, all) = next_event(&mut answer, &mut text).await;
    assert_eq!(
        (name.as_str(), &all["all"], &all["cells"][0]["embryo_id"]),
        ("wall", &true.into(), &"e".into())
    );
    assert_eq!(next_event(&mut answer, &mut text).await.0, "standing");
    board.board.wall().grade(event("f", 1), Utc::now());
    let (name, news) = next_event(&mut answer, &mut text).await;
    assert_eq!((name.as_str(), &news["all"]), ("wall", &false.into()));
    assert_eq!(news["cells"].as_array().unwrap().len(), 1);
    assert_eq!(news["cells"][0]["embryo_id"], "f");
    board.stop.cancel();
    while answer.chunk().await.unwrap().is_some() {}
}

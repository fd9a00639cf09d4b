use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use super::*;

const IMAGE: &[u8] = b"bytes of a photograph";
const LENGTH: u64 = IMAGE.len() as u64;

fn settings(prefixes: &[&str]) -> FetchSettings {
    FetchSettings {
        allowed_uri_prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        max_concurrent: 1,
        attempts: 3,
        backoff_ms: 1,
        timeout_ms: 5_000,
    }
}

fn fetcher(prefix: &str) -> Fetcher {
    Fetcher::new(&settings(&[prefix]), 1_000).unwrap()
}

fn file_uri(path: &FilePath) -> String {
    Url::from_file_path(path).unwrap().to_string()
}

/// `frames/image.jpg` is allowed; `secret.jpg` and `frames-of-others/image.jpg` lie beside it.
fn directory() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["frames/2026", "frames-of-others"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for file in ["frames/image.jpg", "frames/2026/an image.jpg", "frames-of-others/image.jpg", "secret.jpg"] {
        std::fs::write(root.path().join(file), IMAGE).unwrap();
    }
    root
}

/// A web server on loopback. `answer` gets the number of the request, from 0, and the request's head;
/// `None` leaves the request without an answer.
async fn server(
    answer: impl Fn(usize, &str) -> Option<String> + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut kept_open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let length = connection.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
            match answer(counter.fetch_add(1, Ordering::SeqCst), &head) {
                Some(text) => drop(connection.write_all(text.as_bytes()).await),
                None => kept_open.push(connection),
            }
        }
    });
    (format!("http://{address}"), requests)
}

fn response(status: &str, headers: &str, body: &str) -> Option<String> {
    let length = body.len();
    let date = "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT";
    Some(format!(
        "HTTP/1.1 {status}\r\n{date}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    ))
}

fn ok() -> Option<String> {
    response("200 OK", "", std::str::from_utf8(IMAGE).unwrap())
}

async fn refusal(fetcher: &Fetcher, uri: &str) -> Rejection {
    let rejection = fetcher.fetch(uri, LENGTH).await.expect_err(uri);
    assert_eq!(rejection.code.stage(), crate::domain::Stage::Fetch);
    assert!(!rejection.message.contains(uri), "{rejection}");
    rejection
}

#[tokio::test]
async fn a_file_below_an_allowed_directory_is_read() {
    let root = directory();
    let frames = root.path().join("frames");
    for prefix in [file_uri(&frames), format!("{}/", file_uri(&frames))] {
        let fetcher = fetcher(&prefix);
        for file in ["image.jpg", "2026/an image.jpg", "2026/../image.jpg"] {
            let uri = file_uri(&frames) + "/" + &file.replace(' ', "%20");
            assert_eq!(fetcher.fetch(&uri, LENGTH).await.unwrap(), IMAGE, "{uri}");
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_the_allowed_directory() {
    let root = directory();
    let frames = file_uri(&root.path().join("frames"));
    let fetcher = fetcher(&frames);
    let outside = [
        format!("{frames}/../secret.jpg"),
        format!("{frames}/%2e%2e/secret.jpg"),
        format!("{frames}/%2E./secret.jpg"),
        format!("{frames}/2026%2f..%2f..%2fsecret.jpg"),
        format!("{frames}/%252e%252e/secret.jpg"),
        format!("{frames}\\..\\..\\secret.jpg"),
        format!("{frames}/2026%5c..%5c..%5csecret.jpg"),
        format!("{frames}-of-others/image.jpg"),
        format!("{frames}//image.jpg"),
        format!("{frames}/image.jpg?x"),
        format!("{frames}/image.jpg#x"),
        format!("{frames}/image%00.jpg"),
        frames.replace("file://", "file://elsewhere") + "/image.jpg",
        frames.replace("file:", "memory:") + "/image.jpg",
        root.path().join("frames/image.jpg").to_str().unwrap().to_owned(),
        "image.jpg".to_owned(),
        String::new(),
    ];
    for uri in outside {
        let rejection = fetcher.fetch(&uri, LENGTH).await.expect_err(&uri);
        assert_eq!(rejection.code, RejectionCode::ImageUriNotAllowed, "{uri}: {rejection}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn symbolic_links_are_followed_only_within_the_allowed_directory() {
    use std::os::unix::fs::symlink;
    let root = directory();
    let frames = root.path().join("frames");
    symlink(root.path().join("secret.jpg"), frames.join("leak.jpg")).unwrap();
    symlink(root.path(), frames.join("up")).unwrap();
    symlink(frames.join("image.jpg"), frames.join("latest.jpg")).unwrap();
    symlink(&frames, root.path().join("mount")).unwrap();
    let direct = fetcher(&file_uri(&frames));
    for leak in ["leak.jpg", "up/secret.jpg", "up/frames-of-others/image.jpg"] {
        let rejection = refusal(&direct, &file_uri(&frames.join(leak))).await;
        assert_eq!(rejection.code, RejectionCode::ImageUriNotAllowed, "{leak}");
    }
    assert_eq!(direct.fetch(&file_uri(&frames.join("latest.jpg")), LENGTH).await.unwrap(), IMAGE);
    let mounted = root.path().join("mount");
    let through_link = fetcher(&file_uri(&mounted));
    assert_eq!(through_link.fetch(&file_uri(&mounted.join("image.jpg")), LENGTH).await.unwrap(), IMAGE);
}

#[tokio::test]
async fn a_directory_is_not_an_image() {
    let root = directory();
    let frames = root.path().join("frames");
    let rejection = refusal(&fetcher(&file_uri(&frames)), &file_uri(&frames.join("2026"))).await;
    assert_eq!(rejection.code, RejectionCode::ImageUriNotAllowed);
}

#[tokio::test]
async fn another_scheme_host_port_or_user_is_not_the_allowed_place() {
    let (base, requests) = server(|_, _| ok()).await;
    let fetcher = fetcher(&format!("{base}/frames"));
    let port = base.rsplit(':').next().unwrap();
    for uri in [
        format!("{base}/other/image.jpg"),
        format!("{base}/framesets/image.jpg"),
        base.replace("http", "https") + "/frames/image.jpg",
        format!("http://localhost:{port}/frames/image.jpg"),
        format!("http://127.0.0.1:{port}1/frames/image.jpg"),
        "http://127.0.0.1/frames/image.jpg".to_owned(),
        format!("http://user@127.0.0.1:{port}/frames/image.jpg"),
        format!("http://:secret@127.0.0.1:{port}/frames/image.jpg"),
        format!("http://127.0.0.1:{port}@elsewhere.example/frames/image.jpg"),
        format!("http://127.0.0.1:{port}\\@elsewhere.example/image.jpg"),
        format!("http://127.0.0.1.:{port}.evil.example/frames/image.jpg"),
        format!("http://127.0.0.1.evil.example:{port}/frames/image.jpg"),
        format!("http://[::1]:{port}/frames/image.jpg"),
        format!("http://[::ffff:127.0.0.1]:{port}/frames/image.jpg"),
        format!("http://127.0.0.2:{port}/frames/image.jpg"),
        format!("ftp://127.0.0.1:{port}/frames/image.jpg"),
        "http:///frames/image.jpg".to_owned(),
        "data:image/jpeg;base64,AAAA".to_owned(),
        "s3://frames/image.jpg".to_owned(),
    ] {
        assert_eq!(refusal(&fetcher, &uri).await.code, RejectionCode::ImageUriNotAllowed, "{uri}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(fetcher.fetch(&format!("{base}/frames/image.jpg"), LENGTH).await.unwrap(), IMAGE);
}

#[tokio::test]
async fn another_spelling_of_the_allowed_place_is_the_allowed_place() {
    let (base, requests) = server(|_, _| ok()).await;
    let fetcher = fetcher(&format!("{base}/frames"));
    let port = base.rsplit(':').next().unwrap();
    for host in ["HTTP://127.0.0.1", "http://2130706433", "http://0x7f.1", "http://127.0.0.1."] {
        let uri = format!("{host}:{port}/frames/image.jpg");
        assert_eq!(fetcher.fetch(&uri, LENGTH).await.unwrap(), IMAGE, "{uri}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_host_name_is_the_allowed_one_by_all_of_its_letters() {
    let fetcher = fetcher("https://images.example");
    for uri in [
        "https://images.example.evil/image.jpg",
        "https://images.example./image.jpg",
        "https://evil.images.example/image.jpg",
        "https://images.example@evil/image.jpg",
        "https://images.example:8443/image.jpg",
        "https://images.example%2eevil/image.jpg",
        "https://images.example\u{3002}evil/image.jpg",
        "http://images.example/image.jpg",
    ] {
        assert_eq!(refusal(&fetcher, uri).await.code, RejectionCode::ImageUriNotAllowed, "{uri}");
    }
}

#[tokio::test]
async fn a_name_that_is_pointed_at_this_machine_is_not_followed_there() {
    let (base, requests) = server(|_, _| ok()).await;
    let port = base.rsplit(':').next().unwrap();
    let pointed_here: web::Lookup = |_| Box::pin(async { Ok(vec![([127, 0, 0, 1], 0).into()]) });
    let fetch = async |host: &str| {
        let prefix = format!("http://{host}:{port}");
        let fetcher = Fetcher {
            places: vec![Place::open(&prefix, pointed_here, &ServerClock::default()).unwrap()],
            ..fetcher(&prefix)
        };
        fetcher.fetch(&format!("{prefix}/image.jpg"), LENGTH).await
    };
    let rejection = fetch("images.example").await.unwrap_err();
    assert_eq!(rejection.code, RejectionCode::ImageUriNotAllowed, "{rejection}");
    assert!(rejection.message.contains("loopback"), "{rejection}");
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(fetch("localhost").await.unwrap(), IMAGE, "named by the operator");
}

#[tokio::test]
async fn a_server_that_fails_twice_is_asked_a_third_time() {
    let (base, requests) = server(|request, _| match request {
        0 => response("503 Service Unavailable", "", ""),
        1 => response("404 Not Found", "", ""),
        _ => ok(),
    })
    .await;
    assert_eq!(fetcher(&base).fetch(&format!("{base}/image.jpg"), LENGTH).await.unwrap(), IMAGE);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn each_failure_has_its_code_and_is_repeated_only_where_that_can_help() {
    for (status, code, expected_requests, said) in [
        ("404 Not Found", RejectionCode::ImageNotFound, 3, "no such image"),
        ("503 Service Unavailable", RejectionCode::ImageUnreachable, 3, "503 Service Unavailable"),
        ("403 Forbidden", RejectionCode::ImageUnreachable, 3, "credentials"),
        ("401 Unauthorized", RejectionCode::ImageUnreachable, 1, "credentials"),
    ] {
        let (base, requests) = server(move |_, _| response(status, "", "a page about /image.jpg")).await;
        let rejection = refusal(&fetcher(&base), &format!("{base}/image.jpg")).await;
        assert_eq!(rejection.code, code, "{rejection}");
        assert!(rejection.message.contains(said) && !rejection.message.contains("page"), "{rejection}");
        assert_eq!(requests.load(Ordering::SeqCst), expected_requests, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_bounded_time() {
    let (base, requests) = server(|_, _| None).await;
    let settings = FetchSettings { attempts: 2, timeout_ms: 50, ..settings(&[&base]) };
    let rejection = refusal(&Fetcher::new(&settings, 1_000).unwrap(), &format!("{base}/image.jpg")).await;
    assert_eq!(rejection.code, RejectionCode::ImageUnreachable);
    assert!(rejection.message.contains("50 ms (2 attempts)"), "{rejection}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let rejection = refusal(&fetcher(&base), &format!("{base}/image.jpg")).await;
    assert_eq!(rejection.code, RejectionCode::ImageUnreachable);
    assert!(rejection.message.contains("refused"), "{rejection}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, visits) = server(|_, _| ok()).await;
    let (base, requests) =
        server(move |_, _| response("302 Found", &format!("Location: {elsewhere}/image.jpg\r\n"), "")).await;
    let rejection = refusal(&fetcher(&base), &format!("{base}/image.jpg")).await;
    assert_eq!(rejection.code, RejectionCode::ImageUriNotAllowed, "{rejection}");
    assert_eq!((requests.load(Ordering::SeqCst), visits.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn an_image_that_is_too_large_is_refused_before_it_is_read() {
    let root = directory();
    let frames = root.path().join("frames");
    std::fs::write(frames.join("large.jpg"), vec![0; 1_001]).unwrap();
    let fetcher = fetcher(&file_uri(&frames));
    let uri = file_uri(&frames.join("large.jpg"));
    // Whether the event admits it or not.
    for expected_bytes in [1_001, LENGTH] {
        let rejection = fetcher.fetch(&uri, expected_bytes).await.unwrap_err();
        assert_eq!(rejection.code, RejectionCode::ImageTooLarge);
    }
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_waited_for() {
    let (base, requests) = server(|request, _| match request {
        0 => response("200 OK", "", "half of"),
        _ => ok(),
    })
    .await;
    let uri = format!("{base}/image.jpg");
    assert_eq!(fetcher(&base).fetch(&uri, LENGTH).await.unwrap(), IMAGE);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    let rejection = fetcher(&base).fetch(&uri, LENGTH + 1).await.unwrap_err();
    assert_eq!(rejection.code, RejectionCode::ImageDigestMismatch);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_no_image() {
    let (base, _) = server(|_, _| ok().map(|text| text.replace(" photograph", ""))).await;
    let rejection = refusal(&fetcher(&base), &format!("{base}/image.jpg")).await;
    assert_eq!(rejection.code, RejectionCode::ImageUnreachable, "{rejection}");
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_change() {
    for (prefix, said) in [
        ("file:///no/such/directory/anywhere", "cannot be opened"),
        ("frames", "is not a URL"),
        ("ftp://host.example/frames", "is not a file:"),
        ("https://user:secret@host.example/frames", "user info"),
        ("https://host.example/frames?token=secret", "query"),
    ] {
        let message =
            Fetcher::new(&settings(&["s3://bucket/frames", prefix]), 1_000).unwrap_err().to_string();
        assert!(message.starts_with("allowed_uri_prefixes: entry 1 ") && message.contains(said), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let zero = FetchSettings { attempts: 0, ..settings(&[]) };
    assert!(Fetcher::new(&zero, 1_000).unwrap_err().to_string().contains("fetch.attempts is 0"));
    let zero = FetchSettings { timeout_ms: 0, ..settings(&[]) };
    assert!(Fetcher::new(&zero, 1_000).unwrap_err().to_string().contains("fetch.timeout_ms is 0"));
}

#[test]
fn every_documented_scheme_opens_a_place() {
    let azure = "https://account.blob.core.windows.net/container/frames";
    let web = ["https://host.example/frames", "http://host.example:8080"];
    let prefixes = ["s3://bucket/frames", "gs://bucket/frames", azure, web[0], web[1], "file:///"];
    let fetcher = Fetcher::new(&settings(&prefixes), 1_000).unwrap();
    assert_eq!(fetcher.places.len(), prefixes.len());
}

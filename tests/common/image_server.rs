//! A web server on loopback that images are fetched from, and that counts how often.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for the rest of a request.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What is answered for a path.
#[derive(Debug, Clone)]
pub enum Answer {
    Image(Vec<u8>),
    /// 503 so many times, then the image.
    BusyAtFirst(usize, Vec<u8>),
    /// 503 for ever.
    Busy,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    requests: BTreeMap<String, Vec<Instant>>,
}

/// It ends with the process.
pub struct ImageServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl ImageServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A client that goes away is none of the server's business.
                answer(connection, &shared).unwrap_or_default();
            }
        });
        Self { address, state }
    }

    /// Says what to answer from now on, and returns the URI. Without it: 404.
    pub fn put(&self, path: &str, answer: Answer) -> String {
        self.lock().answers.insert(path.to_owned(), answer);
        self.uri(path)
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// When this path was asked for.
    pub fn requests(&self, path: &str) -> Vec<Instant> {
        self.lock().requests.get(path).cloned().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(mut connection: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    connection.set_read_timeout(Some(READ_TIMEOUT))?;
    let (mut head, mut piece) = (Vec::new(), [0; 1_024]);
    while !head.ends_with(b"\r\n\r\n") {
        let length = connection.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        head.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = state.requests.entry(path.clone()).or_default();
        requests.push(Instant::now());
        let count = requests.len();
        match state.answers.get(&path) {
            Some(Answer::BusyAtFirst(times, image)) if count > *times => ("200 OK", image.clone()),
            Some(Answer::Image(image)) => ("200 OK", image.clone()),
            Some(_) => ("503 Service Unavailable", Vec::new()),
            None => ("404 Not Found", Vec::new()),
        }
    };
    let length = body.len();
    let date = "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT";
    let head =
        format!("HTTP/1.1 {status}\r\n{date}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    connection.write_all(&[head.as_bytes(), &body].concat())
}

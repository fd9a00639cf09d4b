//! An HTTP server that answers what a test tells it to, and remembers the bundles that it took. A fake: it understands
//! nothing of FHIR.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What is answered from now on.
#[derive(Debug, Clone)]
pub enum Script {
    /// The bundle is taken.
    Take,
    /// The bundle is taken after so long.
    TakeSlowly(Duration),
    /// Status, further header lines and body.
    Say(u16, &'static str, String),
}

struct State {
    script: Script,
    /// Summary versions by embryo, in the order in which they were taken.
    taken: BTreeMap<String, Vec<u64>>,
    requests: Vec<(Instant, String)>,
}

/// It ends with the process.
pub struct ScriptedFhir {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl ScriptedFhir {
    pub fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State { script, taken: BTreeMap::new(), requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away is none of the server's business.
                std::thread::spawn(move || answer(connection, &shared).unwrap_or_default());
            }
        });
        Self { address, state }
    }

    pub fn base(&self) -> String {
        format!("http://{}/fhir", self.address)
    }

    pub fn say(&self, script: Script) {
        self.lock().script = script;
    }

    /// Versions of the summaries that were taken, by embryo.
    pub fn taken(&self) -> BTreeMap<String, Vec<u64>> {
        self.lock().taken.clone()
    }

    /// When requests came, and their heads.
    pub fn requests(&self) -> Vec<(Instant, String)> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(mut connection: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    connection.set_read_timeout(Some(READ_TIMEOUT))?;
    let (mut request, mut piece) = (Vec::new(), [0; 16_384]);
    let (head, length) = loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(request.get(..end).unwrap_or_default()).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            break (head, end + 4 + length.unwrap_or(0));
        }
        match connection.read(&mut piece)? {
            0 => return Ok(()),
            read => request.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    };
    while request.len() < length {
        match connection.read(&mut piece)? {
            0 => return Ok(()),
            read => request.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    let start = head.len() + 4;
    let bundle: Value = serde_json::from_slice(request.get(start..).unwrap_or_default()).unwrap_or_default();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    lock().requests.push((Instant::now(), head));
    let script = lock().script.clone();
    let (status, more, body) = match script {
        Script::Say(status, more, body) => (status, more, body),
        Script::Take => (200, "", taken(&mut lock(), &bundle)),
        Script::TakeSlowly(wait) => {
            std::thread::sleep(wait);
            (200, "", taken(&mut lock(), &bundle))
        }
    };
    let head =
        format!("HTTP/1.1 {status} x\r\n{more}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}

/// Notes which summary a bundle was made of.
fn taken(state: &mut State, bundle: &Value) -> String {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let events = entries.iter().filter_map(|entry| {
        entry["resource"]["entity"][0]["what"]["identifier"]["value"].as_str()?.rsplit_once('/')
    });
    for (embryo, version) in events {
        let version = version.parse().expect("a version");
        state.taken.entry(embryo.to_owned()).or_default().push(version);
    }
    r#"{"resourceType":"Bundle","type":"transaction-response"}"#.into()
}

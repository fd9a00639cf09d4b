//! What the built `memebg doctor` says.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

/// Status, what was found and the advice of each check, and the exit code.
pub struct Diagnosis {
    pub code: i32,
    pub healthy: bool,
    /// Everything that was printed.
    pub text: String,
    checks: BTreeMap<String, [String; 3]>,
}

/// Runs the doctor with these `section.key` options and no others.
pub fn run(arguments: &[&str], options: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memebg"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MEMEBG__")) {
        command.env_remove(name);
    }
    for (option, value) in options {
        command.env(format!("MEMEBG__{}", option.replace('.', "__").to_uppercase()), value);
    }
    command.arg("doctor").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("memebg can be started")
}

impl Diagnosis {
    pub fn of(options: &[(&str, &str)]) -> Self {
        Self::with(&[], options)
    }

    /// Of other processes than the service, separated by commas.
    pub fn of_processes(processes: &str, options: &[(&str, &str)]) -> Self {
        Self::with(&["--of", processes], options)
    }

    fn with(arguments: &[&str], options: &[(&str, &str)]) -> Self {
        let output = run(&[&["--json", "--timeout-seconds", "60"], arguments].concat(), options);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let document: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{output:?}"));
        let each = document["checks"].as_array().expect("checks").iter();
        let checks = each.map(|check| {
            let field = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
            (field("name"), [field("status"), field("found"), field("advice")])
        });
        let checks: Vec<_> = checks.collect();
        let number = checks.len();
        let checks = BTreeMap::from_iter(checks);
        assert_eq!(checks.len(), number, "a check is there twice: {text}");
        Self {
            code: output.status.code().expect("an exit code"),
            healthy: document["healthy"].as_bool().expect("whether it is healthy"),
            checks,
            text: text + &String::from_utf8_lossy(&output.stderr),
        }
    }

    /// Names of all checks, in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        self.checks.keys().map(String::as_str).collect()
    }

    /// Names of the checks that ended so.
    pub fn with_status(&self, status: &str) -> Vec<&str> {
        self.checks.iter().filter(|(_, check)| check[0] == status).map(|(name, _)| name.as_str()).collect()
    }

    /// The check ended so, and found or advice have all these words.
    #[track_caller]
    pub fn says(&self, name: &str, status: &str, words: &[&str]) {
        let [was, found, advice] =
            self.checks.get(name).unwrap_or_else(|| panic!("no {name}: {}", self.text));
        assert_eq!(was, status, "{name}: {found}\n{}", self.text);
        for word in words {
            assert!(
                found.contains(word) || advice.contains(word),
                "{name} lacks {word:?}: {found} -> {advice}"
            );
        }
        // What is skipped may have something to be done about it.
        if status != "skipped" {
            assert_eq!(advice.is_empty(), status == "ok", "{name}: {advice}");
        }
    }

    /// Nothing but this failed, and the exit code says whose fault it is.
    #[track_caller]
    pub fn only_fails(&self, names: &[&str], code: i32) {
        assert_eq!(self.with_status("fail"), names, "{}", self.text);
        assert_eq!((self.code, self.healthy), (code, false), "{}", self.text);
    }
}

/// A web server on loopback that answers every request so; it ends with the process. Returns where images would lie.
pub fn server(status: &'static str, date: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            // A request without a body comes in one piece here; whoever goes away is no matter.
            connection.read(&mut [0; 4_096]).unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\nDate: {date}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).unwrap_or_default();
        }
    });
    format!("http://{address}/frames")
}

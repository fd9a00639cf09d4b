//! A real Prometheus as a child process, which scrapes one target every second and evaluates the committed rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use url::Url;

const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running Prometheus. Dropping it kills it.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    runtime: Runtime,
    folder: TempDir,
}

impl Prometheus {
    /// Starts it; `job` is the name of the target's scrape job, `rules` a pattern of files.
    pub fn start(job: &str, target: SocketAddr, rules: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": job, "static_configs": [{ "targets": [target.to_string()] }] }],
        });
        // JSON is YAML.
        fs::write(folder.path().join("prometheus.yml"), config.to_string()).unwrap();
        // It cannot be asked for a free port.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("prometheus is not on PATH; Debian's package `prometheus` has it");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { child, address, runtime, folder }
    }

    /// `data` of the answer to a request; nothing when nobody answers yet.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let url = Url::parse_with_params(&url, parameters).unwrap();
        let answer = self.runtime.block_on(async {
            let client = reqwest::Client::builder().timeout(HTTP_TIMEOUT).build().ok()?;
            client.get(url).send().await.ok()?.bytes().await.ok()
        })?;
        // Before it is ready it answers in plain text.
        let mut answer: Value = serde_json::from_slice(&answer).ok()?;
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        Some(answer["data"].take())
    }

    /// The values that a query has now, those that are numbers.
    pub fn query(&self, expr: &str) -> Vec<f64> {
        let data = self.get("query", &[("query", expr)]).unwrap_or_default();
        let series = data["result"].as_array().into_iter().flatten();
        let values = series.filter_map(|one| one["value"][1].as_str()?.parse().ok());
        values.filter(|value: &f64| value.is_finite()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let warnings = log.lines().filter(|line| !line.contains("level=info"));
            eprintln!("log of Prometheus:\n{}", warnings.collect::<Vec<_>>().join("\n"));
        }
    }
}

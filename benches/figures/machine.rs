//! What the figures were measured on.

use std::fs;
use std::thread::available_parallelism;

use serde_json::{Value, json};

/// In one line.
pub fn description() -> String {
    let facts = facts();
    let of = |name: &str| facts[name].as_str().unwrap_or("?").to_owned();
    format!(
        "{} x {}, {} GiB, Linux {}, memebg {} ({} build)",
        facts["cores"],
        of("cpu"),
        facts["memory_gib"],
        of("kernel"),
        of("memebg"),
        of("build")
    )
}

/// By name.
pub fn facts() -> Value {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
    };
    let memory = line("/proc/meminfo", "MemTotal");
    let memory_kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
    json!({
        "cpu": line("/proc/cpuinfo", "model name"),
        "cores": available_parallelism().map_or(0, usize::from),
        "memory_gib": memory_kib.div_ceil(1 << 20),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "memebg": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    })
}

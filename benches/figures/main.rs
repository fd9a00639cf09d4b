//! Everything that is claimed about speed, each beside what it is compared with, in turn within one run.
//!
//! ```sh
//! cargo bench --features broker-tests --bench figures                       # the whole table, about an hour
//! cargo bench --features broker-tests --bench figures -- --only skipping    # one part of it
//! cargo bench --features broker-tests --bench figures -- --short            # a few frames each: that it works
//! cargo bench --features broker-tests --bench figures -- --device cuda --library LIBRARY   # models on a GPU
//! ```
//! Needs what the tests with a broker need, and once the Python packages of `benches/peer` and the weights of the fp32
//! bundle. Prints a table in Markdown, and writes it as JSON with every round (`--json FILE`).

#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must end the run, with its reason")]

mod agreement;
mod bare;
mod bundles;
#[path = "../../tests/common/mod.rs"]
mod common;
mod decode;
mod delivery;
mod device;
mod door;
mod feed;
mod grading;
mod growth;
mod latency;
mod machine;
mod memory;
mod peer;
#[path = "../../tests/common/process.rs"]
mod process;
mod rate;
mod served;
mod skipping;
#[path = "../../tests/common/stream.rs"]
mod stream;
mod table;

use std::path::PathBuf;

use clap::Parser;

use bundles::Bundles;
use device::Device;
use table::Table;

/// A name, and what measures it.
type Part = (&'static str, fn(&Bench, &mut Table));

/// What is measured, in this order.
const PARTS: [Part; 10] = [
    ("decode", decode::measure),
    ("door", door::measure),
    ("skipping", skipping::measure),
    ("grading", grading::measure),
    ("mix", grading::measure_mix),
    ("agreement", agreement::measure),
    ("delivery", delivery::measure),
    ("latency", latency::measure),
    ("growth", growth::measure),
    ("memory", memory::measure),
];

#[derive(Parser)]
struct Args {
    /// A few frames and one round each: shows that it works and measures nothing.
    #[arg(long)]
    short: bool,
    /// Only these parts, by their names in the first column.
    #[arg(long, value_delimiter = ',', value_parser = PARTS.map(|(name, _)| name))]
    only: Vec<String>,
    #[command(flatten)]
    device: Device,
    /// Where the figures go.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/figures.json"))]
    json: PathBuf,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What every part works with.
struct Bench {
    short: bool,
    bundles: Bundles,
    device: Device,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// One of two numbers: for a measurement, and for a look at whether it works.
    fn pick<T>(&self, long: T, short: T) -> T {
        if self.short { short } else { long }
    }
}

fn main() {
    // Starts the program again, in place.
    memebg::model::opt_out_of_usage_reports().expect("a restart");
    let args = Args::parse();
    let bench = Bench {
        short: args.short,
        bundles: Bundles::prepare(args.short, &args.device),
        device: args.device,
        runtime: tokio::runtime::Runtime::new().expect("a runtime"),
    };
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if args.only.is_empty() || args.only.iter().any(|only| only == name) {
            eprintln!("measuring {name}");
            table.part(name);
            measure(&bench, &mut table);
        }
    }
    println!("{}, models on {}\n\n{table}", machine::description(), bench.device.name());
    table.write_json(&args.json);
    eprintln!("{}", args.json.display());
}

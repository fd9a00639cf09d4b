//! The rows, as Markdown and as JSON.

use std::fmt;
use std::path::Path;

use comfy_table::presets::ASCII_MARKDOWN;
use serde_json::{Value, json};

use crate::machine;

/// What was measured, one row each.
#[derive(Default)]
pub struct Table {
    part: &'static str,
    rows: Vec<Row>,
}

struct Row {
    part: &'static str,
    what: String,
    unit: &'static str,
    rounds: Vec<f64>,
    reference: Option<(String, Vec<f64>)>,
}

impl Table {
    /// Begins a part.
    pub fn part(&mut self, name: &'static str) {
        self.part = name;
    }

    /// A figure by itself, in all its rounds.
    pub fn figure(&mut self, what: impl Into<String>, unit: &'static str, rounds: &[f64]) {
        self.push(what.into(), unit, rounds, None);
    }

    /// A figure beside another one that was measured in turn with it.
    pub fn beside(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        rounds: &[f64],
        reference: impl Into<String>,
        others: &[f64],
    ) {
        assert_eq!(rounds.len(), others.len(), "in turn");
        self.push(what.into(), unit, rounds, Some((reference.into(), others.to_vec())));
    }

    fn push(
        &mut self,
        what: String,
        unit: &'static str,
        rounds: &[f64],
        reference: Option<(String, Vec<f64>)>,
    ) {
        assert!(!rounds.is_empty(), "{what}: nothing was measured");
        let row = Row { part: self.part, what, unit, rounds: rounds.to_vec(), reference };
        eprintln!("  {}", row.cells().join(" | "));
        self.rows.push(row);
    }

    /// Writes every round of every row.
    pub fn write_json(&self, path: &Path) {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let all = json!({ "machine": machine::facts(), "rows": rows });
        std::fs::write(path, format!("{all:#}\n")).expect("the figures can be written");
    }
}

impl Row {
    /// Per round: this one over its reference.
    fn ratios(&self) -> Option<Vec<f64>> {
        let (_, others) = self.reference.as_ref()?;
        Some(self.rounds.iter().zip(others).map(|(own, other)| own / other).collect())
    }

    fn cells(&self) -> [String; 5] {
        let reference = self.reference.as_ref();
        [
            self.part.to_owned(),
            self.what.clone(),
            format!("{} {}", spread(&self.rounds), self.unit),
            reference.map_or_else(String::new, |(name, rounds)| format!("{name}: {}", spread(rounds))),
            self.ratios().map_or_else(String::new, |ratios| spread(&ratios)),
        ]
    }

    fn json(&self) -> Value {
        let summary = |rounds: &[f64]| json!({ "median": median(rounds), "rounds": rounds });
        let mut row = summary(&self.rounds);
        row["part"] = json!(self.part);
        row["what"] = json!(self.what);
        row["unit"] = json!(self.unit);
        if let Some((name, rounds)) = &self.reference {
            row["reference"] = summary(rounds);
            row["reference"]["what"] = json!(name);
        }
        if let Some(ratios) = self.ratios() {
            row["ratio"] = summary(&ratios);
        }
        row
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["part", "what", "median (least to most)", "beside", "ratio (least to most)"]);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        table.fmt(formatter)
    }
}

/// Middle of the rounds.
pub fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median, and least to most when there are several rounds.
fn spread(rounds: &[f64]) -> String {
    let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if rounds.len() == 1 {
        return short(most);
    }
    format!("{} ({} to {})", short(median(rounds)), short(least), short(most))
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        less if less < 1.0 => format!("{value:.3}"),
        less if less < 10.0 => format!("{value:.2}"),
        less if less < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

//! Two pieces of work in turn, A B A B, so that whatever else the machine does touches both.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Times each of both `rounds` times, after a tenth as many rounds that do not count.
pub fn take(rounds: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> (Vec<Duration>, Vec<Duration>) {
    let (mut a_times, mut b_times) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds + rounds / 10 {
        let (a_time, b_time) = (time(&mut a), time(&mut b));
        if round >= rounds / 10 {
            a_times.push(a_time);
            b_times.push(b_time);
        }
    }
    (a_times, b_times)
}

fn time(work: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Prints median and spread, and returns the median.
pub fn report(name: &str, times: &[Duration]) -> Result<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().context("no rounds");
    let (low, median, high) = (at(10)?, at(50)?, at(90)?);
    println!("{name:<48} median {median:>9.1?}   10-90 % {low:.1?} to {high:.1?}");
    Ok(median)
}

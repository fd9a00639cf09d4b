//! How a metric is declared: once, with its prefix, its help and its first series.

use prometheus::core::Collector;
use prometheus::{
    Counter, Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// A registry that is being filled.
pub(super) struct Declare(Registry);

impl Declare {
    pub(super) fn new() -> Self {
        Self(Registry::new())
    }

    /// The registry, with the metrics of the process itself where they can be read.
    pub(super) fn finish(self) -> Result<Registry, Error> {
        #[cfg(target_os = "linux")]
        self.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(self.0)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::with_opts(opts(name, help))?)
    }

    /// A counter of seconds, which are not whole.
    pub(super) fn seconds(&self, name: &str, help: &str) -> Result<Counter, Error> {
        self.add(Counter::with_opts(opts(name, help))?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::with_opts(opts(name, help))?)
    }

    /// Whole gauges by label, without a series until something is known; mostly 1, to say something with their labels.
    pub(super) fn info<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(opts(name, help), &labels)?)
    }

    /// Gauges of real numbers, without a series until something is known.
    pub(super) fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<GaugeVec, Error> {
        self.add(GaugeVec::new(opts(name, help), &labels)?)
    }

    /// `series` exist, at zero, before anything has happened.
    pub(super) fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        series: &[[&str; N]],
    ) -> Result<IntCounterVec, Error> {
        let family = IntCounterVec::new(opts(name, help), &labels)?;
        for values in series {
            family.get_metric_with_label_values(values)?;
        }
        self.add(family)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets))?)
    }

    /// `series` exist, empty, before anything has happened.
    pub(super) fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        buckets: Vec<f64>,
        series: &[[&str; N]],
    ) -> Result<HistogramVec, Error> {
        let family = HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(buckets), &labels)?;
        for values in series {
            family.get_metric_with_label_values(values)?;
        }
        self.add(family)
    }

    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// `count` bucket bounds from `first`, each twice the one before: a constant relative error.
pub(super) fn doubling(first: f64, count: usize) -> Result<Vec<f64>, Error> {
    exponential_buckets(first, 2.0, count)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("memebg")
}

//! Traces: one span for each frame that is graded or refused, within the trace of its frame event, and one for each
//! batch, linked with the frames in it. Sent with OTLP over HTTP; switched off, they cost nothing.
//!
//! Names follow OpenTelemetry's conventions for messaging. No span carries anything about an embryo.

mod export;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Link, Span as _, SpanKind, TraceContextExt as _, TraceFlags, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use serde::{Deserialize, Serialize};

pub use export::reach;

/// How long the last spans may take to be sent when the service ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where traces go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// URL that takes OTLP over HTTP, e.g. `http://127.0.0.1:4318/v1/traces`; empty for no traces.
    pub endpoint: String,
    /// Share of the frames that are traced, 0 to 1, where the frame event does not say.
    pub sample_ratio: f64,
}

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.traces.endpoint cannot be used: {0}")]
pub struct TracesError(String);

impl TraceSettings {
    /// Checks what the types do not express.
    ///
    /// # Errors
    /// A text that names the option and its value.
    pub fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(format!("telemetry.traces.sample_ratio {} is not within 0 and 1", self.sample_ratio));
        }
        // A user in the URL would come up in messages about it.
        let usable = |url: &url::Url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty()
        };
        if !self.endpoint.is_empty() && !url::Url::parse(&self.endpoint).is_ok_and(|url| usable(&url)) {
            let advice = "credentials go into OTEL_EXPORTER_OTLP_HEADERS";
            return Err(format!(
                "telemetry.traces.endpoint is not an http or https URL without a user; {advice}"
            ));
        }
        Ok(())
    }
}

/// Makes spans. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<On>>);

struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Sends spans where the settings say, or nowhere.
    ///
    /// # Errors
    /// When the endpoint cannot be used. Whether anybody listens there is found out later, and only logged.
    pub fn start(settings: &TraceSettings) -> Result<Self, TracesError> {
        if settings.endpoint.is_empty() {
            return Ok(Self::default());
        }
        let exporter = export::exporter(&settings.endpoint).map_err(TracesError)?;
        let resource = Resource::builder_empty()
            .with_service_name("memebg")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("memebg");
        Ok(Self(Some(Arc::new(On { provider, tracer }))))
    }

    /// The span of a frame that was received at `received_at`, within the trace that `traceparent` (W3C) names.
    #[must_use]
    pub fn frame(
        &self,
        traceparent: Option<&str>,
        topic: &str,
        (partition, offset): (i32, i64),
        received_at: Instant,
    ) -> FrameTrace {
        let Some(on) = &self.0 else { return FrameTrace::default() };
        let parent = traceparent.map_or_else(Context::new, parent);
        let span = on
            .tracer
            .span_builder(format!("process {topic}"))
            .with_kind(SpanKind::Consumer)
            .with_start_time(system_time(received_at))
            .with_attributes([
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", topic.to_owned()),
                KeyValue::new("messaging.destination.partition.id", partition.to_string()),
                KeyValue::new("messaging.kafka.offset", offset),
            ])
            .start_with_context(&on.tracer, &parent);
        // One that is not sampled is not kept: the trace that the event names is passed on as it is.
        FrameTrace(span.is_recording().then(|| Box::new(Recorded { span, tracer: on.tracer.clone() })))
    }

    /// The span of a batch of these frames, which lasts as long as it is held.
    pub fn batch<'a>(&self, frames: impl Iterator<Item = &'a FrameTrace>) -> BatchTrace {
        let Some(on) = &self.0 else { return BatchTrace::default() };
        let contexts = frames.filter_map(|frame| frame.0.as_ref().map(|it| it.span.span_context().clone()));
        let links: Vec<Link> = contexts.map(Link::with_context).collect();
        if links.is_empty() {
            return BatchTrace::default();
        }
        // Sampled because a frame in it is.
        let sampled = links.first().map_or_else(Context::new, |link| {
            Context::new().with_remote_span_context(link.span_context.clone())
        });
        let frames = i64::try_from(links.len()).unwrap_or(i64::MAX);
        let span = on
            .tracer
            .span_builder("grade batch")
            .with_kind(SpanKind::Internal)
            .with_links(links)
            .with_attributes([KeyValue::new("memebg.batch.traced_frames", frames)])
            .start_with_context(&on.tracer, &sampled);
        BatchTrace(Some(Arc::new(span)))
    }

    /// Sends what has not been sent yet. Blocks.
    pub fn flush(&self) {
        if let Some(on) = &self.0
            && let Err(error) = on.provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// The span of a frame; nothing when it is not traced.
#[derive(Debug, Default)]
pub struct FrameTrace(Option<Box<Recorded>>);

#[derive(Debug)]
struct Recorded {
    span: Span,
    tracer: SdkTracer,
}

impl FrameTrace {
    /// A part of the frame's way, from `started` until now.
    pub fn stage(&self, name: &'static str, started: Instant) {
        self.linked_stage(name, started, &BatchTrace::default());
    }

    /// A part of the frame's way in a batch, from `started` until now.
    pub fn linked_stage(&self, name: &'static str, started: Instant, batch: &BatchTrace) {
        let Some(recorded) = &self.0 else { return };
        let parent = Context::new().with_remote_span_context(recorded.span.span_context().clone());
        let links = batch.0.iter().map(|batch| Link::with_context(batch.span_context().clone())).collect();
        let mut span = recorded
            .tracer
            .span_builder(name)
            .with_start_time(system_time(started))
            .with_links(links)
            .start_with_context(&recorded.tracer, &parent);
        span.end();
    }

    /// The `traceparent` (W3C) of this span, for the event that follows from the frame.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span.span_context();
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags))
    }

    /// The frame is settled.
    pub fn end(self, outcome: &'static str) {
        if let Some(mut recorded) = self.0 {
            recorded.span.set_attribute(KeyValue::new("memebg.outcome", outcome));
            recorded.span.end();
        }
    }
}

/// The span of a batch, which ends with the last of its frames.
#[derive(Debug, Clone, Default)]
pub struct BatchTrace(Option<Arc<Span>>);

struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// One that is not a `traceparent` begins a trace of its own.
fn parent(traceparent: &str) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(traceparent))
}

fn system_time(instant: Instant) -> SystemTime {
    SystemTime::now() - instant.elapsed()
}

//! Traces as a collector gets them: OTLP over HTTP from the real service, received by a server of the test.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use common::frames::{self, Record};
use common::service::{TestService, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What the collector has received: the spans, and the attributes of what sent them.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Span>>>);

impl Received {
    fn take(&self, body: &Bytes) {
        let request = ExportTraceServiceRequest::decode(body.clone()).expect("OTLP");
        for resource in request.resource_spans {
            let attributes = resource.resource.expect("a resource").attributes;
            assert!(attributes.iter().any(|it| it.key == "service.name"), "{attributes:?}");
            self.0.lock().unwrap().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

/// A server that lives as long as the runtime.
fn collector(runtime: &tokio::runtime::Runtime) -> (Received, String) {
    let received = Received::default();
    let sink = received.clone();
    let app = Router::new().route("/v1/traces", post(move |body: Bytes| async move { sink.take(&body) }));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, app).await });
    (received, format!("http://{address}/v1/traces"))
}

fn send(service: &TestService, embryo_id: &str, traceparent: Option<&str>) {
    let record = Record::of(&frames::event(embryo_id));
    service.send(&match traceparent {
        Some(traceparent) => record.header("traceparent", traceparent),
        None => record,
    });
}

#[test]
fn a_sampled_frame_has_a_span_in_its_trace_with_its_stages_and_a_link_from_its_batch() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (received, endpoint) = collector(&runtime);
    let endpoint = format!("telemetry.traces.endpoint={endpoint}");
    let service = TestService::start(&[&endpoint, "telemetry.traces.sample_ratio=0"]);
    send(&service, "sampled", Some(&format!("00-{TRACE}-{PARENT}-01")));
    send(&service, "unsampled", Some(&format!("00-{TRACE}-{PARENT}-00")));
    send(&service, "untraced", None);
    send(&service, "nonsense", Some("no traceparent"));

    let passed_on = |embryo_id: &str| {
        let message = service.grades_of(embryo_id, 1).remove(0).0;
        header(&message, "traceparent").map(str::to_owned)
    };
    let own = passed_on("sampled").expect("a traceparent");
    assert_eq!(passed_on("unsampled"), Some(format!("00-{TRACE}-{PARENT}-00")));
    assert_eq!(passed_on("untraced"), None);
    assert_eq!(passed_on("nonsense").as_deref(), Some("no traceparent"));
    // The end of the service sends what is left.
    drop(service);

    let spans = received.spans();
    let of = |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let frame = of("process incubator.frames.v1");
    assert_eq!(frame.len(), 1, "only the sampled frame is traced: {spans:?}");
    let frame = frame[0];
    assert_eq!(
        (hex::encode(&frame.trace_id), hex::encode(&frame.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(
        own,
        format!("00-{TRACE}-{}-01", hex::encode(&frame.span_id)),
        "the grade carries on the trace"
    );
    let outcome = frame.attributes.iter().find(|it| it.key == "memebg.outcome").expect("an outcome");
    assert!(format!("{:?}", outcome.value).contains("graded"), "{outcome:?}");
    for stage in ["decode", "grade", "publish"] {
        let spans = of(stage);
        assert_eq!(spans.len(), 1, "{stage}");
        assert_eq!(
            (&spans[0].trace_id, &spans[0].parent_span_id),
            (&frame.trace_id, &frame.span_id),
            "{stage}"
        );
        assert!(spans[0].end_time_unix_nano >= spans[0].start_time_unix_nano);
    }
    let batches = of("grade batch");
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].links.len(), 1);
    assert_eq!(batches[0].links[0].span_id, frame.span_id);
    assert_eq!(of("grade")[0].links[0].span_id, batches[0].span_id);
    let text = format!("{spans:?}");
    assert!(!text.contains("sampled"), "no span says which embryo it is about: {text}");
}

#[test]
fn a_collector_that_is_away_costs_no_frame() {
    // Nobody listens on port 9, and everything would be traced.
    let endpoint = "telemetry.traces.endpoint=http://127.0.0.1:9/v1/traces";
    let service = TestService::start(&[endpoint, "telemetry.traces.sample_ratio=1"]);
    (0..4).for_each(|number| send(&service, &format!("away-{number}"), None));
    (0..4).for_each(|number| drop(service.grades_of(&format!("away-{number}"), 1)));
}

//! The page: HTML, CSS and modules that are compiled in, so that nothing is fetched from anywhere else.

use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderName};
use axum::http::{HeaderMap, HeaderValue};

/// Name, media type, content.
const ASSETS: &[(&str, &str, &str)] = &[
    ("board.css", CSS, include_str!("page/board.css")),
    ("board.js", JS, include_str!("page/board.js")),
    ("chart.js", JS, include_str!("page/chart.js")),
    ("dom.js", JS, include_str!("page/dom.js")),
    ("embryo.js", JS, include_str!("page/embryo.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("review.js", JS, include_str!("page/review.js")),
    ("wall.js", JS, include_str!("page/wall.js")),
    ("words.js", JS, include_str!("page/words.js")),
];
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// The page itself.
pub(super) const INDEX: &str = include_str!("page/index.html");
/// What somebody sees who has not signed in. It needs nothing else, because nothing else is answered.
pub(super) const SIGN_IN: &str = include_str!("page/sign-in.html");

/// Nothing from elsewhere, nothing inline, no text that becomes markup, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Media type and content of a file of the page.
pub(super) fn asset(name: &str) -> Option<(&'static str, &'static str)> {
    ASSETS.iter().find(|(known, ..)| *known == name).map(|(_, media_type, content)| (*media_type, *content))
}

/// Puts the headers onto an answer that every answer has.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

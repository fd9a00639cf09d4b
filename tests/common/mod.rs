//! What several test binaries share. Each binary compiles this anew and uses a part of it only.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::panic, reason = "a broken harness must fail the test, with its reason")]

pub mod bundle;
pub mod frames;
pub mod image_server;
#[cfg(feature = "broker-tests")]
pub mod kafka;
pub mod published;
pub mod service;

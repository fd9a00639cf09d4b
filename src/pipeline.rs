//! THE wiring.

pub mod decode;
pub mod fetch;
pub mod grade;
pub mod message;
pub mod quality;

//! THE wiring.

pub mod grade;
pub mod message;

//! memebg

pub mod domain;
pub mod incubator;
pub mod model;
pub mod pipeline;
pub mod telemetry;

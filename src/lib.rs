//! memebg

pub mod cli;
pub mod config;
pub mod domain;
pub mod incubator;
pub mod kafka;
pub mod model;
pub mod pipeline;
pub mod service;
pub mod telemetry;

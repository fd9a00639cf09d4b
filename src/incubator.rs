//! incubator

//! From summaries to an EMR: which version of an embryo is to be sent, and one attempt after the other until it is there.
//!
//! The topics are read and written by [`crate::kafka::emr`], what is sent is made by [`crate::fhir`].

mod desk;
mod outcome;
mod queue;
mod sender;
mod server;
mod settings;

pub use desk::Desk;
pub use sender::{BundleSink, Sender};
pub use server::Server;
pub use server::capability::{Capabilities, Unusable};
pub use settings::EmrSettings;

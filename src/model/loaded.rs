//! A network that is loaded, and the batch sizes it is run with.

use std::borrow::Cow;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue, SessionOutputs};

use super::ModelError;
use super::bundle::Network;
use super::device::Device;
use super::runs::usable_sizes;
use super::tensor::failed;
use crate::pipeline::grade::GraderError;

/// A session and the batch sizes it is run with.
pub(super) struct Loaded {
    session: Session,
    /// Rising.
    pub(super) sizes: Vec<usize>,
}

impl Loaded {
    /// Loads a network for a device, and what `check` has found out about it.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot run it, [`ModelError::Bundle`] with what `check`
    /// finds wrong.
    pub(super) fn new<T>(
        environment: &Environment,
        device: Device,
        network: &Network,
        sizes: (&[usize], usize),
        check: impl FnOnce(&Session) -> Result<T, String>,
    ) -> Result<(Self, T), ModelError> {
        let session = device.session(environment, network)?;
        let checked = check(&session).map_err(|reason| ModelError::bundle(network.path(), reason))?;
        let (batch_sizes, max_batch_frames) = sizes;
        Ok((Self { session, sizes: usable_sizes(batch_sizes, max_batch_frames) }, checked))
    }

    /// One run of named inputs.
    pub(super) fn run(
        &mut self,
        inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)>,
    ) -> Result<SessionOutputs<'_>, GraderError> {
        self.session.run(inputs).map_err(failed)
    }
}

//! Connections of the board: bounded in number, and given up when nothing moves.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

use crate::telemetry::bounded::{Bounded, GivenUp};

/// A browser opens six at most.
const MAX_CONNECTIONS: usize = 128;
/// Longer than the pause between two signs of life of an event stream.
const IDLE: Duration = Duration::from_secs(45);

/// Who has connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(*stream.remote_addr())
    }
}

pub(super) fn bounded(listener: TcpListener) -> Bounded {
    Bounded::new(listener, MAX_CONNECTIONS, GivenUp::Idle(IDLE))
}

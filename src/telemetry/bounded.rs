//! Connections without trust in the client: bounded in number, and given up in time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// When a connection fails, whatever it is waiting for.
#[derive(Debug, Clone, Copy)]
pub enum GivenUp {
    /// So long after it was accepted.
    After(Duration),
    /// When no byte was read or written for so long.
    Idle(Duration),
}

/// A listener that takes no more connections than it has permits.
#[derive(Debug)]
pub struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
    given_up: GivenUp,
}

impl Bounded {
    /// At most `connections` at a time.
    #[must_use]
    pub fn new(listener: TcpListener, connections: usize, given_up: GivenUp) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(connections)), given_up }
    }
}

impl Listener for Bounded {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        // The semaphore is never closed; were it, one connection too many would be harmless.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let (GivenUp::After(time) | GivenUp::Idle(time)) = self.given_up;
        (
            BoundedStream { stream, given_up: self.given_up, end: Box::pin(sleep(time)), _permit: permit },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when it is given up.
#[derive(Debug)]
pub struct BoundedStream {
    stream: TcpStream,
    given_up: GivenUp,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BoundedStream {
    /// What comes of an attempt to read or write.
    fn attempt<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        match self.given_up {
            GivenUp::After(_) => match self.end.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(late(())),
                Poll::Pending => attempt(Pin::new(&mut self.stream), context),
            },
            GivenUp::Idle(time) => {
                let attempted = attempt(Pin::new(&mut self.stream), context);
                if attempted.is_ready() {
                    self.end.as_mut().reset(Instant::now() + time);
                    return attempted;
                }
                self.end.as_mut().poll(context).map(late)
            }
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.attempt(context, |stream, context| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.attempt(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.attempt(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.attempt(context, |stream, context| stream.poll_shutdown(context))
    }
}

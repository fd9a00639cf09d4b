//! The in-process broker of the demo and of tests: librdkafka's own, with the real protocol over
//! loopback, so that other processes can connect too.
//!
//! It keeps the last 5 MiB of a partition and drops what is older at once; whoever produces has to
//! be held back to what has been consumed, as [`super::feed`] does.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rdkafka::mocking::MockCluster;

use super::Error;

/// A running broker; it ends when dropped.
pub struct EmbeddedBroker {
    bootstrap_servers: String,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts a broker on a free loopback port with these topics and numbers of partitions.
    ///
    /// # Errors
    /// When librdkafka cannot start it.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, Error> {
        let topics: Vec<(String, i32)> =
            topics.iter().map(|(topic, partitions)| ((*topic).to_owned(), *partitions)).collect();
        let (started, start) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        // The cluster must stay on the thread that made it.
        let run = move || {
            let cluster = MockCluster::new(1).and_then(|cluster| {
                for (topic, partitions) in &topics {
                    cluster.create_topic(topic, *partitions, 1)?;
                }
                Ok(cluster)
            });
            match cluster {
                Ok(cluster) => {
                    drop(started.send(Ok(cluster.bootstrap_servers())));
                    // Ends when the sender is dropped; nothing is ever sent.
                    stopped.recv().ok();
                }
                Err(source) => {
                    drop(
                        started
                            .send(Err(Error::Client { what: "embedded broker cannot be started", source })),
                    );
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("kafka-embedded".into())
            .spawn(run)
            .map_err(|error| Error::Thread("kafka-embedded", error))?;
        let bootstrap_servers = start
            .recv()
            .map_err(|_| Error::Thread("kafka-embedded", std::io::Error::other("it ended at once")))??;
        Ok(Self { bootstrap_servers, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, `host:port`.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

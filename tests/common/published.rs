//! Reads back what a service has published: every grade event and every dead letter, as raw messages.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memebg::pipeline::message::{Position, RawMessage};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

const POLL: Duration = Duration::from_millis(50);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Read {
    messages: Mutex<Vec<RawMessage>>,
    more: Condvar,
}

/// A growing copy of some topics, from their beginning on.
pub struct Published {
    read: Arc<Read>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Published {
    pub fn follow(client: &ClientConfig, topics: &[&str]) -> Self {
        let consumer: BaseConsumer =
            client.clone().set("group.id", "tests-read-back").create().expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT).expect("metadata");
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                assignment
                    .add_partition_offset(topic, partition.id(), Offset::Beginning)
                    .expect("a valid offset");
            }
        }
        consumer.assign(&assignment).expect("assigned");
        let (read, stop) = (Arc::<Read>::default(), CancellationToken::new());
        let (copy, until) = (Arc::clone(&read), stop.clone());
        let thread = std::thread::spawn(move || {
            while !until.is_cancelled() {
                if let Some(Ok(message)) = consumer.poll(POLL) {
                    let message = owned(&message);
                    copy.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                    copy.more.notify_all();
                }
            }
        });
        Self { read, stop, thread: Some(thread) }
    }

    /// What has been read so far.
    pub fn messages(&self) -> MutexGuard<'_, Vec<RawMessage>> {
        self.read.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `find` makes of the messages, as soon as it makes something of them; `None` after `timeout`.
    pub fn wait_for<T>(
        &self,
        timeout: Duration,
        mut find: impl FnMut(&[RawMessage]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut messages = self.messages();
        loop {
            if let Some(found) = find(&messages) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            messages = self.read.more.wait_timeout(messages, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the reader of the published events panicked");
        }
    }
}

fn owned(message: &BorrowedMessage<'_>) -> RawMessage {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    RawMessage {
        topic: message.topic().into(),
        position: Position { partition: message.partition(), offset: message.offset() },
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|it| (it.key.to_owned(), it.value.map(<[u8]>::to_vec))).collect(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

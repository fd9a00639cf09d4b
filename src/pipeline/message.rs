//! A message as a broker hands it over, borrowed while it is looked at and owned once it is wanted.

use std::sync::Arc;

/// Where a message lies in the frames topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset within the partition.
    pub offset: i64,
}

/// A message that still belongs to the consumer. Looking at it copies nothing.
#[derive(Debug, Clone)]
pub struct MessageView<'a> {
    /// Topic it came from.
    pub topic: &'a str,
    /// Where it lies.
    pub position: Position,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order. A name may occur more than once.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
    /// Broker or producer timestamp, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

/// A message that is kept: whatever becomes of it, the original can be dead-lettered unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// Topic it came from.
    pub topic: Arc<str>,
    /// Where it lies.
    pub position: Position,
    /// Key, if any.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Broker or producer timestamp, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

impl<'a> MessageView<'a> {
    /// The last value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let found = self.headers.iter().rev().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        found.1.and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Length of the value.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value.map_or(0, <[u8]>::len)
    }

    /// The owned copy.
    #[must_use]
    pub fn to_raw(&self) -> RawMessage {
        RawMessage {
            topic: Arc::from(self.topic),
            position: self.position,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp_ms: self.timestamp_ms,
        }
    }
}

impl RawMessage {
    /// The same message, borrowed.
    #[must_use]
    pub fn view(&self) -> MessageView<'_> {
        MessageView {
            topic: &self.topic,
            position: self.position,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect(),
            timestamp_ms: self.timestamp_ms,
        }
    }
}

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

    /// Length of value, key and headers: what a copy takes. The value may be the least of it.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len));
        let overhead = self.headers.len() * size_of::<(String, Option<Vec<u8>>)>();
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        length(self.value) + length(self.key) + headers.sum::<usize>() + overhead
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_large_as_all_that_is_copied_of_it() {
        let (key, value, header) = (vec![1; 300], vec![2; 500], vec![3; 700]);
        let message = MessageView {
            topic: "frames",
            position: Position { partition: 0, offset: 0 },
            key: Some(&key),
            value: Some(&value),
            headers: vec![("some", Some(&header)), ("none", None)],
            timestamp_ms: None,
        };
        assert!((1_508..1_700).contains(&message.size_bytes()), "{}", message.size_bytes());
        let empty = MessageView { key: None, value: None, headers: Vec::new(), ..message };
        assert_eq!(empty.size_bytes(), 0);
    }
}

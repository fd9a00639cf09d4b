//! How far a group has come.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::TURN;
use super::ask::{Extents, Heard};
use super::found::{Client, Deadline, Progress, Reason};
use crate::kafka::{StartFrom, refusal};

/// How far the group of `client` has come in what lies there.
pub(super) fn progress(
    client: &Client,
    observer: &BaseConsumer<Heard>,
    extents: &Extents,
    deadline: Deadline,
) -> Result<Progress, Reason> {
    let mut asked = TopicPartitionList::with_capacity(extents.len());
    for partition in extents.keys() {
        asked.add_partition(&client.follows, *partition);
    }
    let committed = loop {
        // A group that may not be seen has no coordinator to answer.
        let answer = observer.committed_offsets(asked.clone(), deadline.left().min(TURN));
        if let Some(Err(error)) = observer.poll(Duration::ZERO)
            && let Some(code) = error.rdkafka_error_code()
        {
            observer.context().note(code);
        }
        match answer {
            Ok(committed) => break committed,
            Err(error) => {
                let not_in_group = observer.context().not_in_group.load(Ordering::Relaxed);
                let code = error.rdkafka_error_code();
                if not_in_group || code == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
                    observer.context().note(RDKafkaErrorCode::GroupAuthorizationFailed);
                    return Err(not_in_the_group(client));
                }
                if deadline.is_over() {
                    let group = &client.kafka.group_id;
                    return Err(Reason::no_answer(&format!("offsets of group {group}"), error));
                }
            }
        }
    };
    let committed = committed.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(next) => Some((element.partition(), next)),
        _ => None,
    });
    Ok(progress_of(extents, &committed.collect(), client.kafka.start_from))
}

/// The group may not be joined, or, by whoever only asks, not be seen.
pub(super) fn not_in_the_group(client: &Client) -> Reason {
    let (group, option) = (&client.kafka.group_id, client.group_option);
    if !client.joins {
        let found = format!("not allowed to see how far group {group} ({option}) is");
        return Reason::new(found, "grant DESCRIBE on that group");
    }
    let cause = refusal::of_group(RDKafkaErrorCode::GroupAuthorizationFailed, group, option);
    Reason::from_refusal(&cause.unwrap_or_default())
}

fn progress_of(extents: &Extents, committed: &BTreeMap<i32, i64>, start_from: StartFrom) -> Progress {
    let mut progress = Progress { lag: 0, lost: 0, committed_partitions: committed.len() };
    for (partition, extent) in extents {
        let next = committed.get(partition).copied().unwrap_or(match start_from {
            StartFrom::Earliest => extent.start,
            StartFrom::Latest => extent.end,
        });
        progress.lost += (extent.start - next).max(0);
        progress.lag += (extent.end - next.max(extent.start)).max(0);
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_what_was_deleted_and_what_is_still_to_be_read_are_told_apart() {
        let extents = Extents::from([(0, 10..100), (1, 0..50), (2, 0..7)]);
        let committed = BTreeMap::from([(0, 4), (1, 50)]);
        let progress = progress_of(&extents, &committed, StartFrom::Earliest);
        assert_eq!(progress, Progress { lag: 90 + 7, lost: 6, committed_partitions: 2 });
        let progress = progress_of(&extents, &committed, StartFrom::Latest);
        assert_eq!((progress.lag, progress.lost), (90, 6));
    }
}

//! What a cluster holds and grants, for `memebg doctor`: asked without joining a group and without
//! writing to a topic, so that it may be asked at any time beside a service that runs.

mod ask;
mod connect;
mod found;
mod layout;
mod limits;
mod progress;
mod rights;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::{Error, KafkaSettings};
use crate::pipeline::message::MessageView;
use ask::Extents;
use found::Deadline;
pub use found::{
    Client, ClientFindings, Inspection, Layout, Limits, NotConnected, Progress, Reason, Topic, TopicUse,
};

pub use super::refusal::Access;

/// How long one attempt waits; in between it is looked at why there is no answer yet.
const TURN: Duration = Duration::from_secs(1);

/// Asks the cluster of `settings` for `topics`, the first of which there must be, and for what `clients` may do, and
/// shows the newest message of every partition that is read to `each`. Blocks for about `timeout` at most. Must be
/// called within a tokio runtime, on a thread that may block.
///
/// # Errors
/// When there is nobody to ask; what one question fails with is in the inspection.
pub fn inspect(
    settings: &KafkaSettings,
    topics: &[TopicUse],
    clients: &[Client],
    timeout: Duration,
    each: &mut dyn FnMut(&MessageView<'_>),
) -> Result<Inspection, NotConnected> {
    let deadline = Deadline::within(timeout);
    let observer = ask::observer(settings).map_err(NotConnected::Settings)?;
    let first = topics.first().map_or(settings.frames_topic.as_str(), |topic| &topic.name);
    let brokers = connect::connect(settings, first, &observer, timeout)?;
    let runtime = tokio::runtime::Handle::current();
    Ok(thread::scope(|scope| {
        // What has nothing to do with the rest may take all the time there is.
        let limits = scope.spawn(|| limits::limits(settings, topics, &runtime, deadline));
        let producers = clients.iter().map(|it| scope.spawn(move || rights::producer(it, deadline)));
        let producers: Vec<_> = producers.collect();
        let layouts: Vec<_> = topics.iter().map(|it| layout::layout(&observer, it, deadline)).collect();
        let seen = topics.iter().zip(&layouts).filter(|(topic, _)| topic.access != Access::Write);
        let seen = seen.filter_map(|(topic, layout)| Some((topic, layout.as_ref().ok()?.partitions)));
        let extents: BTreeMap<&str, Result<Extents, Reason>> = seen
            .map(|(it, partitions)| {
                (it.name.as_str(), ask::extents(&it.name, &observer, partitions, deadline))
            })
            .collect();
        let (members, read) = thread::scope(|scope| {
            let members = clients.iter().map(|it| scope.spawn(|| member(it, &extents, deadline)));
            let members: Vec<_> = members.collect();
            let mut newest = |topic: &TopicUse| {
                let extents = extents.get(topic.name.as_str())?.as_ref().map_err(Clone::clone);
                Some(extents.and_then(|it| ask::newest(topic, &observer, it, deadline, each)))
            };
            let read: Vec<_> = topics.iter().map(&mut newest).collect();
            (members.into_iter().map(joined).collect::<Vec<_>>(), read)
        });
        let cluster_id = observer.client().fetch_cluster_id(deadline.left());
        let clients = members.into_iter().zip(producers.into_iter().map(joined));
        let clients =
            clients.map(|((progress, group), producer)| ClientFindings { progress, group, producer });
        let found = topics.iter().zip(layouts).zip(joined(limits)).zip(read);
        let found = found.map(|(((topic, layout), limits), read)| {
            let name = topic.name.clone();
            Topic { name, layout, limits, read }
        });
        Inspection { cluster_id, brokers, topics: found.collect(), clients: clients.collect() }
    }))
}

/// How far the group of a client has come, and whether it may be joined.
fn member(
    client: &Client,
    extents: &BTreeMap<&str, Result<Extents, Reason>>,
    deadline: Deadline,
) -> (Result<Progress, Reason>, Option<Result<(), Reason>>) {
    let observer = match ask::observer(&client.kafka) {
        Ok(observer) => observer,
        Err(error) => {
            let reason = rights::unusable(error);
            return (Err(reason.clone()), client.joins.then_some(Err(reason)));
        }
    };
    let topic = client.follows.as_str();
    let progress = match extents.get(topic) {
        None => Err(Reason::new(format!("topic {topic} cannot be seen"), "see what is said of that topic")),
        Some(Err(reason)) => Err(reason.clone()),
        Some(Ok(extents)) => progress::progress(client, &observer, extents, deadline),
    };
    let group = client.joins.then(|| rights::group(client, observer, deadline));
    (progress, group)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// One more topic that events are written to, and nothing of what it allows. Blocks for about `timeout` at most.
///
/// # Errors
/// When the settings are refused.
pub fn written_topic(
    settings: &KafkaSettings,
    (option, name): (&'static str, &str),
    timeout: Duration,
) -> Result<Topic, Error> {
    let (observer, deadline) = (ask::observer(settings)?, Deadline::within(timeout));
    let topic = TopicUse { option, name: name.to_owned(), access: Access::Write };
    let layout = layout::layout(&observer, &topic, deadline);
    let limits = Err(Reason::new("not asked", "see the topic's configuration"));
    Ok(Topic { name: topic.name, layout, limits, read: None })
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;
    use crate::kafka::refusal;

    #[test]
    fn what_a_refusal_says_is_told_from_what_to_do() {
        let code = RDKafkaErrorCode::GroupAuthorizationFailed;
        let reason = Reason::from_refusal(&refusal::of_consumer(code, "frames", "g").unwrap());
        assert_eq!(reason.found, "not allowed to be in group g (kafka.group_id)");
        assert_eq!(reason.advice, "grant READ on that group");
        for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::UnknownTopic] {
            let texts = [refusal::of_consumer(code, "frames", "g"), refusal::of_topic(code, "grades")];
            for text in texts.map(Option::unwrap) {
                assert!(Reason::from_refusal(&text).advice.contains("DESCRIBE on it"), "{text}");
            }
        }
        for code in [RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SSL] {
            let text = refusal::of_connection(code).unwrap();
            assert!(Reason::from_refusal(text).advice.starts_with("check "), "{text}");
        }
    }
}

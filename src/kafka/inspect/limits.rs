//! What topics allow, and what becomes of what they hold.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext;

use super::found::{Deadline, Limits, Reason, TopicUse};
use crate::kafka::{Error, KafkaSettings, LogContext};

/// What topics allow.
pub(super) fn limits(
    settings: &KafkaSettings,
    topics: &[TopicUse],
    runtime: &tokio::runtime::Handle,
    deadline: Deadline,
) -> Vec<Result<Limits, Reason>> {
    let describe = || {
        let client = settings.client(&BTreeMap::new()).map_err(|error| error.to_string())?;
        let admin = AdminClient::from_config_and_context(&client, LogContext::default())
            .map_err(|error| Error::create("admin client", error).to_string())?;
        let options = AdminOptions::new().request_timeout(Some(deadline.left()));
        let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
        let answer = admin.describe_configs(&asked, &options);
        runtime.block_on(answer).map_err(|error| error.to_string())
    };
    let mut described = describe().map(Vec::into_iter);
    let limits = topics.iter().map(|TopicUse { name: topic, .. }| match &mut described {
        Err(error) => Err(Reason::no_answer(&format!("settings of topic {topic} are not told"), error)),
        Ok(described) => match described.next() {
            // What may not be seen comes without entries, or with a code.
            Some(resource) => resource.ok().as_ref().and_then(limits_of).ok_or_else(|| {
                Reason::new(
                    format!("the settings of topic {topic} are not shown"),
                    format!(
                        "grant DESCRIBE_CONFIGS on topic {topic} to have this checked; the service does not need it"
                    ),
                )
            }),
            None => Err(Reason::no_answer(&format!("settings of topic {topic}"), "not told")),
        },
    });
    limits.collect()
}

fn limits_of(resource: &ConfigResource) -> Option<Limits> {
    let value = |name: &str| resource.get(name)?.value.as_deref();
    let policies: Vec<&str> = value("cleanup.policy")?.split(',').map(str::trim).collect();
    let (retention_ms, retention_bytes) =
        (value("retention.ms")?.parse().ok()?, value("retention.bytes")?.parse().ok()?);
    Some(Limits {
        max_message_bytes: value("max.message.bytes")?.parse().ok()?,
        min_insync_replicas: value("min.insync.replicas")?.parse().ok()?,
        compacts: policies.contains(&"compact"),
        deletes: policies.contains(&"delete") && (retention_ms >= 0 || retention_bytes >= 0),
        retention_ms,
        retention_bytes,
    })
}

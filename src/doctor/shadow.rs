//! The shadow bundle and its topic, where there is one.

use std::time::Duration;

use super::cluster::topics;
use super::models::bundle_advice;
use super::{Check, within};
use crate::config::Config;
use crate::kafka::inspect::written_topic;
use crate::model::Bundle;

const BUNDLE: &str = "shadow.bundle";
const TOPIC: &str = "shadow.topic";

/// Nothing without a shadow. One that is wrong keeps the service from starting, or its grades from being published.
pub(super) async fn check(config: &Config, timeout: Duration) -> Vec<Check> {
    let dir = config.shadow.bundle.clone();
    if dir.as_os_str().is_empty() {
        return Vec::new();
    }
    let (kafka, topic) = (config.kafka.clone(), config.shadow.topic.clone());
    let (bundle, topic) = tokio::join!(
        within(timeout, move || Bundle::open(&dir).map(|bundle| bundle.identity())),
        within(timeout, move || written_topic(&kafka, (TOPIC, &topic), timeout)),
    );
    let bundle = match bundle {
        Ok(Ok(model)) => {
            let digest: String = model.digest.chars().take(12).collect();
            Check::ok(BUNDLE, format!("{} {}, digest {digest}", model.name, model.version))
        }
        Ok(Err(error)) => Check::fail(BUNDLE, error.to_string(), bundle_advice(&error)),
        Err(reason) => Check::fail(BUNDLE, reason, "look at the disk that shadow.bundle lies on"),
    };
    // How many brokers there are is the business of the checks of the cluster.
    let topic = match topic {
        Ok(Ok(topic)) => topics::check(TOPIC, &topic, 1),
        Ok(Err(error)) => Check::fail(TOPIC, error.to_string(), "see kafka.brokers"),
        Err(reason) => Check::fail(TOPIC, reason, "see kafka.brokers"),
    };
    vec![bundle, topic]
}

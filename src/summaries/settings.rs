//! Options of `memebg summarize`, checked.

use serde::{Deserialize, Serialize};

/// Options of `memebg summarize`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummariesSettings {
    /// Topic of summaries, compacted; has as many partitions as the grades topic.
    pub topic: String,
    /// Consumer group. Empty: `kafka.group_id` and `-summaries`.
    pub group_id: String,
    /// An embryo is published at most this often.
    pub publish_interval_ms: u64,
    /// How long after the end of its window a summary becomes final by the wall clock.
    pub grace_minutes: u32,
    /// Embryos in memory; finished ones beyond that are forgotten.
    pub max_embryos: usize,
}

impl SummariesSettings {
    /// The consumer group.
    #[must_use]
    pub fn group(&self, service_group: &str) -> String {
        if self.group_id.is_empty() { format!("{service_group}-summaries") } else { self.group_id.clone() }
    }

    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// The option that cannot be used.
    pub fn validate(&self, service_group: &str, grades_topic: &str) -> Result<(), String> {
        if self.group(service_group) == service_group {
            return Err("summaries.group_id is kafka.group_id; the two read different topics".into());
        }
        if self.topic.is_empty() || self.topic == grades_topic {
            return Err(format!("summaries.topic {:?} is empty or kafka.grades_topic", self.topic));
        }
        if self.publish_interval_ms == 0 || self.max_embryos == 0 {
            return Err("summaries.publish_interval_ms and summaries.max_embryos must be above 0".into());
        }
        Ok(())
    }
}

/// Where the reviews of embryologists come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewsSettings {
    /// Topic of reviews; has as many partitions as the grades topic.
    pub topic: String,
}

impl ReviewsSettings {
    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// When another topic has the name.
    pub fn validate(&self, others: &[(&str, &str)]) -> Result<(), String> {
        let other = others.iter().find(|(_, topic)| *topic == self.topic);
        match other {
            Some((option, _)) => Err(format!("reviews.topic {:?} is {option}", self.topic)),
            None if self.topic.is_empty() => Err("reviews.topic is empty".into()),
            None => Ok(()),
        }
    }
}

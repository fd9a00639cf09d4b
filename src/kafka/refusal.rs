//! What a cluster refuses, said so that an operator knows what to change.
//!
//! librdkafka names the fault and neither the option that leads there nor the access that lacks.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What is done with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written to.
    Write,
    /// Both.
    ReadAndWrite,
}

impl Access {
    /// What is done with a topic of which both are done.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::ReadAndWrite }
    }
}

/// Why there is no connection, when it is one of ours to mend.
pub(super) fn of_connection(code: RDKafkaErrorCode) -> Option<&'static str> {
    match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => Some(
            "the broker refuses the credentials: check sasl.mechanism, sasl.username and sasl.password in \
             kafka.properties and kafka.property_files",
        ),
        RDKafkaErrorCode::SSL => Some(
            "no TLS connection to the broker: check ssl.ca.location and security.protocol in kafka.properties, \
             and the broker's certificate",
        ),
        RDKafkaErrorCode::Resolve => Some(
            "a broker's host name cannot be resolved: check kafka.brokers and what the brokers advertise",
        ),
        _ => None,
    }
}

/// Why the consumer is given no frames.
pub(super) fn of_consumer(code: RDKafkaErrorCode, frames_topic: &str, group_id: &str) -> Option<String> {
    of_reader(code, frames_topic, "kafka.frames_topic").or_else(|| of_group(code, group_id, "kafka.group_id"))
}

/// Why a topic, which `option` names, hands over nothing.
pub(super) fn of_reader(code: RDKafkaErrorCode, topic: &str, option: &str) -> Option<String> {
    of_use(code, topic, option, Access::Read)
}

/// Why a topic, which `option` names, cannot be read, written to, or both.
pub(super) fn of_use(code: RDKafkaErrorCode, topic: &str, option: &str, access: Access) -> Option<String> {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            let (what, rights) = match access {
                Access::Read => ("read", "READ"),
                Access::Write => ("write to", "WRITE"),
                Access::ReadAndWrite => ("read and write to", "READ, WRITE"),
            };
            Some(format!("not allowed to {what} topic {topic} ({option}): grant {rights} and DESCRIBE on it"))
        }
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            Some(format!("topic {topic} ({option}) does not exist: create it, or grant DESCRIBE on it"))
        }
        _ => None,
    }
}

/// Why a group, which `option` names, cannot be joined.
pub(super) fn of_group(code: RDKafkaErrorCode, group_id: &str, option: &str) -> Option<String> {
    (code == RDKafkaErrorCode::GroupAuthorizationFailed)
        .then(|| format!("not allowed to be in group {group_id} ({option}): grant READ on that group"))
}

/// Options that name topics which events go to.
const WRITTEN: &str =
    "kafka.grades_topic, kafka.dead_letters_topic, summaries.topic, reviews.topic, emr.topic";

/// Why a topic takes no event, however often it is tried, until somebody changes the cluster.
pub(super) fn of_topic(code: RDKafkaErrorCode, topic: &str) -> Option<String> {
    of_use(code, topic, WRITTEN, Access::Write)
}

/// Why an event was not taken.
pub(super) fn of_producer(error: &KafkaError, topic: &str) -> String {
    let code = error.rdkafka_error_code();
    if let Some(cause) = code.and_then(|code| of_topic(code, topic)) {
        return cause;
    }
    match code.and_then(of_connection) {
        Some(cause) => format!("{cause} ({error})"),
        None => error.to_string(),
    }
}

/// What transactions need and the cluster does not allow.
pub(super) fn of_transactions(error: &KafkaError) -> Option<&'static str> {
    (error.rdkafka_error_code()? == RDKafkaErrorCode::TransactionalIdAuthorizationFailed).then_some(
        "not allowed to use transactional ids that begin with kafka.group_id and a hyphen, which memebg summarize and \
         kafka.delivery = \"exactly_once\" need: grant WRITE and DESCRIBE on that prefix",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_nobodys_fault_and_is_not_explained() {
        for code in [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown] {
            assert_eq!(of_connection(code), None);
            assert_eq!(of_consumer(code, "frames", "group"), None);
        }
        let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        assert_eq!(of_producer(&error, "grades"), error.to_string());
    }
}

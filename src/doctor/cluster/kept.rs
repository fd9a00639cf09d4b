//! Whether the two topics that are the only database keep what they must, and fit the grades topic.

use crate::doctor::Check;
use crate::kafka::inspect::{Limits, Topic};

const PARTITIONS: &str = "summaries.partitions";
const CLEANUP: &str = "summaries.cleanup";
const RETENTION: &str = "reviews.retention";
pub(super) const NAMES: [&str; 3] = [PARTITIONS, CLEANUP, RETENTION];

pub(super) fn check(grades: &Topic, summaries: &Topic, reviews: &Topic) -> [Check; 3] {
    [
        of_partitions([grades, summaries, reviews]),
        of(CLEANUP, summaries, of_cleanup),
        of(RETENTION, reviews, of_retention),
    ]
}

/// `memebg summarize` does not start otherwise: what belongs to an embryo lies in partitions of the same number.
fn of_partitions(topics: [&Topic; 3]) -> Check {
    let counted = topics.map(|topic| topic.layout.as_ref().ok().map(|layout| layout.partitions));
    let [Some(grades), Some(summaries), Some(reviews)] = counted else {
        return Check::skipped(PARTITIONS, "a topic cannot be seen");
    };
    let [of_grades, of_summaries, of_reviews] = topics.map(|topic| topic.name.as_str());
    let found = format!("{of_grades} {grades}, {of_summaries} {summaries}, {of_reviews} {reviews}");
    if grades == summaries && grades == reviews {
        return Check::ok(PARTITIONS, found);
    }
    Check::fail(
        PARTITIONS,
        format!("{found}: not as many of each, and `memebg summarize` does not start"),
        format!(
            "give summaries.topic and reviews.topic {grades} partitions, as many as kafka.grades_topic; partitions that \
             are added to a topic with records in it leave these where they do not belong, so make it anew"
        ),
    )
}

fn of(name: &str, topic: &Topic, judge: fn(&str, &Topic, Limits) -> Check) -> Check {
    match (&topic.layout, &topic.limits) {
        (Err(_), _) => Check::skipped(name, "the topic cannot be seen"),
        (Ok(_), Err(reason)) => {
            Check { advice: Some(reason.advice.clone()), ..Check::skipped(name, &reason.found) }
        }
        (Ok(_), Ok(limits)) => judge(name, topic, *limits),
    }
}

/// The newest summary of an embryo must stay, and only it.
fn of_cleanup(name: &str, Topic { name: topic, .. }: &Topic, limits: Limits) -> Check {
    let advice = format!("set cleanup.policy=compact on topic {topic}");
    if limits.deletes {
        let found =
            format!("{topic} deletes summaries {}, and there is no other copy of them", after(limits));
        return Check::fail(name, found, advice);
    }
    if !limits.compacts {
        let found = format!("{topic} is not compacted: it grows without end, and so does what a start reads");
        return Check::warn(name, found, advice);
    }
    Check::ok(name, format!("{topic} is compacted and keeps the newest summary of every embryo"))
}

/// Every review must stay.
fn of_retention(name: &str, Topic { name: topic, .. }: &Topic, limits: Limits) -> Check {
    let advice =
        format!("set cleanup.policy=delete, retention.ms=-1 and retention.bytes=-1 on topic {topic}");
    if limits.compacts {
        let found = format!("{topic} is compacted: of the reviews of an embryo only the last stays");
        return Check::fail(name, found, advice);
    }
    if limits.deletes {
        let found = format!("{topic} deletes reviews {}, and nothing else has all of them", after(limits));
        return Check::fail(name, found, advice);
    }
    Check::ok(name, format!("{topic} keeps every review"))
}

fn after(limits: Limits) -> String {
    let age = (limits.retention_ms >= 0).then(|| {
        let days = limits.retention_ms as f64 / 86_400_000.0;
        format!("after {days:.1} days (retention.ms {})", limits.retention_ms)
    });
    let size = (limits.retention_bytes >= 0)
        .then(|| format!("beyond {} bytes of a partition (retention.bytes)", limits.retention_bytes));
    age.into_iter().chain(size).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::inspect::Layout;

    fn topic(partitions: usize) -> Topic {
        Topic {
            name: "t".into(),
            layout: Ok(Layout { partitions, replicas: 3, leaderless: 0, under_replicated: 0 }),
            limits: Ok(limits(true, false)),
            read: None,
        }
    }

    fn limits(compacts: bool, deletes: bool) -> Limits {
        let retention_ms = if deletes { 604_800_000 } else { -1 };
        let (max_message_bytes, min_insync_replicas, retention_bytes) = (1 << 20, 2, -1);
        Limits { max_message_bytes, min_insync_replicas, compacts, deletes, retention_ms, retention_bytes }
    }

    #[test]
    fn each_of_the_three_must_have_as_many_partitions() {
        let status = |grades, summaries, reviews| {
            of_partitions([&topic(grades), &topic(summaries), &topic(reviews)]).status.as_str()
        };
        assert_eq!(status(2, 2, 2), "ok");
        for (grades, summaries, reviews) in [(2, 1, 2), (2, 2, 3), (1, 2, 2)] {
            assert_eq!(status(grades, summaries, reviews), "fail");
        }
    }

    #[test]
    fn what_is_deleted_from_the_only_database_is_a_failure_and_what_only_grows_a_warning() {
        let cleanup = |compacts, deletes| of_cleanup("c", &topic(1), limits(compacts, deletes));
        assert_eq!(cleanup(true, false).status.as_str(), "ok");
        assert_eq!(cleanup(false, false).status.as_str(), "warn");
        for compacts in [true, false] {
            let deletes = cleanup(compacts, true);
            assert_eq!(deletes.status.as_str(), "fail");
            assert!(deletes.found.contains("7.0 days"), "{deletes:?}");
        }
    }

    #[test]
    fn a_review_that_goes_by_age_size_or_a_later_one_is_a_failure() {
        let status = |limits| of_retention("r", &topic(1), limits).status.as_str();
        assert_eq!(status(limits(false, false)), "ok");
        assert_eq!(status(limits(false, true)), "fail");
        assert_eq!(status(limits(true, false)), "fail");
        let by_size = Limits { deletes: true, retention_bytes: 1_000, ..limits(false, false) };
        let found = of_retention("r", &topic(1), by_size);
        assert!(found.status.as_str() == "fail" && found.found.contains("1000 bytes"), "{found:?}");
    }
}

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn message(partition: i32, offset: i64, key: Option<&str>) -> RawMessage {
    RawMessage {
        topic: Arc::from("summaries"),
        position: Position { partition, offset },
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(vec![0; 10]),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

fn offset(job: &Job) -> i64 {
    job.message().position.offset
}

#[test]
fn a_version_that_waits_is_replaced_and_settled_with_the_one_that_is_sent() {
    let mut queue = Queue::default();
    assert!(!queue.receive(message(0, 1, Some("a"))));
    assert!(!queue.receive(message(0, 2, Some("b"))));
    assert!(queue.receive(message(0, 5, Some("a"))));
    let a = queue.next().unwrap();
    assert_eq!((offset(&a), queue.len()), (5, 2));
    queue.finish(a);
    // Offset 2 is open.
    assert_eq!(queue.take_commits(), [(0, 2)]);
    let b = queue.next().unwrap();
    queue.finish(b);
    assert_eq!(queue.take_commits(), [(0, 6)]);
    assert_eq!((queue.len(), queue.load()), (0, (0, 0)));
}

#[test]
fn an_embryo_that_is_being_sent_waits_for_its_turn_and_a_retry_takes_the_newest() {
    let mut queue = Queue::default();
    queue.receive(message(0, 1, Some("a")));
    let mut first = queue.next().unwrap();
    queue.receive(message(0, 2, Some("a")));
    assert!(queue.next().is_none(), "never two versions at once");
    assert!(queue.renew(&mut first) && !queue.renew(&mut first));
    assert_eq!(offset(&first), 2);
    queue.receive(message(0, 3, Some("a")));
    queue.finish(first);
    assert_eq!(queue.take_commits(), [(0, 3)], "the newest is still open");
    assert_eq!(offset(&queue.next().unwrap()), 3);
}

#[test]
fn nothing_is_begun_of_a_partition_that_is_held_and_nothing_settled_of_one_that_is_forgotten() {
    let mut queue = Queue::default();
    for (partition, key) in [(0, "a"), (1, "b"), (0, "c")] {
        queue.receive(message(partition, 1, Some(key)));
    }
    let job = queue.next().unwrap();
    queue.hold(&[0]);
    assert!(job.hold.is_cancelled() && !job.abandon.is_cancelled());
    let other = queue.next().unwrap();
    assert_eq!(other.message().position.partition, 1);
    assert_eq!((queue.sending(&[0]), queue.sending(&[1])), (1, 1));
    assert!(queue.next().is_none());
    assert_eq!(queue.forget(&[0]), []);
    assert!(job.abandon.is_cancelled() && !other.hold.is_cancelled());
    // The partition comes back while its former job is still under way.
    queue.receive(message(0, 1, Some("a")));
    assert!(queue.next().is_none());
    queue.finish(job);
    assert_eq!(queue.take_commits(), [], "what was forgotten counts for nothing");
    let again = queue.next().unwrap();
    assert!(!again.hold.is_cancelled());
    queue.finish(again);
    assert_eq!(queue.take_commits(), [(0, 2)]);
}

#[test]
fn tombstones_are_passed_over_and_messages_without_a_key_stay_apart() {
    let mut queue = Queue::default();
    queue.receive(RawMessage { value: None, ..message(0, 1, Some("a")) });
    assert_eq!((queue.take_commits(), queue.len()), (vec![(0, 2)], 0));
    queue.receive(message(0, 2, None));
    queue.receive(message(0, 3, None));
    assert_eq!(queue.len(), 2);
}

proptest! {
    /// Whatever comes in whatever order: the last version of every embryo is sent, versions never go backwards, and
    /// an offset is committed only when all that lies before it was sent or replaced.
    #[test]
    fn the_newest_of_every_embryo_is_sent_and_no_older_one_after_it(
        steps in proptest::collection::vec((0..4_u8, 0..5_u8), 1..200)
    ) {
        let mut queue = Queue::default();
        let (mut next, mut jobs) = (0, Vec::new());
        let mut came: HashMap<u8, i64> = HashMap::new();
        let mut sent: HashMap<u8, i64> = HashMap::new();
        let mut send = |job: &Job| {
            let key = job.message().key.as_ref().unwrap()[0];
            let offset = offset(job);
            assert!(sent.insert(key, offset).is_none_or(|before| before < offset));
            sent.clone()
        };
        for (step, key) in steps {
            match step {
                0 | 1 => {
                    let text = (key as char).to_string();
                    queue.receive(message(0, next, Some(&text)));
                    came.insert(key, next);
                    next += 1;
                }
                2 => jobs.extend(queue.next()),
                _ if !jobs.is_empty() => {
                    let mut job = jobs.remove(usize::from(key) % jobs.len());
                    queue.renew(&mut job);
                    send(&job);
                    queue.finish(job);
                }
                _ => {}
            }
        }
        for job in jobs {
            send(&job);
            queue.finish(job);
        }
        let mut last = HashMap::new();
        while let Some(job) = queue.next() {
            last = send(&job);
            queue.finish(job);
        }
        for (key, offset) in &last {
            prop_assert_eq!(came.get(key), Some(offset));
        }
        prop_assert_eq!((queue.len(), queue.load()), (0, (0, 0)));
        prop_assert!(next == 0 || queue.take_commits() == [(0, next)]);
    }
}

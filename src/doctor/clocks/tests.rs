use super::*;
use crate::doctor::Status;
use crate::pipeline::message::Position;

fn sent_ahead(seconds: &[i64]) -> Check {
    let mut clocks = Newest::new(Kind::Frame, "frames", 1_000);
    for (partition, seconds) in (0..).zip(seconds) {
        clocks.look(&MessageView {
            topic: "frames",
            position: Position { partition, offset: 0 },
            key: None,
            value: Some(b"{}"),
            headers: Vec::new(),
            timestamp_ms: Some((Utc::now() + TimeDelta::seconds(*seconds)).timestamp_millis()),
        });
    }
    clocks.check(300)
}

#[test]
fn the_frame_furthest_in_the_future_counts() {
    assert_eq!(sent_ahead(&[-10, 290]).status, Status::Ok);
    let skewed = sent_ahead(&[-10, 400, 20]);
    assert_eq!(skewed.status.as_str(), "fail");
    assert!(skewed.found.contains("partition 1") && skewed.found.contains("99 s"), "{}", skewed.found);
    assert_eq!(sent_ahead(&[]).status, Status::Skipped);
}

#[test]
fn a_review_from_the_future_counts_and_not_one_of_another_topic() {
    let look = |topic, reviewed_at: DateTime<Utc>| {
        let mut clocks = Clocks(vec![Newest::new(Kind::Review, "reviews", 1_000)]);
        let value = format!(r#"{{"embryo_id":"E-1","reviewed_at":"{}"}}"#, reviewed_at.to_rfc3339());
        clocks.look(&MessageView {
            topic,
            position: Position { partition: 3, offset: 0 },
            key: None,
            value: Some(value.as_bytes()),
            headers: Vec::new(),
            timestamp_ms: None,
        });
        clocks.check(300).remove(0)
    };
    let ahead = look("reviews", Utc::now() + TimeDelta::seconds(400));
    assert!(ahead.status.as_str() == "fail" && ahead.found.contains("partition 3"), "{ahead:?}");
    assert!(!ahead.found.contains("E-1"), "{ahead:?}");
    assert_eq!(look("reviews", Utc::now()).status, Status::Ok);
    assert_eq!(look("frames", Utc::now() + TimeDelta::seconds(400)).status, Status::Skipped);
}

#[test]
fn a_server_on_either_side_of_us_counts() {
    let server = |seconds| of_servers(&[("images.0".to_owned(), TimeDelta::seconds(seconds))], 300);
    assert_eq!(server(-300).unwrap().status, Status::Ok);
    for (seconds, side) in [(-301, "behind"), (301, "ahead")] {
        let check = server(seconds).unwrap();
        assert_eq!(check.status.as_str(), "fail");
        assert!(check.found.contains(side) && check.found.contains("301 s"), "{}", check.found);
    }
    assert_eq!(of_servers(&[], 300), None);
}

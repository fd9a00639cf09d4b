use super::*;
use crate::pipeline::decode::DecodeSettings;
use crate::pipeline::fetch::Fetcher;
use crate::pipeline::message::Position;

fn now() -> DateTime<Utc> {
    "2026-03-02T10:00:30Z".parse().unwrap()
}

/// A board with the default options.
pub(in crate::board) fn board() -> Board {
    let config = crate::config::Config::load(&crate::config::Layers::default(), []).unwrap();
    let decode: DecodeSettings = config.decode;
    let fetcher = Fetcher::new(&config.fetch, decode.max_image_bytes).unwrap();
    let images = Images::new(decode, fetcher, 1 << 20);
    let topics = Topics {
        frames: "frames".into(),
        grades: "grades".into(),
        dead_letters: "dead".into(),
        summaries: "summaries".into(),
    };
    Board::new(topics, config.select, 1 << 20, images, Wall::new(10, 10), false)
}

fn receive(board: &Board, topic: &str, value: &str, headers: &[(&str, &str)]) {
    let message = MessageView {
        topic,
        position: Position { partition: 0, offset: 0 },
        key: None,
        value: Some(value.as_bytes()),
        headers: headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
        timestamp_ms: Some("2026-03-02T10:00:00Z".parse::<DateTime<Utc>>().unwrap().timestamp_millis()),
    };
    board.receive(&message, now());
}

#[test]
fn every_topic_has_its_place() {
    let board = board();
    receive(&board, "grades", include_str!("../../../schemas/examples/grade/graded.json"), &[]);
    receive(&board, "summaries", include_str!("../../../schemas/examples/summary/final.json"), &[]);
    receive(&board, "frames", include_str!("../../../schemas/examples/frame/inline_jpeg.json"), &[]);
    for code in ["image_undecodable", "image_undecodable", "clock_missing", "Ada Invented"] {
        receive(&board, "dead", "", &[("memebg.error.code", code)]);
    }
    receive(&board, "dead", "", &[(REPLAYED_FROM, "0/1")]);
    let standing = board.standing(now());
    assert_eq!((standing.embryos, standing.grades_per_minute, standing.unreadable), (1, 1, 0));
    assert!((standing.frames_per_second - 0.0).abs() < 0.1);
    let by_code = [("image_undecodable", 2), ("clock_missing", 1), ("other", 1)];
    assert_eq!(standing.dead_letters_by_code, by_code);
    assert_eq!((standing.dead_letters, standing.replayed), (4, 1));
    let old = board.standing("2026-03-02T10:05:00Z".parse().unwrap());
    assert_eq!((old.grades_per_minute, old.embryos), (0, 1));
}

#[test]
fn what_cannot_be_read_is_counted_and_passed_over() {
    let board = board();
    receive(&board, "grades", r#"{"id":"Ada Invented"}"#, &[]);
    receive(&board, "summaries", "{", &[]);
    receive(&board, "frames", "{", &[]);
    receive(&board, "elsewhere", "{", &[]);
    let standing = board.standing(now());
    assert_eq!((standing.embryos, standing.unreadable), (0, 2));
}

#[test]
fn photographs_of_other_days_and_planes_are_not_held() {
    let frame: serde_json::Value =
        serde_json::from_str(include_str!("../../../schemas/examples/frame/by_uri.json")).unwrap();
    let held = |change: &dyn Fn(&mut serde_json::Value)| {
        let (board, mut frame) = (board(), frame.clone());
        change(&mut frame);
        receive(&board, "frames", &frame.to_string(), &[]);
        board.images().holds(frame["image"]["sha256"].as_str().unwrap())
    };
    assert!(held(&|_| {}), "the example is a central plane of day 5");
    assert!(!held(&|frame| frame["focal_plane_index"] = 0.into()));
    assert!(!held(&|frame| frame["captured_at"] = "2026-01-28T12:10:00Z".into()));
    assert!(!held(&|frame| frame["image"]["sha256"] = "no digest".into()));
}

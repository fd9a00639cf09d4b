use proptest::prelude::*;

use super::*;

fn settings(focal_planes: FocalPlanePolicy) -> SelectSettings {
    SelectSettings {
        sites: Vec::new(),
        min_hpi: 110.0,
        max_hpi: 120.0,
        focal_planes,
        spacing_minutes: None,
        clock_tolerance_seconds: 300,
        remembered_per_partition: NonZeroUsize::new(100).unwrap(),
    }
}

fn event_json(run: u64, plane: u32) -> String {
    format!(
        r#"{{"site_id":"s","instrument":{{"vendor":"v","model":"m","serial":"1"}},"slide_id":"S1","well":1,
        "embryo_id":"e","run":{run},"focal_plane_index":{plane},"focal_offset_um":0,"focal_plane_count":7,
        "insemination_method":"IVF","time_zero_source":"emr","image":{{"data":"AAAA","sha256":"{plane}",
        "media_type":"image/jpeg","bytes":3,"width":1,"height":1}}}}"#
    )
}

fn clocks_at(minutes: i64) -> Clocks {
    let insemination_time = DateTime::UNIX_EPOCH;
    let captured_at = insemination_time + chrono::TimeDelta::minutes(minutes);
    let hpi = (captured_at - insemination_time).num_seconds() as f64 / 3600.0;
    Clocks { captured_at, insemination_time, hpi }
}

fn frame(run: u64, plane: u32) -> Frame {
    FrameEvent::from_json(event_json(run, plane).as_bytes()).unwrap().to_frame(clocks_at(IN_WINDOW))
}

/// Decides about plane `plane` of 7 of run `run`, captured `minutes` after insemination.
fn decide_at(selector: &mut Selector, run: u64, plane: u32, minutes: i64, epoch: u64) -> Decision {
    let json = event_json(run, plane);
    let event = FrameEvent::from_json(json.as_bytes()).unwrap();
    selector.decide(&event, &clocks_at(minutes), 0, epoch)
}

const IN_WINDOW: i64 = 115 * 60;

#[test]
fn the_window_includes_its_start_and_excludes_its_end() {
    let mut selector = Selector::new(settings(FocalPlanePolicy::Central));
    assert_eq!(decide_at(&mut selector, 1, 3, 110 * 60 - 1, 1), Decision::Skip(SkipReason::TooEarly));
    assert_eq!(decide_at(&mut selector, 2, 3, 110 * 60, 1), Decision::Keep);
    assert_eq!(decide_at(&mut selector, 3, 3, 120 * 60 - 1, 1), Decision::Keep);
    assert_eq!(decide_at(&mut selector, 4, 3, 120 * 60, 1), Decision::Skip(SkipReason::TooLate));
}

#[test]
fn the_policy_decides_about_the_planes() {
    let mut central = Selector::new(settings(FocalPlanePolicy::Central));
    let mut all = Selector::new(settings(FocalPlanePolicy::All));
    let mut sharpest = Selector::new(settings(FocalPlanePolicy::Sharpest));
    for plane in 0..7 {
        let expected = if plane == 3 { Decision::Keep } else { Decision::Skip(SkipReason::OtherFocalPlane) };
        assert_eq!(decide_at(&mut central, 1, plane, IN_WINDOW, 1), expected);
        assert_eq!(decide_at(&mut all, 1, plane, IN_WINDOW, 1), Decision::Keep);
        assert_eq!(decide_at(&mut sharpest, 1, plane, IN_WINDOW, 1), Decision::Candidate);
    }
}

#[test]
fn a_frame_sent_twice_is_a_duplicate_until_its_dead_letter_or_a_rebalance() {
    let mut selector = Selector::new(settings(FocalPlanePolicy::Central));
    assert_eq!(decide_at(&mut selector, 1, 3, IN_WINDOW, 1), Decision::Keep);
    assert_eq!(decide_at(&mut selector, 1, 3, IN_WINDOW, 1), Decision::Skip(SkipReason::Duplicate));
    assert_eq!(decide_at(&mut selector, 1, 3, IN_WINDOW, 2), Decision::Keep, "a new epoch remembers nothing");
}

#[test]
fn a_dead_letter_makes_room_for_the_same_frame_and_for_its_neighbours() {
    let spaced = SelectSettings { spacing_minutes: Some(30.0), ..settings(FocalPlanePolicy::Central) };
    let mut selector = Selector::new(spaced);
    assert_eq!(decide_at(&mut selector, 1, 3, IN_WINDOW, 1), Decision::Keep);
    assert_eq!(decide_at(&mut selector, 2, 3, IN_WINDOW + 10, 1), Decision::Skip(SkipReason::SpacedOut));
    selector.forget(&frame(1, 3), 0);
    assert_eq!(decide_at(&mut selector, 2, 3, IN_WINDOW + 10, 1), Decision::Keep);
    selector.forget(&frame(2, 3), 0);
    assert_eq!(
        decide_at(&mut selector, 1, 3, IN_WINDOW, 1),
        Decision::Keep,
        "sent again after its dead letter"
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut selector = Selector::new(settings(FocalPlanePolicy::Central));
    for run in 0..1_000 {
        assert_eq!(decide_at(&mut selector, run, 3, IN_WINDOW, 1), Decision::Keep);
    }
    assert!(selector.memory[&0].frames.len() <= 100);
    assert_eq!(decide_at(&mut selector, 999, 3, IN_WINDOW, 1), Decision::Skip(SkipReason::Duplicate));
    assert_eq!(decide_at(&mut selector, 0, 3, IN_WINDOW, 1), Decision::Keep, "forgotten long ago");
}

proptest! {
    /// Whatever the order of arrival, two wanted runs of an embryo are never closer than the spacing,
    /// and a skipped one always has a wanted one that close.
    #[test]
    fn wanted_runs_keep_their_distance(minutes in prop::collection::vec(110_i64 * 60..120 * 60, 1..40)) {
        let spaced = SelectSettings { spacing_minutes: Some(30.0), ..settings(FocalPlanePolicy::Central) };
        let mut selector = Selector::new(spaced);
        let mut last: Option<i64> = None;
        for (run, at) in (0_u64..).zip(minutes) {
            let close = last.is_some_and(|last| (at - last).abs() < 30);
            let expected = if close { Decision::Skip(SkipReason::SpacedOut) } else { Decision::Keep };
            prop_assert_eq!(decide_at(&mut selector, run, 3, at, 1), expected);
            if !close {
                last = Some(at);
            }
        }
    }
}

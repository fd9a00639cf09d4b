use std::collections::HashSet;

use super::*;
use crate::domain::{HeadGrade, ModelIdentity};

/// A fake grader: fails on batches that hold a grey value of `poison`, on the calls in `hiccups`, and
/// on everything once it has been asked `dies_after` times.
struct FakeGrader {
    identity: GraderIdentity,
    poison: HashSet<u8>,
    hiccups: HashSet<usize>,
    dies_after: usize,
    calls: usize,
}

impl FakeGrader {
    fn new() -> Self {
        let text = String::new;
        Self {
            identity: GraderIdentity {
                model: ModelIdentity { name: text(), version: text(), digest: text(), untrained: true },
                device: "fake".into(),
                precision: "fake".into(),
            },
            poison: HashSet::new(),
            hiccups: HashSet::new(),
            dies_after: usize::MAX,
            calls: 0,
        }
    }
}

impl Grader for FakeGrader {
    fn identity(&self) -> &GraderIdentity {
        &self.identity
    }

    fn population(&self) -> Option<Arc<Population>> {
        None
    }

    fn input_side_px(&self) -> usize {
        1
    }

    fn max_batch_frames(&self) -> usize {
        8
    }

    fn warm_up(&mut self) -> Result<(), GraderError> {
        self.grade(&[&picture(0)]).map(drop)
    }

    fn grade(&mut self, pictures: &[&Picture]) -> Result<GradedBatch, GraderError> {
        self.calls += 1;
        let poisoned = pictures.iter().any(|picture| self.poison.contains(&picture.grey()[0]));
        if poisoned || self.calls > self.dies_after || self.hiccups.contains(&self.calls) {
            return Err(GraderError("fake".into()));
        }
        let opinion = |picture: &&Picture| {
            if picture.grey()[0] == 255 {
                return Err(NotFinite);
            }
            let exp = HeadGrade::from_logits(&[0.0, 0.0, 0.0, 1.0, 0.0, 0.0], 1.0).ok_or(NotFinite)?;
            let letter = HeadGrade::from_logits(&[1.0, 0.0, 0.0], 1.0).ok_or(NotFinite)?;
            let heads = Heads::new(exp, letter.clone(), letter);
            Ok(Opinion { heads, reasons: Vec::new(), training_distance: None, embedding: Box::default() })
        };
        Ok(GradedBatch {
            opinions: pictures.iter().map(opinion).collect(),
            embedding: Duration::ZERO,
            multitask: Duration::ZERO,
        })
    }
}

fn picture(grey: u8) -> Picture {
    Picture::new(1, vec![grey]).unwrap()
}

fn codes(grader: &mut FakeGrader, greys: &[u8]) -> Result<Vec<Option<RejectionCode>>, GraderError> {
    let pictures: Vec<Picture> = greys.iter().copied().map(picture).collect();
    let pictures: Vec<&Picture> = pictures.iter().collect();
    let answers = grade_or_isolate(grader, &pictures, &Metrics::new(&[]).unwrap())?;
    Ok(answers.into_iter().map(|answer| answer.err().map(|rejection| rejection.code)).collect())
}

#[test]
fn a_hiccup_is_retried_once_with_the_whole_batch() {
    let mut grader = FakeGrader { hiccups: HashSet::from([1]), ..FakeGrader::new() };
    assert_eq!(codes(&mut grader, &[1, 2, 3]).unwrap(), [None, None, None]);
    assert_eq!(grader.calls, 2);
}

#[test]
fn a_poison_frame_is_found_and_its_neighbours_are_graded() {
    let mut grader = FakeGrader { poison: HashSet::from([2]), ..FakeGrader::new() };
    let failed = Some(RejectionCode::InferenceFailed);
    assert_eq!(codes(&mut grader, &[1, 2, 3]).unwrap(), [None, failed, None]);
    assert_eq!(codes(&mut grader, &[2]).unwrap(), [failed], "alone in its batch it is still to blame");
}

#[test]
fn a_device_that_fails_its_self_test_stops_the_grader() {
    let mut grader = FakeGrader { dies_after: 0, ..FakeGrader::new() };
    assert!(codes(&mut grader, &[1, 2]).is_err());
}

#[test]
fn an_answer_that_is_not_a_number_is_no_grade() {
    let failed = Some(RejectionCode::OutputNotFinite);
    assert_eq!(codes(&mut FakeGrader::new(), &[1, 255]).unwrap(), [None, failed]);
}

struct Frame(Picture);

impl HasPicture for Frame {
    fn picture(&self) -> &Picture {
        &self.0
    }
}

#[tokio::test]
async fn the_grader_ends_when_no_more_batches_are_formed_and_says_why_when_the_device_fails() {
    for (dies_after, fails) in [(usize::MAX, false), (0, true)] {
        let (request, mut requests) = mpsc::channel::<BatchRequest<Frame>>(1);
        let (health, metrics) =
            (Health::new(Duration::from_secs(1), Duration::from_secs(1)), Metrics::new(&[]).unwrap());
        let thread = std::thread::spawn(move || {
            let mut grader = FakeGrader { dies_after, ..FakeGrader::new() };
            let judged = std::cell::Cell::new(0);
            let count = |_| judged.set(judged.get() + 1);
            let end = run(&mut grader, 0, &request, &count, &metrics, &health);
            (end.is_err(), judged.get())
        });
        let batch = vec![Frame(picture(1)), Frame(picture(2))];
        assert!(requests.recv().await.unwrap().reply.send(batch).is_ok());
        drop(requests);
        let judged = if fails { 0 } else { 2 };
        assert_eq!(thread.join().unwrap(), (fails, judged));
    }
}

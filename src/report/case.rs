//! One embryo: its summary, and for every frame that counts the grade event behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::domain::{CompactContribution, Embryo, EmbryoSummary, GradeEvent, GradeStatus, Window};

/// Most photographs on a report: three lines of eight.
pub const MAX_PHOTOGRAPHS: usize = 24;

/// What is known of one embryo.
#[derive(Debug, Clone)]
pub struct Case {
    summary: EmbryoSummary,
    frames: Vec<CaseFrame>,
}

/// One frame that the summary rests on.
#[derive(Debug, Clone)]
pub struct CaseFrame {
    /// What the summary says of it.
    pub contribution: CompactContribution,
    /// Its grade event, where that is still to be had.
    pub event: Option<GradeEvent>,
}

impl CaseFrame {
    /// Hours post insemination.
    #[must_use]
    pub fn hpi(&self) -> f64 {
        f64::from(self.contribution.centi_hpi) / 100.0
    }

    /// Expected expansion, 1 to 6; none without a grade.
    #[must_use]
    pub fn expansion(&self) -> Option<f64> {
        let vote = self.contribution.exp.as_ref()?;
        let (mut sum, mut weight) = (0.0, 0.0);
        for (class, parts) in (1_u32..).zip(&vote.parts) {
            sum += f64::from(class) * f64::from(*parts);
            weight += f64::from(*parts);
        }
        (weight > 0.0).then(|| sum / weight)
    }
}

impl Case {
    /// From a summary and whatever grade events there are. Events that the summary does not rest on, and those that
    /// are not what their id says, are left out.
    ///
    /// # Errors
    /// What about the summary cannot be.
    pub fn new(summary: EmbryoSummary, events: impl IntoIterator<Item = GradeEvent>) -> Result<Self, String> {
        let limits = [summary.window.from_hpi, summary.window.to_hpi];
        Embryo::restore(Window::new(limits[0], limits[1]), &summary)?;
        let mut by_id: HashMap<String, GradeEvent> = HashMap::new();
        for event in events {
            if event.embryo_id == summary.embryo_id && event.id == event.derived_id() {
                by_id.entry(event.id.as_str().to_owned()).or_insert(event);
            }
        }
        let mut frames: Vec<CaseFrame> = summary
            .contributions
            .iter()
            .map(|it| CaseFrame { contribution: it.clone(), event: by_id.remove(&it.grade_id) })
            .collect();
        frames.sort_by_key(|it| (it.contribution.centi_hpi, it.contribution.run, it.contribution.plane));
        Ok(Self { summary, frames })
    }

    /// Whatever it is made of, unchecked.
    #[cfg(test)]
    pub(super) fn for_test(summary: EmbryoSummary, frames: Vec<CaseFrame>) -> Self {
        Self { summary, frames }
    }

    /// What all frames say together.
    #[must_use]
    pub fn summary(&self) -> &EmbryoSummary {
        &self.summary
    }

    /// The frames behind it, by time.
    #[must_use]
    pub fn frames(&self) -> &[CaseFrame] {
        &self.frames
    }

    /// The latest frame with a grade, where its event is to be had.
    #[must_use]
    pub fn latest_graded(&self) -> Option<&GradeEvent> {
        let events = self.frames.iter().rev().filter_map(|frame| frame.event.as_ref());
        events.into_iter().find(|event| event.status == GradeStatus::Graded && event.heads.is_some())
    }

    /// The frames of which the photograph is shown: of every capture the plane that is nearest to the middle, and of
    /// these at most [`MAX_PHOTOGRAPHS`], evenly picked, the first and the last among them.
    #[must_use]
    pub fn pictured(&self) -> Vec<&GradeEvent> {
        let mut captures: BTreeMap<u64, &GradeEvent> = BTreeMap::new();
        for event in self.frames.iter().filter_map(|frame| frame.event.as_ref()) {
            let nearest = captures.entry(event.run).or_insert(event);
            if event.focal_plane.offset_um.abs() < nearest.focal_plane.offset_um.abs() {
                *nearest = event;
            }
        }
        let captures: Vec<&GradeEvent> = captures.into_values().collect();
        evenly(captures.len()).into_iter().filter_map(|index| captures.get(index).copied()).collect()
    }

    /// Digests of the images that the report shows.
    #[must_use]
    pub fn wanted_images(&self) -> BTreeSet<&str> {
        let events = self.pictured().into_iter().chain(self.latest_graded());
        events.map(|event| event.image_sha256.as_str()).collect()
    }
}

/// At most [`MAX_PHOTOGRAPHS`] numbers below `count`, evenly spaced.
fn evenly(count: usize) -> Vec<usize> {
    if count <= MAX_PHOTOGRAPHS {
        return (0..count).collect();
    }
    (0..MAX_PHOTOGRAPHS).map(|index| index * (count - 1) / (MAX_PHOTOGRAPHS - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{case, events};

    #[test]
    fn photographs_are_picked_evenly_from_the_first_to_the_last() {
        assert_eq!(evenly(3), [0, 1, 2]);
        let picked = evenly(1_000);
        assert_eq!((picked.len(), picked[0], picked[23]), (MAX_PHOTOGRAPHS, 0, 999));
        assert!(picked.windows(2).all(|pair| (43..=44).contains(&(pair[1] - pair[0]))), "{picked:?}");
    }

    #[test]
    fn every_frame_has_its_event_and_of_a_capture_the_middle_plane_is_shown() {
        let case = case();
        assert!(case.frames().iter().all(|frame| frame.event.is_some()));
        assert!(case.frames().windows(2).all(|pair| pair[0].hpi() <= pair[1].hpi()));
        let runs: BTreeSet<u64> = case.frames().iter().map(|frame| frame.contribution.run).collect();
        let pictured = case.pictured();
        assert_eq!(pictured.len(), runs.len());
        assert!(pictured.iter().all(|event| event.focal_plane.offset_um == 0.0));
        assert_eq!(case.latest_graded().unwrap().hpi, 118.0);
    }

    #[test]
    fn an_event_that_is_not_what_its_id_says_is_left_out() {
        let (mut of_another, mut changed) = (events(), events());
        of_another.iter_mut().for_each(|event| event.embryo_id = "another".into());
        changed.iter_mut().for_each(|event| event.image_sha256 = "f".repeat(64));
        for events in [of_another, changed, vec![]] {
            let case = Case::new(case().summary().clone(), events).unwrap();
            assert!(case.frames().iter().all(|frame| frame.event.is_none()));
            assert!(case.pictured().is_empty() && case.latest_graded().is_none());
        }
    }

    #[test]
    fn a_summary_that_cannot_be_is_refused() {
        let mut summary = case().summary().clone();
        summary.models.clear();
        assert!(Case::new(summary, []).is_err());
    }
}

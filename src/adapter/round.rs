//! One look at the folder, from the listing to the journal.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::folder::{self, Listing, Stamp};
use super::journal::Published;
use super::layout::Candidate;
use super::shown::{is_plain_path, shown};
use super::{Adapter, Outgoing, Outlet, Progress, Refusal, Tally, Tracked};
use crate::domain::{FrameEvent, FrameId, ImageLocation};
use crate::incubator::{Exposure, frame_event, image_of};

/// Frames that wait for the broker together.
const BATCH_FRAMES: usize = 64;
/// Bytes of their events.
const BATCH_BYTES: usize = 16 * 1_024 * 1_024;

/// Read and not yet confirmed.
#[derive(Default)]
struct Batch {
    frames: Vec<Outgoing>,
    files: Vec<(String, FrameId, Published)>,
    bytes: usize,
}

impl Adapter {
    /// Looks at the folder once and publishes what is new. `now` counts from any moment on, `clock` is the time of day;
    /// `stop` is asked before each file, and what was begun is finished.
    ///
    /// # Errors
    /// When the outlet or the journal fails; what was under way is published again after a restart.
    pub fn look(
        &mut self,
        now: Duration,
        clock: DateTime<Utc>,
        outlet: &mut dyn Outlet,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Tally> {
        let listing = folder::list(&self.root, &self.settings);
        self.track(&listing, now);
        let fresh = self.recognise(&listing, now);
        let mut published = 0;
        let mut batch = Batch::default();
        for (relative, id, exposure) in fresh {
            if stop() {
                break;
            }
            match self.read(&relative, &id, &exposure, clock) {
                Ok((event, now_published)) => {
                    // Read again only because its time changed.
                    if self.journal.get(&id).is_some_and(|known| known.sha256 == now_published.sha256) {
                        self.journal.append(&[(id.clone(), now_published)])?;
                        self.done(&relative, id);
                        continue;
                    }
                    if self.journal.get(&id).is_some() {
                        tracing::warn!(
                            file = shown(&relative),
                            "image changed after it was published; sent again"
                        );
                    }
                    batch.bytes += event.event.len();
                    batch.frames.push(event);
                    batch.files.push((relative, id, now_published));
                }
                Err(refusal) => self.refuse(&relative, refusal, now),
            }
            if batch.frames.len() == BATCH_FRAMES || batch.bytes >= BATCH_BYTES {
                published += self.publish(std::mem::take(&mut batch), outlet, now)?;
            }
        }
        published += self.publish(batch, outlet, now)?;
        self.prune(&listing)?;
        Ok(self.tally(&listing, published))
    }

    /// Takes over what the folder holds now.
    fn track(&mut self, listing: &Listing, now: Duration) {
        let there: HashSet<&str> = listing.images.iter().map(|(relative, _)| relative.as_str()).collect();
        self.tracked.retain(|relative, _| there.contains(relative.as_str()));
        for (relative, stamp) in &listing.images {
            let known = self.tracked.get(relative).is_some_and(|tracked| tracked.stamp == *stamp);
            if !known {
                let tracked = Tracked { stamp: *stamp, since: now, progress: Progress::New };
                self.tracked.insert(relative.clone(), tracked);
            }
        }
        for problem in &listing.problems {
            if self.reported.insert(problem.clone()) {
                tracing::error!("export folder: {problem}");
            }
        }
        self.reported.retain(|problem| listing.problems.contains(problem));
    }

    /// Describes what has settled and is not done. What the journal knows is done; the rest is returned.
    fn recognise(&mut self, listing: &Listing, now: Duration) -> Vec<(String, FrameId, Exposure)> {
        let mut fresh = Vec::new();
        let mut companions = Companions::default();
        let mut taken: HashSet<FrameId> = self.frames_done().cloned().collect();
        for (relative, stamp) in &listing.images {
            let waits = self.tracked.get(relative).is_some_and(|tracked| {
                !matches!(tracked.progress, Progress::Done(_)) && self.has_settled(tracked, now)
            });
            if !waits {
                continue;
            }
            match self.describe(relative, *stamp, &mut companions) {
                Ok(exposure) => {
                    let id = FrameId {
                        embryo_id: exposure.embryo_id.clone(),
                        run: exposure.run,
                        focal_plane_index: exposure.plane.index,
                    };
                    let is_known = self.journal.get(&id).is_some_and(|known| known.stamp == *stamp);
                    if is_known && taken.insert(id.clone()) {
                        self.done(relative, id);
                    } else {
                        fresh.push((relative.clone(), id, exposure));
                    }
                }
                Err(refusal) => self.refuse(relative, refusal, now),
            }
        }
        self.without_doubles(fresh, now)
    }

    /// Two images that claim to be the same frame: one that is published stays, and between others is not chosen.
    fn without_doubles(
        &mut self,
        fresh: Vec<(String, FrameId, Exposure)>,
        now: Duration,
    ) -> Vec<(String, FrameId, Exposure)> {
        let mut claims: HashMap<FrameId, usize> = HashMap::new();
        for id in self.frames_done().chain(fresh.iter().map(|(_, id, _)| id)) {
            *claims.entry(id.clone()).or_default() += 1;
        }
        let (single, double): (Vec<_>, Vec<_>) =
            fresh.into_iter().partition(|(_, id, _)| claims.get(id).is_none_or(|claims| *claims == 1));
        for (relative, ..) in double {
            let why = "another image in the folder says the same embryo, run and focal plane";
            self.refuse(&relative, Refusal::wrong(why), now);
        }
        single
    }

    fn frames_done(&self) -> impl Iterator<Item = &FrameId> {
        self.tracked.values().filter_map(|tracked| match &tracked.progress {
            Progress::Done(id) => Some(id),
            _ => None,
        })
    }

    fn describe(
        &self,
        relative: &str,
        stamp: Stamp,
        companions: &mut Companions,
    ) -> Result<Exposure, Refusal> {
        let layout = self.settings.layout;
        let names = layout.companions(relative, &self.settings)?;
        for name in &names {
            companions.read(&self.root, name);
        }
        companions.forget_but(&names);
        let contents: Vec<&[u8]> = names.iter().map(|name| companions.get(name)).collect::<Result<_, _>>()?;
        let file = Candidate { relative, modified: stamp.modified() };
        layout.describe(&file, &contents, &self.settings, &self.pseudonyms)
    }

    fn read(
        &self,
        relative: &str,
        id: &FrameId,
        exposure: &Exposure,
        clock: DateTime<Utc>,
    ) -> Result<(Outgoing, Published), Refusal> {
        let stamp = self.tracked.get(relative).map(|tracked| tracked.stamp);
        let stamp = stamp.ok_or_else(|| Refusal::not_yet("it is gone"))?;
        let most = self.settings.max_image_bytes;
        if stamp.bytes > most {
            return Err(Refusal::wrong(format!(
                "{} bytes are more than adapter.max_image_bytes {most}",
                stamp.bytes
            )));
        }
        let bytes = folder::read_image(&self.root, relative, stamp)
            .map_err(|error| Refusal::not_yet(format!("it cannot be read: {error}")))?;
        let image = image_of(&bytes);
        let mut image = image
            .ok_or_else(|| Refusal::not_yet("it is not a JPEG, PNG, BMP or TIFF with a readable header"))?;
        if stamp.bytes > self.settings.inline_up_to_bytes {
            image.location = ImageLocation::Uri(self.uri(relative)?);
        }
        let event = frame_event(exposure, &bytes, &image, None)
            .map_err(|error| Refusal::wrong(format!("its event cannot be written: {error}")))?;
        FrameEvent::from_json(&event)
            .and_then(|event| event.validate(clock, i64::from(self.clock_tolerance_seconds)))
            .map_err(|rejection| Refusal::wrong(rejection.message))?;
        let FrameId { embryo_id, run, focal_plane_index } = id;
        let outgoing = Outgoing {
            id: format!("{embryo_id}/{run}/{focal_plane_index}"),
            embryo_id: embryo_id.clone(),
            event,
        };
        Ok((outgoing, Published { stamp, sha256: image.sha256 }))
    }

    /// Where the service finds the image. Its path becomes a part of the event, so it must not hold a name.
    fn uri(&self, relative: &str) -> Result<String, Refusal> {
        let inline = self.settings.inline_up_to_bytes;
        let Some(prefix) = &self.uri_prefix else {
            return Err(Refusal::wrong(format!(
                "it is larger than adapter.inline_up_to_bytes {inline}, and adapter.uri_prefix is empty"
            )));
        };
        if !is_plain_path(relative) {
            return Err(Refusal::wrong(format!(
                "it is larger than adapter.inline_up_to_bytes {inline}, and its path could hold a name, which must \
                 not go into an event"
            )));
        }
        let mut uri = prefix.clone();
        let mut segments =
            uri.path_segments_mut().map_err(|()| Refusal::wrong("adapter.uri_prefix has no path"))?;
        segments.pop_if_empty().extend(relative.split('/'));
        drop(segments);
        Ok(uri.into())
    }

    fn publish(&mut self, batch: Batch, outlet: &mut dyn Outlet, now: Duration) -> anyhow::Result<u64> {
        if batch.frames.is_empty() {
            return Ok(0);
        }
        let too_large: HashSet<usize> = outlet.publish(batch.frames)?.into_iter().collect();
        let (mut taken, mut confirmed) = (Vec::new(), Vec::new());
        for (index, (relative, id, published)) in batch.files.into_iter().enumerate() {
            if too_large.contains(&index) {
                let why = "its event is larger than the frames topic takes: raise max.message.bytes there, or lower \
                           adapter.inline_up_to_bytes";
                self.refuse(&relative, Refusal::wrong(why), now);
            } else {
                taken.push((relative, id.clone()));
                confirmed.push((id, published));
            }
        }
        self.journal.append(&confirmed)?;
        let published = taken.len() as u64;
        for (relative, id) in taken {
            self.done(&relative, id);
        }
        Ok(published)
    }

    fn done(&mut self, relative: &str, id: FrameId) {
        if let Some(tracked) = self.tracked.get_mut(relative) {
            tracked.progress = Progress::Done(id);
        }
    }

    /// Remembers why, and says so once: at once, or when it has not mended itself for long enough.
    fn refuse(&mut self, relative: &str, refusal: Refusal, now: Duration) {
        let patience = Duration::from_secs(self.settings.report_after_seconds);
        let Some(tracked) = self.tracked.get_mut(relative) else { return };
        let (since, said) = match &tracked.progress {
            Progress::Refused { since, message, reported } => {
                (*since, *reported && *message == refusal.message)
            }
            _ => (now, false),
        };
        let due = said || !refusal.may_pass || now.saturating_sub(since) >= patience;
        if due && !said {
            let Stamp { bytes, .. } = tracked.stamp;
            let modified = tracked.stamp.modified().to_rfc3339();
            tracing::error!(file = shown(relative), bytes, modified, "not published: {}", refusal.message);
        }
        tracked.progress = Progress::Refused { since, message: refusal.message, reported: due };
    }

    /// Forgets frames whose images are gone. As long as some image is not done, its frame may be one of those that
    /// seem to be gone, so as many are kept as there may be images; so too while the folder is empty, as the place of a
    /// share is that is not mounted.
    fn prune(&mut self, listing: &Listing) -> anyhow::Result<()> {
        let done: HashSet<FrameId> = self.frames_done().cloned().collect();
        let images = listing.images.len();
        let complete = listing.problems.is_empty() && images > 0 && done.len() == images;
        let spared = if complete { 0 } else { self.settings.max_files };
        self.journal.prune(|id| done.contains(id), spared)?;
        Ok(())
    }

    fn tally(&self, listing: &Listing, published: u64) -> Tally {
        let mut tally = Tally { published, refused: listing.problems.len() as u64, ..Tally::default() };
        for tracked in self.tracked.values() {
            match &tracked.progress {
                Progress::Done(_) => tally.done += 1,
                Progress::Refused { reported: true, .. } => tally.refused += 1,
                Progress::New | Progress::Refused { .. } => tally.waiting += 1,
            }
        }
        tally
    }
}

/// What lies beside the images, read once for all that follow each other and share it.
#[derive(Default)]
struct Companions(HashMap<String, Result<Vec<u8>, String>>);

impl Companions {
    fn read(&mut self, root: &std::path::Path, name: &str) {
        self.0.entry(name.to_owned()).or_insert_with(|| {
            folder::read_companion(root, name).map_err(|error| {
                format!("the file \"{}\" that belongs to it cannot be read: {error}", shown(name))
            })
        });
    }

    fn get(&self, name: &str) -> Result<&[u8], Refusal> {
        match self.0.get(name) {
            Some(Ok(content)) => Ok(content),
            Some(Err(message)) => Err(Refusal::not_yet(message.clone())),
            None => Err(Refusal::not_yet("a file that belongs to it was not read")),
        }
    }

    fn forget_but(&mut self, names: &[String]) {
        self.0.retain(|name, _| names.contains(name));
    }
}

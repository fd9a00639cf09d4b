//! Remembers what was published, over restarts.
//!
//! A text file: a line for each frame, appended when the broker has confirmed it, and now and then written anew and
//! renamed into place. It holds pseudonyms and digests, and no file names. A line that a crash cut short is left out,
//! so its frame is published again, under the same identity.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::AdapterError;
use super::folder::Stamp;
use super::settings::setting;
use crate::domain::FrameId;

const HEADER: &str = "memebg adapter journal 1\n";
/// Lines that stand for nothing any more before the file is written anew.
const MAX_DEAD_LINES: usize = 10_000;

/// What was published for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) stamp: Stamp,
    /// Of the encoded image, hexadecimal.
    pub(super) sha256: String,
}

#[derive(Debug)]
struct Line {
    number: u64,
    published: Published,
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: HashMap<FrameId, Line>,
    next_number: u64,
    dead: usize,
    /// Held as long as the journal is open: two processes would publish everything twice.
    _lock: File,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        let failed = |source| AdapterError::Journal { path: path.to_owned(), source };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = File::options().create(true).append(true).open(lock_path).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                setting("state_file", format!("{} is in use by another process", path.display()))
            }
            TryLockError::Error(error) => failed(error),
        })?;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HEADER.to_owned(),
            Err(error) => return Err(failed(error)),
        };
        let lines = parse(&text).map_err(|number| {
            let damaged =
                "is not what memebg writes; move the file away, and every frame is published once more";
            failed(io::Error::other(format!("line {number} {damaged}")))
        })?;
        let next_number = lines.values().map(|line| line.number + 1).max().unwrap_or(0);
        // Written anew at once: what was cut short must not become the beginning of the next line.
        let file = write(path, &lines).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, lines, next_number, dead: 0, _lock: lock })
    }

    pub(super) fn get(&self, id: &FrameId) -> Option<&Published> {
        self.lines.get(id).map(|line| &line.published)
    }

    /// Remembers what the broker has confirmed; on disk when it returns.
    pub(super) fn append(&mut self, frames: &[(FrameId, Published)]) -> Result<(), AdapterError> {
        let mut text = Vec::new();
        for (id, published) in frames {
            write_line(&mut text, id, published);
            let line = Line { number: self.next_number, published: published.clone() };
            self.next_number += 1;
            self.dead += usize::from(self.lines.insert(id.clone(), line).is_some());
        }
        self.file.write_all(&text).and_then(|()| self.file.sync_data()).map_err(|source| self.failed(source))
    }

    /// Forgets what `is_there` says is gone, but for the youngest `spared` of those.
    pub(super) fn prune(
        &mut self,
        is_there: impl Fn(&FrameId) -> bool,
        spared: usize,
    ) -> Result<(), AdapterError> {
        let gone = self.lines.iter().filter(|(id, _)| !is_there(id));
        let mut gone: Vec<(u64, FrameId)> = gone.map(|(id, line)| (line.number, id.clone())).collect();
        gone.sort_unstable();
        for (_, id) in gone.iter().rev().skip(spared) {
            self.lines.remove(id);
            self.dead += 1;
        }
        if self.dead > MAX_DEAD_LINES.max(self.lines.len()) {
            self.file = write(&self.path, &self.lines).map_err(|source| self.failed(source))?;
            self.dead = 0;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> AdapterError {
        AdapterError::Journal { path: self.path.clone(), source }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}

fn write_line(text: &mut Vec<u8>, id: &FrameId, Published { stamp, sha256 }: &Published) {
    // Ids are checked before they are published: printable ASCII without spaces.
    let FrameId { embryo_id, run, focal_plane_index } = id;
    let Stamp { bytes, modified_ms } = stamp;
    let line = format!("{embryo_id} {run} {focal_plane_index} {bytes} {modified_ms} {sha256}\n");
    text.extend_from_slice(line.as_bytes());
}

/// The last of several lines of one frame counts. `Err` is the number of a line that means nothing.
fn parse(text: &str) -> Result<HashMap<FrameId, Line>, usize> {
    // A crash may have left a part of the last line.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut lines = whole.lines();
    // A first line that was cut short cannot be: it was renamed into place.
    if lines.next() != Some(HEADER.trim_end()) {
        return Err(1);
    }
    let mut found = HashMap::new();
    for (index, line) in lines.enumerate() {
        let (id, published) = parse_line(line).ok_or(index + 2)?;
        found.insert(id, Line { number: index as u64, published });
    }
    Ok(found)
}

fn parse_line(line: &str) -> Option<(FrameId, Published)> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [embryo_id, run, plane, bytes, modified_ms, sha256] = *parts else { return None };
    let id = FrameId {
        embryo_id: embryo_id.to_owned(),
        run: run.parse().ok()?,
        focal_plane_index: plane.parse().ok()?,
    };
    let stamp = Stamp { bytes: bytes.parse().ok()?, modified_ms: modified_ms.parse().ok()? };
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| (id, Published { stamp, sha256: sha256.to_owned() }))
}

/// Writes the file anew beside itself, renames it into place, and returns it for appending.
fn write(path: &Path, lines: &HashMap<FrameId, Line>) -> io::Result<File> {
    let mut ordered: Vec<_> = lines.iter().collect();
    ordered.sort_unstable_by_key(|(_, line)| line.number);
    let mut text = HEADER.as_bytes().to_vec();
    for (id, line) in ordered {
        write_line(&mut text, id, &line.published);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The rename itself lasts only when the folder is on disk too.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(run: u64) -> (FrameId, Published) {
        let id = FrameId { embryo_id: "E-1".into(), run, focal_plane_index: 0 };
        (id, Published { stamp: Stamp { bytes: 5, modified_ms: 7 }, sha256: "ab".repeat(32) })
    }

    #[test]
    fn a_journal_cut_short_anywhere_loses_the_cut_line_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let frames = [frame(1), frame(2), frame(3)];
        Journal::open(&path).unwrap().append(&frames).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in HEADER.len()..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count() - 1;
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.len(), lines, "cut at {cut}");
            // What is appended is not glued to the cut line.
            journal.append(&[frame(9)]).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().len(), lines + 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_journal_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for (text, line) in [("", 1), ("something else\n", 1), ("memebg adapter journal 1\nE-1 1 0\n", 2)] {
            fs::write(&path, text).unwrap();
            let error = Journal::open(&path).unwrap_err();
            let error = anyhow::Error::from(error);
            assert!(format!("{error:#}").contains(&format!("line {line} ")), "{error:#}");
        }
    }

    #[test]
    fn two_processes_cannot_share_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = Journal::open(&path).unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("another process"));
        drop(first);
        Journal::open(&path).unwrap();
    }

    #[test]
    fn what_is_gone_is_forgotten_but_for_the_youngest() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("state")).unwrap();
        journal.append(&(1..=5).map(frame).collect::<Vec<_>>()).unwrap();
        journal.prune(|id| id.run == 1, 2).unwrap();
        let left: Vec<u64> = (1..=5).filter(|run| journal.get(&frame(*run).0).is_some()).collect();
        assert_eq!(left, [1, 4, 5]);
    }
}

//! Files that are fetched once and kept: safe when several processes do it at once.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::ModelError;

/// How the names begin of what is not whole yet.
const UNFINISHED: &str = ".new-";

/// The cache folder: `configured`, or when that is empty `$XDG_CACHE_HOME/memebg`, or
/// `~/.cache/memebg`.
///
/// # Errors
/// [`ModelError::Cache`] when nothing is configured and the environment names no home.
pub fn cache_dir(configured: &Path) -> Result<PathBuf, ModelError> {
    if !configured.as_os_str().is_empty() {
        return Ok(configured.to_owned());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("memebg"))
        .ok_or_else(|| {
            ModelError::cache(configured, "neither XDG_CACHE_HOME nor HOME is set; set runtime.cache_dir")
        })
}

/// A path in the folder of `path` that nobody else uses, not even a container that shares the
/// folder and counts its processes from 1 too.
pub(super) fn sibling(path: &Path) -> PathBuf {
    let random = RandomState::new().build_hasher().finish();
    path.with_file_name(format!("{UNFINISHED}{random:016x}"))
}

/// Removes what was begun in `folder` at least `age` ago and never finished: its maker was killed.
/// What cannot be removed stays, with a warning, and stops nobody.
pub(super) fn remove_unfinished(folder: &Path, age: Duration) {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)) {
        let path = entry.path();
        // Links are not followed, neither here nor in the removal.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let old = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        if old.is_none_or(|old| old < age) {
            continue;
        }
        let removed = if metadata.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted start left behind"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not be removed"),
        }
    }
}

/// SHA-256 of a file as lower-case hexadecimal digits; the file is read in pieces.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut piece)?;
        let Some(part) = piece.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(hex::encode(hasher.finalize()));
        };
        hasher.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_cache_folder_wins() {
        assert_eq!(cache_dir(Path::new("/somewhere")).unwrap(), Path::new("/somewhere"));
    }

    #[test]
    fn what_was_begun_long_ago_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let age = Duration::from_secs(600);
        let long_ago = std::time::SystemTime::now() - 2 * age;
        let make = |name: &str, is_folder: bool, is_old: bool| {
            let path = folder.path().join(name);
            if is_folder {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("wheel"), b"half").unwrap();
            } else {
                fs::write(&path, b"half").unwrap();
            }
            if is_old {
                File::open(&path).unwrap().set_modified(long_ago).unwrap();
            }
        };
        make(".new-old-folder", true, true);
        make(".new-old-file", false, true);
        make(".new-young-folder", true, false);
        make(".new-young-file", false, false);
        make("library.so", false, true);
        std::os::unix::fs::symlink(folder.path().join("library.so"), folder.path().join(".new-link"))
            .unwrap();
        remove_unfinished(folder.path(), age);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".new-link", ".new-young-file", ".new-young-folder", "library.so"]);
        remove_unfinished(&folder.path().join("absent"), age);
    }

    #[test]
    fn the_digest_is_that_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 200_000]).unwrap();
        let expected = hex::encode(Sha256::digest(vec![1; 200_000]));
        assert_eq!(sha256_of(&path).unwrap(), expected);
    }
}

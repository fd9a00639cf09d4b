//! Files that are made or fetched once and kept: safe when several processes do it at once.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ModelError;

/// The cache folder: `configured`, or when that is empty `$XDG_CACHE_HOME/memebg`, or
/// `~/.cache/memebg`.
///
/// # Errors
/// [`ModelError::Cache`] when nothing is configured and the environment names no home.
pub(super) fn cache_dir(configured: &Path) -> Result<PathBuf, ModelError> {
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
    path.with_file_name(format!(".new-{random:016x}"))
}

/// Puts `data` at `path` so that a reader sees all of it or nothing, even after a power cut.
pub(super) fn write_whole(path: &Path, data: &[u8]) -> io::Result<()> {
    let temporary = sibling(path);
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first error is the one to tell; a file that was never made cannot be removed either.
        drop(fs::remove_file(&temporary));
    }
    written
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
    fn many_writers_leave_one_whole_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let data = vec![7; 300_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| write_whole(&path, &data).unwrap());
            }
        });
        assert_eq!(fs::read(&path).unwrap(), data);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
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

//! What lies in the export folder: bounded, and nothing outside it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, Utc};

use super::AdapterSettings;
use super::shown::shown;
use crate::incubator::EXTENSIONS;

/// Largest file beside an image.
const MAX_COMPANION_BYTES: u64 = 256 * 1_024;

/// Size and modification time: what changes when a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    pub(super) modified_ms: i64,
}

impl Stamp {
    pub(super) fn modified(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.modified_ms).unwrap_or_default()
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let modified_ms = DateTime::<Utc>::from(modified).timestamp_millis();
        Self { bytes: metadata.len(), modified_ms }
    }
}

/// One look at the folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Images by their path below the folder, in the order of their names.
    pub(super) images: Vec<(String, Stamp)>,
    /// Why there may be more.
    pub(super) problems: Vec<String>,
}

/// Lists the images. Links are not followed, wherever they lead.
pub(super) fn list(root: &Path, settings: &AdapterSettings) -> Listing {
    let mut listing = Listing::default();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match root.join(&folder).read_dir() {
            Ok(entries) => entries,
            Err(error) => {
                listing.problems.push(format!("folder \"{}\" cannot be read: {error}", shown(&folder)));
                continue;
            }
        };
        for entry in entries {
            let Ok((entry, kind)) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))
            else {
                listing.problems.push(format!("folder \"{}\" cannot be read to its end", shown(&folder)));
                break;
            };
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                listing.problems.push(format!("a name in folder \"{}\" is not UTF-8", shown(&folder)));
                continue;
            };
            let relative = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if kind.is_dir() && depth + 1 < settings.max_depth {
                folders.push((relative, depth + 1));
            } else if kind.is_dir() {
                let deep = shown(&relative);
                listing.problems.push(format!("folder \"{deep}\" is deeper than adapter.max_depth"));
            } else if is_image(name) && kind.is_symlink() {
                listing.problems.push(format!("\"{}\" is a link, which is not followed", shown(&relative)));
            } else if is_image(name) && kind.is_file() {
                if listing.images.len() == settings.max_files {
                    let most = settings.max_files;
                    let full = format!("more than {most} images: remove old ones or raise adapter.max_files");
                    listing.problems.push(full);
                    listing.images.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                    return listing;
                }
                // Gone since it was listed: nothing to say of it.
                if let Ok(metadata) = entry.metadata() {
                    listing.images.push((relative, Stamp::from(&metadata)));
                }
            }
        }
    }
    listing.images.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    listing
}

/// Names that begin with a dot are those of files that are still being written, or of none of ours.
fn is_image(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    !name.starts_with('.') && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The content of a file beside an image.
pub(super) fn read_companion(root: &Path, relative: &str) -> io::Result<Vec<u8>> {
    let (bytes, _) = read(root, relative, MAX_COMPANION_BYTES)?;
    Ok(bytes)
}

/// The content of an image, if it is the one that was listed.
pub(super) fn read_image(root: &Path, relative: &str, listed: Stamp) -> io::Result<Vec<u8>> {
    let (bytes, stamp) = read(root, relative, listed.bytes)?;
    if stamp != listed || bytes.len() as u64 != listed.bytes {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok(bytes)
}

fn read(root: &Path, relative: &str, most_bytes: u64) -> io::Result<(Vec<u8>, Stamp)> {
    // A folder on the way may have become a link since it was listed.
    if !root.join(relative).canonicalize()?.starts_with(root) {
        return Err(io::Error::other("it lies outside the export folder"));
    }
    let file = File::open(root.join(relative))?;
    let mut bytes = Vec::new();
    (&file).take(most_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes {
        return Err(io::Error::other(format!("it is larger than {most_bytes} bytes")));
    }
    Ok((bytes, Stamp::from(&file.metadata()?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::adapter::tests::settings;

    fn names(listing: &Listing) -> Vec<&str> {
        listing.images.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn images_are_listed_in_the_order_of_their_names_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        for name in ["b.JPG", "a/z.png", "b.json", "c.jpg.part", ".d.jpg", "noextension"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let listing = list(folder.path(), &settings());
        assert_eq!(names(&listing), ["a/z.png", "b.JPG"]);
        assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    }

    #[test]
    fn links_are_followed_neither_when_listed_nor_when_read() {
        let [folder, outside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let root = folder.path().canonicalize().unwrap();
        fs::write(outside.path().join("x.jpg"), "x").unwrap();
        symlink(outside.path().join("x.jpg"), root.join("link.jpg")).unwrap();
        symlink(outside.path(), root.join("away")).unwrap();
        let listing = list(&root, &settings());
        assert!(names(&listing).is_empty() && listing.problems.len() == 1, "{listing:?}");
        for path in ["link.jpg", "away/x.jpg"] {
            assert!(read_companion(&root, path).unwrap_err().to_string().contains("outside"), "{path}");
        }
    }

    #[test]
    fn depth_count_and_size_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        for name in ["1.jpg", "2.jpg", "a/3.jpg", "a/b/4.jpg"] {
            fs::write(root.join(name), "12345").unwrap();
        }
        let shallow = list(&root, &AdapterSettings { max_depth: 2, ..settings() });
        assert_eq!(names(&shallow), ["1.jpg", "2.jpg", "a/3.jpg"]);
        assert!(shallow.problems[0].contains("max_depth"), "{shallow:?}");
        let few = list(&root, &AdapterSettings { max_files: 2, ..settings() });
        assert!(names(&few).len() == 2 && few.problems[0].contains("max_files"), "{few:?}");
        assert!(read(&root, "1.jpg", 4).unwrap_err().to_string().contains("larger than 4 bytes"));
    }

    #[test]
    fn an_image_that_changed_since_it_was_listed_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("1.jpg"), "half").unwrap();
        let listed = list(&root, &settings()).images[0].1;
        assert_eq!(read_image(&root, "1.jpg", listed).unwrap(), b"half");
        fs::write(root.join("1.jpg"), "half and half").unwrap();
        assert!(read_image(&root, "1.jpg", listed).is_err());
        let older = Stamp { modified_ms: listed.modified_ms - 5_000, bytes: 13 };
        assert!(read_image(&root, "1.jpg", older).is_err());
    }
}

//! A labelled set on disk: `labels.csv` and its images, all checked before anything is trained.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::domain::{Label, Picture, Truth};

/// Largest label file.
const MAX_LABEL_BYTES: u64 = 32 << 20;
/// Most images in a set: 50 kB each in memory.
const MAX_IMAGES: usize = 100_000;
/// Most problems that are listed.
const MAX_PROBLEMS: usize = 50;

/// A picture with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// File name.
    pub name: String,
    /// The picture as the models see it.
    pub picture: Picture,
    /// Hexadecimal SHA-256 of the picture's pixels.
    pub sha256: String,
    /// What it shows.
    pub truth: Truth,
    /// The embryo or patient, where the label names one.
    pub group: Option<String>,
}

/// A labelled set, decoded.
#[derive(Debug, Clone)]
pub struct LabelledImages {
    /// The folder it was read from.
    pub dir: PathBuf,
    /// SHA-256 over labels and pixels: names this very set.
    pub sha256: String,
    /// In the order of the label file.
    pub samples: Vec<Sample>,
}

/// Why a labelled set cannot be used: every problem that was found, with file and line.
#[derive(Debug)]
pub struct DataError {
    problems: Vec<String>,
}

impl std::error::Error for DataError {}

impl fmt::Display for DataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.problems.iter().take(MAX_PROBLEMS);
        let hidden = self.problems.len().saturating_sub(MAX_PROBLEMS);
        write!(formatter, "{} problems in the labelled set", self.problems.len())?;
        for problem in shown {
            write!(formatter, "\n  {problem}")?;
        }
        if hidden > 0 {
            write!(formatter, "\n  and {hidden} more")?;
        }
        Ok(())
    }
}

impl LabelledImages {
    /// Reads `dir/labels.csv` and the images that it names, from `dir/images` or, when there is no
    /// such folder, from `dir`. `decode` turns a file into a picture, as the service does.
    ///
    /// Two labels of one picture must not contradict each other, whatever its files are called; a
    /// picture that comes twice with the same grades is kept once.
    ///
    /// # Errors
    /// Every impossible label, missing or unreadable image and contradiction, with file and line.
    pub fn read(
        dir: &Path,
        decode: impl Fn(&Path) -> Result<Picture, String> + Sync,
    ) -> Result<Self, DataError> {
        let labels_path = dir.join("labels.csv");
        let at = |line: usize, problem: &str| format!("{}:{line}: {problem}", labels_path.display());
        let one = |problem: String| DataError { problems: vec![problem] };
        let text = read_capped(&labels_path).map_err(one)?;
        let labels = Label::read_all(&text).map_err(|problems| DataError {
            problems: problems.iter().map(|p| at(p.line, &p.problem)).collect(),
        })?;
        if labels.is_empty() || labels.len() > MAX_IMAGES {
            return Err(one(at(1, &format!("{} images, not 1 to {MAX_IMAGES}", labels.len()))));
        }
        let images = dir.join("images");
        let images = if images.is_dir() { images } else { dir.to_owned() };
        let pictures = decode_all(&labels, &images, &decode);

        let mut problems = Vec::new();
        let mut samples: Vec<Sample> = Vec::new();
        let (mut names, mut pixels) = (HashMap::new(), HashMap::new());
        let mut digest = Sha256::new();
        for (label, picture) in labels.into_iter().zip(pictures) {
            let Label { line, image, truth, group } = label;
            let picture = match picture {
                Ok(picture) => picture,
                Err(problem) => {
                    problems.push(at(line, &format!("{}: {problem}", images.join(&image).display())));
                    continue;
                }
            };
            let sha256 = hex::encode(Sha256::digest(picture.grey()));
            let earlier = names.get(&image).or_else(|| pixels.get(&sha256));
            if let Some((earlier_line, earlier_truth)) = earlier {
                if *earlier_truth != truth {
                    problems.push(at(
                        line,
                        &format!("{image} is the picture of line {earlier_line} with other grades"),
                    ));
                } else {
                    tracing::warn!(line, image, earlier_line, "the same picture again; kept once");
                }
                continue;
            }
            names.insert(image.clone(), (line, truth));
            pixels.insert(sha256.clone(), (line, truth));
            digest.update(format!("{sha256} {truth:?} {group:?}\n"));
            samples.push(Sample { name: image, picture, sha256, truth, group });
        }
        if !problems.is_empty() {
            return Err(DataError { problems });
        }
        Ok(Self { dir: dir.to_owned(), sha256: hex::encode(digest.finalize()), samples })
    }
}

/// Decodes on every core, in order.
fn decode_all(
    labels: &[Label],
    images: &Path,
    decode: &(impl Fn(&Path) -> Result<Picture, String> + Sync),
) -> Vec<Result<Picture, String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunk = labels.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let decoders: Vec<_> = labels
            .chunks(chunk)
            .map(|labels| {
                let each = move |label: &Label| decode(&images.join(&label.image));
                scope.spawn(move || labels.iter().map(each).collect::<Vec<_>>())
            })
            .collect();
        decoders
            .into_iter()
            .zip(labels.chunks(chunk))
            .flat_map(|(decoder, labels)| {
                decoder.join().unwrap_or_else(|_| vec![Err("the decoder panicked".to_owned()); labels.len()])
            })
            .collect()
    })
}

fn read_capped(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LABEL_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    if text.len() as u64 > MAX_LABEL_BYTES {
        return Err(format!("{}: longer than {MAX_LABEL_BYTES} bytes", path.display()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of one grey value, which is the length of the file.
    fn decode(path: &Path) -> Result<Picture, String> {
        let length = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
        Picture::new(2, vec![u8::try_from(length).unwrap(); 4]).ok_or_else(|| "odd".to_owned())
    }

    fn read(labels: &str, images: &[(&str, usize)]) -> Result<LabelledImages, DataError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        std::fs::write(folder.path().join("labels.csv"), format!("image,stage,exp,icm,te\n{labels}"))
            .unwrap();
        for (name, length) in images {
            std::fs::write(folder.path().join("images").join(name), vec![0; *length]).unwrap();
        }
        LabelledImages::read(folder.path(), decode)
    }

    #[test]
    fn every_problem_is_reported_with_file_and_line_before_anything_starts() {
        let error = read(
            "a.png,blastocyst,4,A,A\nmissing.png,blastocyst,4,A,A\na.png,blastocyst,3,A,A\nb.png,blastocyst,4,B,A\n",
            &[("a.png", 1), ("b.png", 1)],
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("3 problems"), "{error}");
        assert!(error.contains("labels.csv:3: ") && error.contains("missing.png: cannot be read"), "{error}");
        assert!(error.contains("labels.csv:4: a.png is the picture of line 2 with other grades"), "{error}");
        assert!(error.contains("labels.csv:5: b.png is the picture of line 2 with other grades"), "{error}");
        let error = read("a.png,blastocyst,9,,\nb.png,blastocyst,4,D,A\n", &[]).unwrap_err().to_string();
        assert!(
            error.contains("labels.csv:2: EXP \"9\"") && error.contains("labels.csv:3: ICM \"D\""),
            "{error}"
        );
    }

    #[test]
    fn the_same_picture_with_the_same_grades_is_kept_once() {
        let images =
            read("a.png,blastocyst,4,A,A\nb.png,blastocyst,4,A,A\n", &[("a.png", 3), ("b.png", 3)]).unwrap();
        assert_eq!(images.samples.len(), 1);
    }

    #[test]
    fn the_digest_of_a_set_depends_on_pixels_and_labels() {
        let of = |labels, length| read(labels, &[("a.png", length)]).unwrap().sha256;
        let first = of("a.png,blastocyst,4,A,A\n", 1);
        assert_eq!(first, of("a.png,blastocyst,4,A,A\n", 1));
        assert_ne!(first, of("a.png,blastocyst,4,A,A\n", 2));
        assert_ne!(first, of("a.png,blastocyst,4,A,B\n", 1));
    }

    #[test]
    fn a_folder_without_labels_is_named() {
        let error = LabelledImages::read(Path::new("no/such/folder"), decode).unwrap_err().to_string();
        assert!(error.contains("no/such/folder/labels.csv: cannot be read"), "{error}");
    }
}

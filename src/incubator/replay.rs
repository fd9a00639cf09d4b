//! Replays a folder of photographs as day-5 frames.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use image::{ImageFormat, ImageReader};
use sha2::{Digest, Sha256};

use super::event::{Exposure, Holder, frame_event};
use super::{IncubatorError, Photograph};
use crate::domain::{
    FocalPlane, Image, ImageLocation, InseminationMethod, Instrument, Label, MediaType, TimeZeroSource, Truth,
};

/// Most images in one folder.
const MAX_IMAGES: usize = 100_000;
/// Largest image or label file.
const MAX_FILE_BYTES: u64 = 32 * 1_024 * 1_024;
/// Hours post insemination that every replayed photograph claims: the middle of day 5.
const REPLAY_HPI: i64 = 116;
/// What an image file may be called.
pub(crate) const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff"];

/// The photographs of a folder, in the order of their file names, each read when it is asked for.
#[derive(Debug)]
pub struct Replay {
    images: std::vec::IntoIter<(String, PathBuf)>,
    truths: HashMap<String, Truth>,
    site_id: String,
    captured_at: DateTime<Utc>,
}

/// Every JPEG, PNG, BMP and TIFF in `dir` (subfolders not included) as the central plane of a day-5
/// capture, taken at `now`. `labels` is a CSV of `image,stage,exp,icm,te` without quotes, whose
/// grades become the truth of the photographs they name.
///
/// The embryo ids are hashes of file name and content; the names themselves may hold what must not travel.
///
/// # Errors
/// When the folder or the label file cannot be read, exceeds its limits, or a label means no grade.
pub fn replay(
    dir: &Path,
    labels: Option<&Path>,
    site_id: &str,
    now: DateTime<Utc>,
) -> Result<Replay, IncubatorError> {
    let read = |source| IncubatorError::Read { path: dir.to_owned(), source };
    let mut images = Vec::new();
    for entry in dir.read_dir().map_err(read)? {
        let path = entry.map_err(read)?.path();
        let extension = path.extension().unwrap_or_default();
        if !EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)) || !path.is_file() {
            continue;
        }
        if images.len() == MAX_IMAGES {
            let limit = format!("{MAX_IMAGES} images in one folder");
            return Err(IncubatorError::TooLarge { path: dir.to_owned(), limit });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        images.push((name, path));
    }
    images.sort();
    let truths = labels.map(read_labels).transpose()?.unwrap_or_default();
    Ok(Replay { images: images.into_iter(), truths, site_id: site_id.to_owned(), captured_at: now })
}

impl Replay {
    fn photograph(&self, name: &str, path: &Path) -> Result<Photograph, IncubatorError> {
        let (bytes, image) = read_image(path)?;
        // With the content, so that a name cannot be found by hashing guesses.
        let digest = hex::encode(Sha256::new().chain_update(name).chain_update(&image.sha256).finalize());
        let embryo_id = format!("R-{}", digest.get(..16).unwrap_or(&digest));
        let exposure = Exposure {
            site_id: self.site_id.clone(),
            instrument: Instrument {
                vendor: "memebg".to_owned(),
                model: "replay".to_owned(),
                serial: "replay-1".to_owned(),
            },
            holder: Holder::Dish(embryo_id.clone()),
            well: 1,
            embryo_id,
            run: 1,
            plane: FocalPlane { index: 0, offset_um: 0.0, count: 1 },
            captured_at: self.captured_at,
            insemination_time: self.captured_at - TimeDelta::hours(REPLAY_HPI),
            insemination_method: InseminationMethod::Ivf,
            time_zero_source: TimeZeroSource::Manual,
        };
        Ok(Photograph {
            due: Duration::ZERO,
            event: frame_event(&exposure, &bytes, &image, None)?,
            embryo_id: exposure.embryo_id,
            truth: self.truths.get(name).copied(),
            hpi: REPLAY_HPI as f64,
        })
    }
}

impl Iterator for Replay {
    type Item = Result<Photograph, IncubatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (name, path) = self.images.next()?;
        Some(self.photograph(&name, &path))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.images.size_hint()
    }
}

/// An image file and its description: format, size and digest, without decoding it.
///
/// # Errors
/// When it cannot be read, is too large, or is no JPEG, PNG, BMP or TIFF.
pub fn read_image(path: &Path) -> Result<(Vec<u8>, Image), IncubatorError> {
    let bytes = read_bounded(path)?;
    let image = image_of(&bytes).ok_or_else(|| IncubatorError::NotAnImage { path: path.to_owned() })?;
    Ok((bytes, image))
}

/// What an encoded image says of itself, without decoding it; `None` when it is no JPEG, PNG, BMP or TIFF with a
/// readable header.
pub(crate) fn image_of(bytes: &[u8]) -> Option<Image> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let media_type = match reader.format() {
        Some(ImageFormat::Jpeg) => MediaType::Jpeg,
        Some(ImageFormat::Png) => MediaType::Png,
        Some(ImageFormat::Bmp) => MediaType::Bmp,
        Some(ImageFormat::Tiff) => MediaType::Tiff,
        _ => return None,
    };
    let (width, height) = reader.into_dimensions().ok()?;
    Some(Image {
        location: ImageLocation::Inline,
        sha256: hex::encode(Sha256::digest(bytes)),
        media_type,
        bytes: bytes.len() as u64,
        width,
        height,
    })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, IncubatorError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| IncubatorError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = format!("{MAX_FILE_BYTES} bytes in one file");
        return Err(IncubatorError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

fn read_labels(path: &Path) -> Result<HashMap<String, Truth>, IncubatorError> {
    let wrong = |line: usize, problem: String| IncubatorError::Label { path: path.to_owned(), line, problem };
    let labels = Label::read_all(&read_bounded(path)?).map_err(|problems| {
        let first = problems.into_iter().next();
        first.map_or_else(|| wrong(1, "no label".to_owned()), |first| wrong(first.line, first.problem))
    })?;
    let mut truths = HashMap::new();
    for Label { line, image, truth, .. } in labels {
        if truths.contains_key(&image) {
            return Err(wrong(line, format!("image {image} has a second label")));
        }
        truths.insert(image, truth);
    }
    Ok(truths)
}

#[cfg(test)]
mod tests {
    use image::GrayImage;
    use tempfile::TempDir;

    use super::*;
    use crate::domain::{DevelopmentStage, Expansion, FrameEvent, Letter};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_770_000_000, 0).unwrap()
    }

    fn folder(names: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            GrayImage::new(40, 30).save(folder.path().join(name)).unwrap();
        }
        folder
    }

    /// The truth of the only image of a folder with these labels.
    fn labelled(text: &str) -> Result<Option<Truth>, IncubatorError> {
        let folder = folder(&["a.png"]);
        let labels = folder.path().join("labels.csv");
        std::fs::write(&labels, text).unwrap();
        let photograph = replay(folder.path(), Some(&labels), "lab", now())?.next().unwrap()?;
        Ok(photograph.truth)
    }

    #[test]
    fn every_picture_becomes_one_central_frame_on_day_five_in_name_order() {
        let folder = folder(&["b.jpg", "a.png", "c.BMP", "d.tiff"]);
        std::fs::write(folder.path().join("notes.txt"), "not an image").unwrap();
        let photographs: Vec<_> =
            replay(folder.path(), None, "lab", now()).unwrap().map(Result::unwrap).collect();
        let types = photographs.iter().map(|photograph| {
            let event = FrameEvent::from_json(&photograph.event).unwrap();
            let clocks = event.validate(now(), 0).unwrap();
            assert_eq!((clocks.hpi, event.focal_offset_um), (116.0, 0.0));
            assert_eq!((event.image.width, event.image.height), (40, 30));
            assert_eq!(&*event.embryo_id, &photograph.embryo_id);
            event.image.media_type
        });
        let types: Vec<_> = types.collect();
        assert_eq!(types, [MediaType::Png, MediaType::Jpeg, MediaType::Bmp, MediaType::Tiff]);
    }

    #[test]
    fn the_file_name_travels_neither_in_the_key_nor_in_the_event() {
        let folder = folder(&["jane-doe.png"]);
        let photograph = replay(folder.path(), None, "lab", now()).unwrap().next().unwrap().unwrap();
        let event = String::from_utf8(photograph.event).unwrap();
        assert!(!event.contains("jane") && !photograph.embryo_id.contains("jane"));
    }

    #[test]
    fn the_content_decides_the_media_type_and_other_content_is_an_error_of_that_file_alone() {
        let folder = folder(&["a.png", "z.png"]);
        std::fs::rename(folder.path().join("a.png"), folder.path().join("a.jpg")).unwrap();
        std::fs::write(folder.path().join("m.jpg"), "text").unwrap();
        let results: Vec<_> = replay(folder.path(), None, "lab", now()).unwrap().collect();
        let first = results[0].as_ref().unwrap();
        assert_eq!(FrameEvent::from_json(&first.event).unwrap().image.media_type, MediaType::Png);
        assert!(results[1].as_ref().unwrap_err().to_string().contains("m.jpg is not a JPEG"));
        assert!(results[2].is_ok());
    }

    #[test]
    fn a_label_becomes_the_truth_of_its_image() {
        let truth = labelled("image,stage,exp,icm,te\r\na.png,blastocyst,4,A,C\r\n").unwrap().unwrap();
        assert_eq!(truth.stage, DevelopmentStage::Blastocyst);
        assert_eq!((truth.exp, truth.icm, truth.te), (Some(Expansion::E4), Some(Letter::A), Some(Letter::C)));
        assert_eq!(labelled("image,stage,exp,icm,te\nother.png,cleavage,,,\n").unwrap(), None);
    }

    #[test]
    fn an_impossible_or_second_label_is_refused_with_file_and_line() {
        let cases = [
            ("a.png,blastocyst,9,A,A", "EXP \"9\" is not one of 1 to 6"),
            ("b.png,cleavage,,,", "image b.png has a second label"),
        ];
        for (line, problem) in cases {
            let text = format!("image,stage,exp,icm,te\nb.png,cleavage,,,\n\n{line}\n");
            let error = labelled(&text).unwrap_err().to_string();
            assert!(error.contains("labels.csv:4: ") && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = replay(Path::new("no/such/folder"), None, "lab", now()).unwrap_err();
        assert!(error.to_string().starts_with("no/such/folder cannot be read"), "{error}");
    }
}

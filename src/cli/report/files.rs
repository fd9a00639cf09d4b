//! Summary, grade events and photographs from files, without Kafka.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use super::Found;
use super::photographs::Photographs;
use crate::cli::published::Wanted as _;
use crate::config::Config;
use crate::domain::{EmbryoSummary, GradeEvent};
use crate::incubator::read_image;
use crate::report::Case;

/// Longest file that is read. A thousand grade events have two megabytes.
const MAX_BYTES: u64 = 64 << 20;

pub(super) fn read(
    config: &Config,
    summary: &Path,
    grades: &Path,
    images: Option<&Path>,
) -> anyhow::Result<Found> {
    let json = bounded(summary)?;
    let summary_of = serde_json::from_slice::<EmbryoSummary>(&json)
        .with_context(|| format!("{} is no summary", summary.display()))?;
    let lines = bounded(grades)?;
    let lines = (1..).zip(lines.split(|byte| *byte == b'\n'));
    let events = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(number, line)| {
        serde_json::from_slice::<GradeEvent>(line)
            .with_context(|| format!("line {number} of {} is no grade event", grades.display()))
    });
    let events = events.collect::<anyhow::Result<Vec<_>>>()?;
    let case = Case::new(summary_of, events).map_err(anyhow::Error::msg);
    let cases = vec![case.with_context(|| format!("{} is a summary that cannot be", summary.display()))?];
    let mut photographs = Photographs::new(&config.decode, &cases);
    if let Some(folder) = images {
        look_through(folder, &mut photographs)
            .with_context(|| format!("cannot read {}", folder.display()))?;
    }
    Ok(Found { cases, photographs, without: Vec::new() })
}

/// Images are told by their digest, not by their names; what is no image is passed over.
fn look_through(folder: &Path, photographs: &mut Photographs) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if photographs.missing() == 0 {
            return Ok(());
        }
        if path.is_file()
            && let Ok((bytes, image)) = read_image(&path)
            && photographs.wants(&image.sha256)
        {
            photographs.take(&image, bytes);
        }
    }
    Ok(())
}

fn bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_BYTES, "{} is longer than {MAX_BYTES} bytes", path.display());
    Ok(bytes)
}

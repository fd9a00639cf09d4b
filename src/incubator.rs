//! What feeds the demo, the tests and the load tests: synthetic time-lapse incubators and the replay
//! of a folder of photographs.
//!
//! Every photograph comes as the frame event an incubator would send, with its image inline. The
//! embryos are drawn, not photographed: good enough to see the pipeline work, never evidence of how
//! well a model grades.

mod anatomy;
mod blastocyst;
mod canvas;
mod embryo;
mod event;
mod labelled;
mod render;
mod replay;
mod schedule;
pub mod strange;
mod synthetic;

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Truth;
use crate::random;

pub use anatomy::Regions;
pub use embryo::Embryo;
pub(crate) use event::{Exposure, Holder, frame_event};
pub use labelled::{LabelledPicture, LabelledSet};
pub use render::Renderer;
pub(crate) use replay::{EXTENSIONS, image_of};
pub use replay::{Replay, read_image, replay};
pub use schedule::IncubatorSettings;
pub use synthetic::Incubator;

/// One photograph on its way to the frames topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Photograph {
    /// When to send it, counted from the start; zero in a replay, which is as fast as its reader.
    pub due: Duration,
    /// Opaque pseudonym of the embryo: the Kafka key.
    pub embryo_id: String,
    /// The frame event, JSON, image inline.
    pub event: Vec<u8>,
    /// What the photograph shows, where that is known.
    pub truth: Option<Truth>,
    /// Hours post insemination at capture.
    pub hpi: f64,
}

/// Why there are no photographs.
#[derive(Debug, thiserror::Error)]
pub enum IncubatorError {
    /// A setting that no incubator could have.
    #[error("incubator.{field} is {value}: want {want}")]
    Setting {
        /// Name of the field of [`IncubatorSettings`].
        field: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        want: &'static str,
    },
    /// A folder, label file or image that could not be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More, or larger, files than a replay accepts.
    #[error("{} is beyond the limit: {limit}", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The limit, in words.
        limit: String,
    },
    /// A line of the label file that means no grade.
    #[error("{}:{line}: {problem}", path.display())]
    Label {
        /// The label file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file with the name of an image and other content.
    #[error("{} is not a JPEG, PNG, BMP or TIFF with a readable header", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
    },
    /// A drawn picture could not be encoded.
    #[error("the picture cannot be encoded: {0}")]
    Encode(#[from] image::ImageError),
    /// A frame event could not be written.
    #[error("the frame event cannot be written: {0}")]
    Event(#[from] serde_json::Error),
}

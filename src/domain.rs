//! What an embryologist would recognise: frames, clocks, grades and the events that carry them.
//!
//! Nothing here knows of Kafka, ONNX or HTTP; serde is the only framework in sight.

mod agreement;
mod annotation;
mod frame;
mod grade;
mod grade_event;
mod label;
mod picture;
mod population;
mod rejection;
mod review;
mod summary;
mod wire;

pub use agreement::quadratic_kappa;
pub use annotation::{DevelopmentStage, Label, LabelProblem, Truth};
pub use frame::{
    Clocks, FRAME_EVENT_TYPE, FocalPlane, Frame, FrameEvent, FrameId, Image, ImageEvent, ImageLocation,
    InseminationMethod, Instrument, MediaType, Text, TimeZeroSource,
};
pub(crate) use grade::round4;
pub use grade::{Expansion, GradeClass, Head, HeadGrade, Letter, Probabilities, gardner};
pub use grade_event::{
    AbstainReason, Assessment, GRADE_EVENT_TYPE, GradeEvent, GradeId, GradeStatus, GraderIdentity, Heads,
    ModelIdentity, Timings,
};
pub(crate) use label::label_enum;
pub use picture::{Picture, PictureStatistics};
pub use population::{GradeShares, Moments, Population};
pub use rejection::{Rejection, RejectionCode, SkipReason, Stage};
pub use review::{REVIEW_EVENT_TYPE, Review, ReviewReason, ReviewedSummary};
pub use summary::{
    CompactContribution, Comparison, Disagreement, Effect, Embryo, EmbryoSummary, FrameCounts, KnownReview,
    LastFrame, MAX_FRAMES, Place, SUMMARY_EVENT_TYPE, SummaryAssessment, SummaryReview, SummaryStatus,
    TrajectoryPoint, Vote, Window, WindowEvent,
};
pub(crate) use wire::{object, present, whole};

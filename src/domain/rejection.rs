//! Why a frame is not graded: skips, which are meant, and rejections, which become dead letters.

use super::label::label_enum;

label_enum! {
    /// Why a frame was not wanted.
    SkipReason {
        /// Before the day-5 window.
        TooEarly = "too_early",
        /// After the day-5 window.
        TooLate = "too_late",
        /// Not the focal plane that the policy asks for.
        OtherFocalPlane = "other_focal_plane",
        /// Too soon after the last wanted frame of this embryo.
        SpacedOut = "spaced_out",
        /// Received before, with the same image.
        Duplicate = "duplicate",
        /// Its partition moved to another process before its grade was committed; that one grades it.
        Reassigned = "reassigned",
    }
}

label_enum! {
    /// Where in the route of a frame it was refused. The names follow Kafka Connect's
    /// `__connect.errors.stage`.
    Stage {
        /// The value is not a frame event at all.
        Decode = "DECODE",
        /// The event is readable, its content is not acceptable.
        Validate = "VALIDATE",
        /// The image could not be obtained, or is not the image the event describes.
        Fetch = "FETCH",
        /// The image could not be turned into pixels.
        Preprocess = "PREPROCESS",
        /// The model could not grade it.
        Infer = "INFER",
        /// The grade event could not be published.
        Publish = "PUBLISH",
    }
}

label_enum! {
    /// The exact reason, stable across versions: `memebg.error.code` of a dead letter.
    RejectionCode {
        /// A null or zero-length value.
        EmptyValue = "empty_value",
        /// The value is larger than the configured limit.
        ValueTooLarge = "value_too_large",
        /// The value is not JSON.
        InvalidJson = "invalid_json",
        /// The CloudEvents `type` (or `specversion`) is not one this version understands.
        UnknownEventType = "unknown_event_type",
        /// JSON that does not satisfy the frame event's schema.
        SchemaInvalid = "schema_invalid",
        /// The site is not one of the configured sites.
        UnknownSite = "unknown_site",
        /// A review of an embryo without any grade, while too many others wait for theirs.
        UnknownEmbryo = "unknown_embryo",
        /// `captured_at` or `insemination_time` is absent.
        ClockMissing = "clock_missing",
        /// The frame was captured before insemination.
        ClockReversed = "clock_reversed",
        /// The frame was captured later than now.
        ClockInFuture = "clock_in_future",
        /// The image URI is outside the allow-list.
        ImageUriNotAllowed = "image_uri_not_allowed",
        /// The image store did not answer, after retries.
        ImageUnreachable = "image_unreachable",
        /// The image store answered that there is no such image, after retries.
        ImageNotFound = "image_not_found",
        /// The image has more bytes than the configured limit.
        ImageTooLarge = "image_too_large",
        /// The inline image is not base64.
        ImageBadBase64 = "image_bad_base64",
        /// The image's SHA-256 is not the one in the event.
        ImageDigestMismatch = "image_digest_mismatch",
        /// The bytes are not a JPEG, PNG, BMP or TIFF that can be decoded.
        ImageUndecodable = "image_undecodable",
        /// The image has more pixels than the configured limit.
        ImageTooManyPixels = "image_too_many_pixels",
        /// The image's size is not the one in the event.
        ImageSizeMismatch = "image_size_mismatch",
        /// The model failed on this frame alone, while it works on others.
        InferenceFailed = "inference_failed",
        /// The model answered with something that is not a number.
        OutputNotFinite = "output_not_finite",
        /// The broker refused the grade event as too large.
        GradeTooLarge = "grade_too_large",
        /// The EMR's FHIR server refused the summary, or the topic of bundles refused it as too large.
        EmrRefused = "emr_refused",
    }
}

impl RejectionCode {
    /// Where in the route of a frame this happens.
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self {
            Self::EmptyValue | Self::ValueTooLarge | Self::InvalidJson | Self::UnknownEventType => {
                Stage::Decode
            }
            Self::SchemaInvalid
            | Self::UnknownSite
            | Self::UnknownEmbryo
            | Self::ClockMissing
            | Self::ClockReversed
            | Self::ClockInFuture => Stage::Validate,
            Self::ImageUriNotAllowed
            | Self::ImageUnreachable
            | Self::ImageNotFound
            | Self::ImageTooLarge
            | Self::ImageBadBase64
            | Self::ImageDigestMismatch => Stage::Fetch,
            Self::ImageUndecodable | Self::ImageTooManyPixels | Self::ImageSizeMismatch => Stage::Preprocess,
            Self::InferenceFailed | Self::OutputNotFinite => Stage::Infer,
            Self::GradeTooLarge | Self::EmrRefused => Stage::Publish,
        }
    }
}

/// Longest message, in characters. It becomes a header, which must fit wherever the frame came from.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// A frame that cannot be graded, and why. It ends as a dead letter, never silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}/{code}: {message}", code.stage())]
pub struct Rejection {
    /// The stable reason, which also says at which stage it was refused.
    pub code: RejectionCode,
    /// What was wrong, with which value. Carries no image data and no patient data.
    pub message: String,
}

impl Rejection {
    /// A rejection with a message for the person who reads the dead letter; cut when it is too long.
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
        }
        Self { code, message }
    }

    /// Text that is not the JSON it should be. Says what serde says as long as that speaks of names
    /// only: a value may be what must not be logged.
    pub(crate) fn unreadable(what: &str, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let names_only = ["missing field", "unknown field", "duplicate field"];
        let reason = if error.is_data() && !names_only.iter().any(|start| text.starts_with(start)) {
            format!("wrong type or value at line {} column {}", error.line(), error.column())
        } else {
            text
        };
        let code = if error.is_data() { RejectionCode::SchemaInvalid } else { RejectionCode::InvalidJson };
        Self::new(code, format!("value is not {what}: {reason}"))
    }
}

//! The picture a model sees.

/// A square 8-bit grey picture, row by row, ready for the model but for the normalisation that the
/// model's manifest asks for. 224 x 224 take 50 kB, a twelfth of the tensor they become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    side_px: usize,
    grey: Box<[u8]>,
}

impl Picture {
    /// `None` unless there are exactly `side_px` x `side_px` bytes.
    #[must_use]
    pub fn new(side_px: usize, grey: Vec<u8>) -> Option<Self> {
        (side_px > 0 && side_px.checked_mul(side_px) == Some(grey.len()))
            .then(|| Self { side_px, grey: grey.into_boxed_slice() })
    }

    /// Width and height.
    #[must_use]
    pub fn side_px(&self) -> usize {
        self.side_px
    }

    /// Grey values, row by row.
    #[must_use]
    pub fn grey(&self) -> &[u8] {
        &self.grey
    }
}

/// What can be said of a picture without a model. All figures are of the square crop at the model's
/// size, so that they do not depend on the resolution of the camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureStatistics {
    /// Variance of the Laplacian (4 neighbours): small when nothing is in focus.
    pub sharpness: f32,
    /// Mean grey value, 0 (black) to 255 (white).
    pub mean_grey: f32,
    /// Standard deviation of the grey values.
    pub contrast: f32,
}

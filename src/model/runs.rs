//! How a batch is cut into runs of prepared sizes.
//!
//! A session that meets a shape for the first time grows its memory and, on a GPU, searches kernels.
//! So only a few sizes occur, each warmed up, and a batch is padded to the next of them.

/// Part of a batch that goes through a model in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of its first frame.
    pub(super) first_frame: usize,
    /// Number of frames, padding included.
    pub(super) frames: usize,
}

/// Batch sizes that the model allows, rising; its own limit when it allows none of them.
pub(super) fn usable_sizes(batch_sizes: &[usize], max_batch_frames: usize) -> Vec<usize> {
    let allowed: Vec<usize> = batch_sizes.iter().copied().filter(|size| *size <= max_batch_frames).collect();
    if allowed.is_empty() { vec![max_batch_frames] } else { allowed }
}

/// Cuts a batch into runs: the largest size as often as it fits, then the smallest that holds the
/// rest. The last run may reach past the batch, into padding.
pub(super) fn runs(frames: usize, sizes: &[usize]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut first_frame = 0;
    while first_frame < frames {
        let left = frames - first_frame;
        let Some(size) = sizes.iter().copied().find(|size| *size >= left).or(sizes.last().copied()) else {
            break;
        };
        runs.push(Run { first_frame, frames: size });
        first_frame += size;
    }
    runs
}

/// Frames that a batch takes up with its padding.
pub(super) fn padded(frames: usize, sizes: &[usize]) -> usize {
    runs(frames, sizes).last().map_or(0, |run| run.first_frame + run.frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(batch: usize, sizes: &[usize]) -> Vec<usize> {
        runs(batch, sizes).iter().map(|run| run.frames).collect()
    }

    #[test]
    fn a_batch_is_padded_up_to_the_next_prepared_size() {
        assert_eq!(frames(3, &[1, 2, 4, 8]), [4]);
        assert_eq!(frames(8, &[1, 2, 4, 8]), [8]);
        assert_eq!(frames(1, &[4]), [4]);
    }

    #[test]
    fn a_model_with_a_lower_limit_takes_the_batch_in_pieces() {
        assert_eq!(usable_sizes(&[1, 2, 4, 8], 1), [1]);
        assert_eq!(usable_sizes(&[4, 8], 2), [2]);
        assert_eq!(frames(3, &[1]), [1, 1, 1]);
        assert_eq!(frames(7, &[1, 2, 4]), [4, 4]);
        assert_eq!(runs(3, &[2])[1], Run { first_frame: 2, frames: 2 });
    }

    #[test]
    fn no_batch_reaches_past_the_space_of_the_largest() {
        for sizes in [&[1][..], &[3], &[2, 5], &[1, 2, 4, 8]] {
            for batch in 1..=20 {
                assert!(padded(batch, sizes) <= padded(20, sizes), "{batch} frames, {sizes:?}");
            }
        }
    }
}

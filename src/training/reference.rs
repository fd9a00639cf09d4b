//! What the embeddings of the training set look like as a whole, so that a picture of something else
//! is recognised: the Mahalanobis distance (Lee et al. 2018) under a shrunk covariance.

use nalgebra::{Cholesky, DMatrix, DVector};

use crate::model::multitask::Reference;

/// The reference of embeddings of equal length. The covariance is shrunk towards a multiple of the
/// identity by oracle approximating shrinkage (Chen et al. 2010): there may be fewer pictures than
/// numbers in an embedding, and the sample covariance alone could not be inverted.
///
/// `None` when there are fewer than two embeddings or all are the same.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "numbers of samples and dimensions")]
pub fn reference_of(embeddings: &[&[f32]]) -> Option<Reference> {
    let width = embeddings.first()?.len();
    let count = embeddings.len();
    if count < 2 || embeddings.iter().any(|embedding| embedding.len() != width) {
        return None;
    }
    let rows = DMatrix::from_fn(count, width, |row, column| {
        f64::from(embeddings.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0.0))
    });
    let mean = rows.row_mean();
    let centred = DMatrix::from_fn(count, width, |row, column| rows[(row, column)] - mean[column]);
    let mut covariance = centred.transpose() * &centred / count as f64;
    let (n, p) = (count as f64, width as f64);
    let trace = covariance.trace();
    let square = covariance.iter().map(|value| value * value).sum::<f64>();
    if trace <= 0.0 {
        return None;
    }
    let numerator = (1.0 - 2.0 / p) * square + trace * trace;
    let denominator = (n + 1.0 - 2.0 / p) * (square - trace * trace / p);
    let share = if denominator > 0.0 { (numerator / denominator).min(1.0) } else { 1.0 };
    covariance *= 1.0 - share;
    for index in 0..width {
        covariance[(index, index)] += share * trace / p;
    }
    let lower = Cholesky::new(covariance)?.l();
    let inverse = lower.solve_lower_triangular(&DMatrix::identity(width, width))?;
    Some(Reference {
        mean: mean.iter().map(|value| single(*value)).collect(),
        whitening: inverse.transpose().iter().map(|value| single(*value)).collect(),
    })
}

/// The distance of one embedding.
#[must_use]
pub fn distance(reference: &Reference, embedding: &[f32]) -> f64 {
    let width = reference.mean.len();
    let centred =
        DVector::from_iterator(width, embedding.iter().zip(&reference.mean).map(|(e, m)| f64::from(e - m)));
    let rows = reference.whitening.chunks(width.max(1));
    rows.map(|row| row.iter().zip(centred.iter()).map(|(w, e)| f64::from(*w) * e).sum::<f64>().powi(2))
        .sum::<f64>()
        .sqrt()
}

#[allow(clippy::cast_possible_truncation, reason = "single precision is what the network computes in")]
fn single(value: f64) -> f32 {
    value as f32
}

/// The smallest of `distances` that at least `share` of them do not exceed.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a number of samples"
)]
pub fn quantile(distances: &[f64], share: f64) -> Option<f64> {
    let mut sorted = distances.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Points that vary a lot along the first axis, a little along the second, around (3, -1, 0...).
    fn cloud(count: usize, width: usize) -> Vec<Vec<f32>> {
        let mut random = Random::new(4);
        (0..count)
            .map(|_| {
                let mut point: Vec<f32> = (0..width).map(|_| random.about(0.0, 0.2)).collect();
                point[0] = 3.0 + random.about(0.0, 2.0);
                point[1] -= 1.0;
                point
            })
            .collect()
    }

    fn reference(points: &[Vec<f32>]) -> Reference {
        reference_of(&points.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn distance_counts_deviations_and_not_lengths() {
        let reference = reference(&cloud(2_000, 3));
        let at = |x, y| distance(&reference, &[x, y, 0.0]);
        assert!(at(3.0, -1.0) < 0.2);
        assert!((at(5.0, -1.0) - 1.0).abs() < 0.15, "{}", at(5.0, -1.0));
        assert!((at(3.0, -0.8) - 1.0).abs() < 0.2, "{}", at(3.0, -0.8));
    }

    #[test]
    fn fewer_pictures_than_dimensions_still_tell_what_is_far_away() {
        let points = cloud(40, 100);
        let reference = reference(&points[..30]);
        let held_out: Vec<f64> = points[30..].iter().map(|point| distance(&reference, point)).collect();
        let mut strange = points[0].clone();
        strange[7] += 4.0;
        let furthest = held_out.iter().copied().fold(0.0, f64::max);
        assert!(distance(&reference, &strange) > furthest, "{held_out:?}");
    }

    #[test]
    fn one_embedding_or_only_equal_ones_are_no_reference() {
        assert!(reference_of(&[&[1.0, 2.0]]).is_none());
        assert!(reference_of(&[&[1.0, 2.0], &[1.0, 2.0]]).is_none());
    }

    #[test]
    fn a_quantile_is_not_exceeded_by_the_stated_share() {
        let distances: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&distances, 0.99), Some(99.0));
        assert_eq!(quantile(&distances, 1.0), Some(100.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}

//! What the embeddings of the training set look like, so that a picture of something else is recognised:
//! the Mahalanobis distance (Lee et al. 2018) from the nearest of several Gaussians with shrunk
//! covariances.

use nalgebra::{Cholesky, DMatrix, DVector};

use crate::domain::{Expansion, GradeClass};
use crate::model::multitask::Reference;

/// Fewest pictures of an expansion that get a Gaussian of their own.
const MIN_PICTURES: usize = 30;

/// One reference for every expansion with 30 pictures or more, and when some have fewer, one for all of
/// them together. One for the whole set would be so wide that cleavage stages lie within it: an
/// early and a hatched blastocyst have little in common.
///
/// Empty when no reference can be made, as for [`reference_of`].
#[must_use]
pub fn references_of(embeddings: &[(Expansion, &[f32])]) -> Vec<Reference> {
    let of = |expansion: Expansion| -> Vec<&[f32]> {
        let of_expansion = embeddings.iter().filter(|(found, _)| *found == expansion);
        of_expansion.map(|(_, embedding)| *embedding).collect()
    };
    let classes: Vec<Vec<&[f32]>> = <Expansion as GradeClass>::ALL.iter().map(|class| of(*class)).collect();
    let mut groups: Vec<&Vec<&[f32]>> = classes.iter().filter(|class| class.len() >= MIN_PICTURES).collect();
    let all: Vec<&[f32]> = embeddings.iter().map(|(_, embedding)| *embedding).collect();
    if classes.iter().any(|class| (1..MIN_PICTURES).contains(&class.len())) {
        groups.push(&all);
    }
    groups.into_iter().filter_map(|group| reference_of(group)).collect()
}

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

/// The distance of an embedding from the nearest reference; infinite without any.
#[must_use]
pub fn distance(references: &[Reference], embedding: &[f32]) -> f64 {
    references.iter().map(|reference| distance_from(reference, embedding)).fold(f64::INFINITY, f64::min)
}

fn distance_from(reference: &Reference, embedding: &[f32]) -> f64 {
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
        let at = |x, y| distance_from(&reference, &[x, y, 0.0]);
        assert!(at(3.0, -1.0) < 0.2);
        assert!((at(5.0, -1.0) - 1.0).abs() < 0.15, "{}", at(5.0, -1.0));
        assert!((at(3.0, -0.8) - 1.0).abs() < 0.2, "{}", at(3.0, -0.8));
    }

    #[test]
    fn fewer_pictures_than_dimensions_still_tell_what_is_far_away() {
        let points = cloud(40, 100);
        let reference = reference(&points[..30]);
        let held_out: Vec<f64> = points[30..].iter().map(|point| distance_from(&reference, point)).collect();
        let mut strange = points[0].clone();
        strange[7] += 4.0;
        let furthest = held_out.iter().copied().fold(0.0, f64::max);
        assert!(distance_from(&reference, &strange) > furthest, "{held_out:?}");
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

    #[test]
    fn every_expansion_with_enough_pictures_has_its_own_reference_and_the_rest_share_one() {
        let points = cloud(100, 3);
        let labelled = |expansion: &dyn Fn(usize) -> Expansion| -> usize {
            let all = points.iter().enumerate();
            references_of(&all.map(|(index, point)| (expansion(index), point.as_slice())).collect::<Vec<_>>())
                .len()
        };
        assert_eq!(labelled(&|index| if index < 50 { Expansion::E3 } else { Expansion::E4 }), 2);
        assert_eq!(labelled(&|index| if index < 10 { Expansion::E3 } else { Expansion::E4 }), 2);
        assert_eq!(labelled(&|index| Expansion::try_from(u8::try_from(index % 6 + 1).unwrap()).unwrap()), 1);
        assert_eq!(references_of(&[]).len(), 0);
    }

    #[test]
    fn the_nearest_reference_counts() {
        let (here, there) = (
            reference(&cloud(100, 3)),
            Reference { mean: vec![100.0; 3], whitening: reference(&cloud(100, 3)).whitening },
        );
        assert!(distance(&[here.clone(), there.clone()], &[3.0, -1.0, 0.0]) < 0.5);
        assert!(distance(&[here, there], &[100.0, 100.0, 100.0]) < 0.5);
        assert!(distance(&[], &[0.0]).is_infinite());
    }
}

//! What the graders are warmed up with, and how alike two answers must be.

use super::manifest::Precision;
use crate::domain::{GradeClass, Heads, Picture, Probabilities};

/// Largest difference between the probabilities of a picture alone and among others. Single
/// precision does not reach the fourth decimal, where probabilities are rounded; dynamic int8 over
/// a batch is off by some hundredths.
const MAX_DIFFERENCE: f64 = 1e-3;
/// The same in half precision: a GPU takes another kernel for another batch size, which sums in another order.
/// 0.0022 was seen on an H200.
const MAX_DIFFERENCE_IN_HALF: f64 = 1e-2;

/// The difference that networks of these precisions are allowed.
pub(super) fn max_difference(precisions: [Precision; 2]) -> f64 {
    if precisions.contains(&Precision::Fp16) { MAX_DIFFERENCE_IN_HALF } else { MAX_DIFFERENCE }
}

/// Pictures that differ as much as photographs do, so that a network that looks across its batch
/// answers differently. None is blank: a blank one may make a sound network answer 0 / 0.
///
/// `None` when `side_px` is 0.
pub(super) fn pictures(side_px: usize) -> Option<Vec<Picture>> {
    let slope = |_, y: usize| 255 * y / side_px;
    let stripes = |x: usize, _| if (16 * x / side_px).is_multiple_of(2) { 40 } else { 230 };
    let disc = |x: usize, y: usize| {
        let from_centre = x.abs_diff(side_px / 2).pow(2) + y.abs_diff(side_px / 2).pow(2);
        if 9 * from_centre < side_px.pow(2) { 210 } else { 70 }
    };
    let texture = |x: usize, y: usize| 90 + (7 * x + 13 * y) % 60;
    let kinds: [&dyn Fn(usize, usize) -> usize; 4] = [&slope, &stripes, &disc, &texture];
    kinds.into_iter().map(|grey| picture(side_px, grey)).collect()
}

fn picture(side_px: usize, grey: &dyn Fn(usize, usize) -> usize) -> Option<Picture> {
    let pixels = (0..side_px * side_px).map(|index| grey(index % side_px, index / side_px));
    Picture::new(side_px, pixels.map(|grey| u8::try_from(grey).unwrap_or(u8::MAX)).collect())
}

/// The largest difference of a probability. Heads that only one of the two has are left out: they
/// come and go with the expansion, whose probabilities are compared.
pub(super) fn difference(a: &Heads, b: &Heads) -> f64 {
    let mut largest = of_head(&a.exp.probabilities, &b.exp.probabilities);
    for (a, b) in [(&a.icm, &b.icm), (&a.te, &b.te)] {
        if let (Some(a), Some(b)) = (a, b) {
            largest = largest.max(of_head(&a.probabilities, &b.probabilities));
        }
    }
    largest
}

fn of_head<G: GradeClass>(a: &Probabilities<G>, b: &Probabilities<G>) -> f64 {
    a.iter().zip(b.iter()).map(|((_, a), (_, b))| (a - b).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HeadGrade;

    fn heads(exp: [f32; 6], icm: [f32; 3]) -> Heads {
        let letters = |logits: [f32; 3]| HeadGrade::from_logits(&logits, 1.0).unwrap();
        Heads::new(HeadGrade::from_logits(&exp, 1.0).unwrap(), letters(icm), letters([0.0; 3]))
    }

    #[test]
    fn every_picture_is_another_and_none_is_blank() {
        let pictures = pictures(224).unwrap();
        for (index, picture) in pictures.iter().enumerate() {
            assert!(picture.grey().iter().any(|grey| *grey != picture.grey()[0]));
            assert!(pictures.iter().skip(index + 1).all(|other| other.grey() != picture.grey()));
        }
    }

    #[test]
    fn only_half_precision_may_differ_by_what_its_rounding_makes() {
        assert_eq!(max_difference([Precision::Fp32, Precision::Fp16]), MAX_DIFFERENCE_IN_HALF);
        assert_eq!(max_difference([Precision::Int8, Precision::Fp32]), MAX_DIFFERENCE);
    }

    #[test]
    fn the_largest_difference_of_any_head_counts() {
        let expansion_4 = [0.0, 0.0, 0.0, 2.0, 0.0, 0.0];
        let one = heads(expansion_4, [0.0; 3]);
        assert_eq!(difference(&one, &one), 0.0);
        let other_letter = heads(expansion_4, [0.0, 0.0, 1.0]);
        assert!(difference(&one, &other_letter) > 0.2);
        let without_letters = heads([0.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.0; 3]);
        assert!(difference(&one, &without_letters) > 0.2);
    }
}

//! How far two graders agree.

/// Quadratic-weighted kappa (Cohen 1968) of a square table of counts, rows by one grader and columns by the other:
/// 1 is full agreement, 0 that of chance. `None` where chance alone would agree too.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn quadratic_kappa(confusion: &[Vec<u64>]) -> Option<f64> {
    let column = |class: usize| confusion.iter().filter_map(|row| row.get(class)).sum::<u64>() as f64;
    let total: f64 = (0..confusion.len()).map(column).sum();
    let (mut seen, mut by_chance) = (0.0, 0.0);
    for (truth, row) in confusion.iter().enumerate() {
        let row_sum = row.iter().sum::<u64>() as f64;
        for (answer, count) in row.iter().enumerate() {
            let weight = (truth as f64 - answer as f64).powi(2);
            seen += weight * *count as f64;
            by_chance += weight * row_sum * column(answer) / total;
        }
    }
    (by_chance > 0.0).then(|| 1.0 - seen / by_chance)
}

//! Letters of three by five dots: there is no font that every machine has.

/// The letters that can be printed.
pub const LETTERS: &str = "0123456789.ABCEIMPTX";

/// Five rows of three dots, the left one in the highest of three bits. Blank for what is not in
/// [`LETTERS`].
#[must_use]
pub fn glyph(letter: char) -> [u8; 5] {
    match letter {
        '0' => [7, 5, 5, 5, 7],
        '1' => [2, 6, 2, 2, 7],
        '2' => [7, 1, 7, 4, 7],
        '3' => [7, 1, 7, 1, 7],
        '4' => [5, 5, 7, 1, 1],
        '5' => [7, 4, 7, 1, 7],
        '6' => [7, 4, 7, 5, 7],
        '7' => [7, 1, 1, 1, 1],
        '8' => [7, 5, 7, 5, 7],
        '9' => [7, 5, 7, 1, 7],
        '.' => [0, 0, 0, 0, 2],
        'A' => [2, 5, 7, 5, 5],
        'B' => [6, 5, 6, 5, 6],
        'C' => [3, 4, 4, 4, 3],
        'E' => [7, 4, 6, 4, 7],
        'I' => [7, 2, 2, 2, 7],
        'M' => [5, 7, 7, 5, 5],
        'P' => [6, 5, 6, 4, 4],
        'T' => [7, 2, 2, 2, 2],
        'X' => [5, 5, 2, 5, 5],
        _ => [0; 5],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_letter_is_there_and_looks_like_no_other() {
        let glyphs: HashSet<_> = LETTERS.chars().map(glyph).collect();
        assert_eq!(glyphs.len(), LETTERS.len());
        assert!(!glyphs.contains(&glyph(' ')) && glyphs.iter().flatten().all(|row| *row < 8));
    }
}

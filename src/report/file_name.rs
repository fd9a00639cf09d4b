//! The name of the file of a report.

use sha2::{Digest, Sha256};

/// Digits of the digest in a name: two of a million ids have the same name once in 500 runs of such a million.
const DIGITS: usize = 12;
/// Letters of the id in a name. With the rest of it this fits every file system.
const MAX_LETTERS: usize = 100;

/// A name that is safe for any id and differs for any two: what the id has of letters, digits, `.`, `-` and `_`, and
/// the first digits of its SHA-256, which also tells `a` from `A` where a file system does not.
#[must_use]
pub fn file_name(embryo_id: &str) -> String {
    let is_safe = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let letters: String =
        embryo_id.chars().take(MAX_LETTERS).map(|it| if is_safe(it) { it } else { '_' }).collect();
    let digest: String = hex::encode(Sha256::digest(embryo_id.as_bytes())).chars().take(DIGITS).collect();
    format!("embryo-{letters}-{digest}.html")
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    #[test]
    fn every_id_is_one_name_within_the_folder() {
        let long = "x".repeat(10_000);
        for id in
            ["", "..", "/", "../../etc/passwd", "..\\x", "C:", "CON", "a\0b", "<script>", "\u{202e}", &long]
        {
            let name = file_name(id);
            let parts: Vec<_> = Path::new(&name).components().collect();
            assert!(matches!(parts[..], [Component::Normal(_)]), "{id:?}: {name}");
            assert!(
                name.len() < 150 && name.is_ascii() && !name.contains(['/', '\\', ':', '<', '\0']),
                "{name}"
            );
        }
        assert_eq!(file_name("S1_P-2"), "embryo-S1_P-2-21782b188e0b.html");
    }

    #[test]
    fn ids_that_look_alike_have_names_of_their_own() {
        assert_ne!(file_name("a/b"), file_name("a_b"));
        assert_ne!(file_name("a").to_lowercase(), file_name("A").to_lowercase());
    }
}

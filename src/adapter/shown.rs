//! What may be said of a path in a log line, and in an event.
//!
//! Whoever exports may put a name or a date of birth into a file or folder name, so only those parts of a path are
//! repeated that can be nothing else than what an incubator writes. Of the others the shape remains, which together
//! with size and modification time is enough to find the file.

use super::embryoscope;
use super::number;

/// The path with every letter and digit replaced of what could be a name.
pub(super) fn shown(relative: &str) -> String {
    let each = relative.split('/').map(|part| if is_plain(part) { part.to_owned() } else { masked(part) });
    each.collect::<Vec<_>>().join("/")
}

/// Whether nothing in a path could be a name.
pub(super) fn is_plain_path(relative: &str) -> bool {
    relative.split('/').all(is_plain)
}

fn is_plain(part: &str) -> bool {
    let stem = part.rsplit_once('.').map_or(part, |(stem, _)| stem);
    let dish = |text: &str| number(text, "DISH", 2).is_some();
    part == "DishInfo.ini"
        || embryoscope::Name::parse(stem).is_some()
        || embryoscope::is_slide(stem)
        || embryoscope::plane_folder(part).is_some()
        || dish(part)
        || dish(stem)
        // Long enough for a culture's start and an elapsed time, and for a picture's number; a patient's number or
        // date of birth has 6, 8 or 9 and more digits.
        || super::astec::start_time(part).is_some()
        || (part.len() == 7 && number(part, "", 7).is_some())
        || (stem.len() == 5 && number(stem, "", 5).is_some())
}

fn masked(part: &str) -> String {
    let (stem, extension) = part.rsplit_once('.').unwrap_or((part, ""));
    let hidden: String = stem.chars().map(|c| if c.is_alphanumeric() { '?' } else { c }).collect();
    // Combining marks and controls have no place in a log line either.
    let hidden: String =
        hidden.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    let known = ["json", "ini"].iter().chain(&crate::incubator::EXTENSIONS);
    match known.into_iter().find(|known| extension.eq_ignore_ascii_case(known)) {
        Some(known) => format!("{hidden}.{known}"),
        None if extension.is_empty() => hidden,
        None => format!("{hidden}.???"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_incubator_writes_is_shown_and_what_a_person_writes_is_not() {
        for (path, expected) in [
            ("Jane Doe/1985-03-01_x.JPG", "???? ???/????-??-??_?.jpg"),
            (
                "F-15/D2026.01.31_S00001_I0001_P-3_WELL3_RUN12.jpeg",
                "F-15/D2026.01.31_S00001_I0001_P-3_WELL3_RUN12.jpeg",
            ),
            ("D2026.01.31_S00001_I0001_Jane.json", "?????.??.??_??????_?????_????.json"),
            ("20260131093000/DISH4/0012345/00001.jpg", "20260131093000/DISH4/0012345/00001.jpg"),
            ("19850301/12345678.jpg", "????????/????????.jpg"),
            ("Zoë\u{301}\n.exe", "?????.???"),
        ] {
            assert_eq!(shown(path), expected);
        }
        assert!(is_plain_path("D2026.01.31_S00001_I0001.json") && !is_plain_path("DISH4/doe.jpg"));
    }
}

//! Text from outside, made harmless.

/// Text for an element or a quoted attribute.
pub(super) fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in visible(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Letters that cannot be seen, or that turn the order of others around, become their numbers: two ids that look the
/// same on paper must be the same.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let hidden = letter.is_control()
            || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if hidden {
            shown.push_str(&format!("[U+{:04X}]", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// A string of a style sheet. All but letters and digits become numbers, so that neither the string nor the element
/// around it can be ended.
pub(super) fn css_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            quoted.push(letter);
        } else {
            // Always six digits: whatever follows is not read as one more.
            quoted.push_str(&format!("\\{:06x}", u32::from(letter)));
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup_or_leaves_an_attribute() {
        assert_eq!(text(r#"<a b="c" d='e'>&"#), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
        assert_eq!(text("D2026.01.26_S1"), "D2026.01.26_S1");
    }

    #[test]
    fn what_cannot_be_seen_is_shown_as_its_number() {
        assert_eq!(text("P-\u{202e}1\u{200b}2\n"), "P-[U+202E]1[U+200B]2[U+000A]");
        assert_eq!(text("é"), "é");
    }

    #[test]
    fn a_string_of_a_style_sheet_ends_where_it_should() {
        assert_eq!(css_string("a-1"), "\"a\\00002d1\"");
        let hostile = css_string("\"}</style>\\");
        assert_eq!(hostile.matches('"').count(), 2);
        assert!(!hostile.contains(['<', '}', '/']), "{hostile}");
    }
}

//! What servers say, made fit to be shown and to be sent to the model: without characters that hide or reorder text, and
//! not longer than we can bear. Pure.

use std::{fmt::Write as _, sync::LazyLock};

use fancy_regex::Regex;

/// The text without control characters (but newline and tab), bidirectional controls, zero-width characters and tags:
/// with them a text can show a person something else than it tells the model, or rewrite a terminal. What joins letters or emoji, and
/// what chooses a variant of one, is part of it and stays.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let before = out.chars().next_back();
        let kept = match c {
            '\n' | '\t' => true,
            '\u{200C}' | '\u{200D}' | '\u{034F}' | '\u{115F}' | '\u{1160}' => {
                before.is_some_and(joins) && rest.peek().copied().is_some_and(joins)
            }
            _ if is_variant(c) => before.is_some_and(|c| joins(c) && !is_variant(c) || "#*0123456789".contains(c)),
            _ => !(c.is_control() || is_invisible(c)),
        };
        if kept {
            out.push(c);
        }
    }
    out
}

/// Whether a letter of a script that joins, or an emoji: none is ASCII.
fn joins(c: char) -> bool {
    !c.is_ascii() && !c.is_whitespace() && !c.is_control() && (!is_invisible(c) || is_variant(c))
}

fn is_variant(c: char) -> bool {
    matches!(c, '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

/// The same on one line.
pub fn clean_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All that Unicode knows to be unseen or to look like a space, but the space itself.
static UNSEEN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\x{2800}]|[\p{Zs}&&[^ ]]").ok());

/// The text with every letter that cannot be seen written as JSON writes it: so arguments that are to be approved are shown.
pub fn visible(text: &str) -> String {
    let (mut shown, mut units) = (String::with_capacity(text.len()), [0; 2]);
    for c in text.chars() {
        if is_seen(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

fn is_seen(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    let mut bytes = [0; 4];
    let text = &*c.encode_utf8(&mut bytes);
    // Without the tables of Unicode, nothing would be known of it.
    UNSEEN.as_ref().is_some_and(|unseen| !unseen.is_match(text).unwrap_or(true))
}

/// What Unicode ignores by default (but for what chooses a variant), and what turns the order of letters around.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E00FF}' | '\u{E01F0}'..='\u{E0FFF}')
}

/// Cuts the text to at most `max` bytes, and says how much is missing. True when it was cut.
pub fn cap(text: String, max: usize) -> (String, bool) {
    if text.len() <= max {
        return (text, false);
    }
    let (mut text, missing) = cut(&text, max);
    // Writing to a String cannot fail.
    let _ = write!(text, "\n[cut off here: {missing} more bytes; ask for less at a time]");
    (text, true)
}

/// The text up to so many bytes, between two letters, and how many bytes are left.
pub fn cut(text: &str, max: usize) -> (String, usize) {
    let end = text.floor_char_boundary(max);
    (text[..end].to_owned(), text.len() - end)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_hides_or_reorders_text_is_taken_out() {
        assert_eq!(clean("a\u{202E}b\u{200B}c\u{1b}[31md\ne\tf\u{E0041}\r"), "abc[31md\ne\tf");
        assert_eq!(clean_line(" two\n lines\u{7} "), "two lines");
        assert_eq!(clean("Zürich 東京 🦀"), "Zürich 東京 🦀");
    }

    #[test]
    fn what_joins_letters_and_emoji_stays_and_what_only_hides_goes() {
        for kept in [
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
            "\u{2764}\u{FE0F}\u{200D}\u{1F525}",
            "1\u{FE0F}\u{20E3}",
            "葛\u{E0100}",
        ] {
            assert_eq!(clean(kept), kept);
        }
        assert_eq!(clean("pass\u{200D}word \u{200C}x \u{200C}"), "password x ");
        assert_eq!(clean("a\u{FE0F}\u{E0101}b"), "ab");
        assert_eq!(clean("\u{1F600}\u{FE0F}\u{FE01}\u{FE02}"), "\u{1F600}\u{FE0F}");
        assert_eq!(clean("\u{1828}\u{180B}\u{180B} a\u{180B}"), "\u{1828}\u{180B} a");
    }

    #[test]
    fn whatever_unicode_ignores_goes_wherever_it_hides() {
        for hidden in [
            "\u{3164}",
            "\u{FFA0}",
            "\u{17B4}",
            "\u{034F}",
            "\u{115F}",
            "\u{FFF0}",
            "\u{1BCA0}",
            "\u{1D173}",
            "\u{E0080}",
            "\u{E01F0}",
            "\u{E0FFF}",
        ] {
            assert_eq!(clean(&format!("read{}only", hidden.repeat(3))), "readonly", "{hidden:?}");
        }
        let old = "\u{115F}\u{1161}\u{11A8}";
        assert_eq!(clean(&format!("\u{1100}{old}")), format!("\u{1100}{old}"), "it holds a place between letters");
    }

    #[test]
    fn whatever_cannot_be_seen_is_written_out_for_approval_and_means_the_same() {
        let unseen =
            "a\nb\tc\u{200B}\u{E0041}\u{180E}\u{FE0F}\u{3164}\u{115F}\u{2800}\u{202E}\u{A0}\u{2003}\u{AD}\u{7f}\u{E0101}";
        let value = json!({"q": unseen, "path": "a\\nb", "n\u{200D}": 1});
        let shown = visible(&value.to_string());
        assert!(shown.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{shown}");
        assert!(shown.contains(r"a\nb\tc\u200b\udb40\udc41\u180e") && shown.contains(r"a\\nb"), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), value);
        assert_eq!(visible(r#"{"q":"Zürich 東京 🦀"}"#), r#"{"q":"Zürich 東京 🦀"}"#);
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        let (text, cut) = cap("äää".to_owned(), 3);
        assert!(cut);
        assert_eq!(text, "ä\n[cut off here: 4 more bytes; ask for less at a time]");
        assert_eq!(cap("abc".to_owned(), 3), ("abc".to_owned(), false));
    }
}

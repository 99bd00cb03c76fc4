//! What servers say, made fit to be shown and to be sent to the model: without characters that hide or reorder text, and
//! not longer than we can bear. Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// The text without control characters (but newline and tab), bidirectional controls, zero-width characters and tags:
/// with them a text can show a person something else than it tells the model, or rewrite a terminal.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || is_invisible(*c))).collect()
}

/// The same on one line.
pub fn clean_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value whose texts and names are clean; `None` when it takes more than `max` bytes.
pub fn clean_json(value: &Value, max: usize) -> Option<Value> {
    (value.to_string().len() <= max).then(|| cleaned(value))
}

fn cleaned(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(list) => list.iter().map(cleaned).collect(),
        Value::Object(map) => map.iter().map(|(name, value)| (clean(name), cleaned(value))).collect(),
        other => other.clone(),
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// Cuts the text to at most `max` bytes, and says how much is missing. True when it was cut.
pub fn cap(mut text: String, max: usize) -> (String, bool) {
    if text.len() <= max {
        return (text, false);
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let missing = text.len() - end;
    text.truncate(end);
    // Writing to a String cannot fail.
    let _ = write!(text, "\n[cut off here: {missing} more bytes; ask for less at a time]");
    (text, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_hides_or_reorders_text_is_taken_out() {
        assert_eq!(clean("a\u{202E}b\u{200B}c\u{1b}[31md\ne\tf\u{E0041}\r"), "abc[31md\ne\tf");
        assert_eq!(clean_line(" two\n lines\u{7} "), "two lines");
        assert_eq!(clean("Zürich 東京 🦀"), "Zürich 東京 🦀");
    }

    #[test]
    fn structured_results_are_cleaned_everywhere_and_too_large_ones_left_out() {
        let value = json!({"a\u{202E}": ["b\u{200B}", 1, {"c": "d\u{1b}"}], "e": null});
        assert_eq!(clean_json(&value, 100), Some(json!({"a": ["b", 1, {"c": "d"}], "e": null})));
        assert_eq!(clean_json(&value, 10), None);
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        let (text, cut) = cap("äää".to_owned(), 3);
        assert!(cut);
        assert_eq!(text, "ä\n[cut off here: 4 more bytes; ask for less at a time]");
        assert_eq!(cap("abc".to_owned(), 3), ("abc".to_owned(), false));
    }
}

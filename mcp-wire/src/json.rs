//! JSON as servers send it, made fit for a strict parser within bounds. What the official SDKs read is JSON: a byte order mark, halves of
//! surrogate pairs, numbers beyond a double. Small texts that become large trees are refused before there is a tree.

use std::{borrow::Cow, ops::Range};

use serde::de::DeserializeOwned;

/// What one message of a server may take in memory, in bytes.
pub const MAX_WEIGHT: usize = 96 << 20;

/// Deeper is refused.
pub const MAX_DEPTH: usize = 512;

/// What a parsed object, element and array cost in memory, in bytes, about: serde_json's map takes room for eleven fields at once.
const OBJECT: usize = 640;
const ELEMENT: usize = 40;
const ARRAY: usize = 64;
/// And each further field: the text of its key, and a place in a node of the map, of which about half are free.
const FIELD: usize = 120;
const FIRST_FIELDS: u32 = 11;

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    Deep,
    /// In memory, not as sent.
    #[error("it holds too many values: they would take more than {} MiB", .0 >> 20)]
    Heavy(usize),
}

/// The text as a strict parser reads it, if its tree takes no more than about `max_weight` bytes of memory.
pub fn tidy(bytes: &[u8], max_weight: usize) -> Result<Cow<'_, str>, Unreadable> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::NotText)?;
    let mut scan = Scan { bytes, at: 0, depth: 0, fields: Vec::new(), weight: bytes.len(), edits: Vec::new() };
    while let Some(byte) = scan.byte() {
        scan.step(byte)?;
        if scan.weight > max_weight {
            return Err(Unreadable::Heavy(max_weight));
        }
    }
    Ok(edited(text, &scan.edits))
}

/// About how many bytes of memory the tree of a text takes; `None` where it is nested too deeply. For texts that a strict parser reads
/// anyway.
pub fn weight(bytes: &[u8]) -> Option<usize> {
    let mut scan = Scan { bytes, at: 0, depth: 0, fields: Vec::new(), weight: bytes.len(), edits: Vec::new() };
    while let Some(byte) = scan.byte() {
        scan.step(byte).ok()?;
    }
    Some(scan.weight)
}

/// Parses what `tidy` has bounded.
pub fn parse<T: DeserializeOwned>(tidied: &str) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(tidied);
    // The depth has been looked at.
    deserializer.disable_recursion_limit();
    let value = T::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// How many each object around this place has so far, by its depth.
    fields: Vec<u32>,
    weight: usize,
    edits: Vec<(Range<usize>, &'static str)>,
}

impl Scan<'_> {
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Looks at what begins here, and goes on behind it.
    fn step(&mut self, byte: u8) -> Result<(), Unreadable> {
        self.at += 1;
        match byte {
            b'"' => self.string(),
            b'{' | b'[' => {
                self.depth += 1;
                self.fields.truncate(self.depth);
                self.fields.resize(self.depth + 1, 0);
                self.weight += if byte == b'{' { OBJECT } else { ARRAY };
                if self.depth > MAX_DEPTH {
                    return Err(Unreadable::Deep);
                }
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.weight += ELEMENT,
            b':' => self.field(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {}
        }
        Ok(())
    }

    fn field(&mut self) {
        if let Some(fields) = self.fields.get_mut(self.depth) {
            *fields += 1;
            self.weight += if *fields > FIRST_FIELDS { FIELD } else { 0 };
        }
    }

    fn string(&mut self) {
        while let Some(byte) = self.byte() {
            self.at += 1;
            match byte {
                b'"' => return,
                b'\\' => self.escape(),
                _ => {}
            }
        }
    }

    fn escape(&mut self) {
        let begin = self.at - 1;
        match self.unit(begin) {
            None => self.at += 1,
            Some(0xD800..=0xDBFF) if matches!(self.unit(begin + 6), Some(0xDC00..=0xDFFF)) => self.at = begin + 12,
            Some(unit) => {
                self.at = begin + 6;
                if (0xD800..=0xDFFF).contains(&unit) {
                    self.edits.push((begin..self.at, "\\ufffd"));
                }
            }
        }
    }

    /// The value of a `\uXXXX` that begins at `begin`.
    fn unit(&self, begin: usize) -> Option<u16> {
        let digits = self.bytes.get(begin..begin + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn number(&mut self) {
        let begin = self.at - 1;
        while matches!(self.byte(), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            self.at += 1;
        }
        let token = &self.bytes[begin..self.at];
        // Only these can be beyond a double.
        if token.len() > 300 || token.iter().any(|byte| matches!(byte, b'e' | b'E')) {
            let value = std::str::from_utf8(token).ok().and_then(|token| token.parse::<f64>().ok());
            if let Some(value) = value.filter(|value| value.is_infinite()) {
                let most = if value > 0.0 { "1.7976931348623157e308" } else { "-1.7976931348623157e308" };
                self.edits.push((begin..self.at, most));
            }
        }
    }
}

fn edited<'a>(text: &'a str, edits: &[(Range<usize>, &'static str)]) -> Cow<'a, str> {
    if edits.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut edited, mut from) = (String::with_capacity(text.len()), 0);
    for (range, instead) in edits {
        edited += &text[from..range.start];
        edited += instead;
        from = range.end;
    }
    Cow::Owned(edited + &text[from..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const ROOMY: usize = 1 << 30;

    fn read(text: &str) -> Value {
        parse(&tidy(text.as_bytes(), ROOMY).unwrap()).unwrap()
    }

    #[test]
    fn an_object_of_many_fields_weighs_what_its_map_takes() {
        let fields = |count: usize| (0..count).map(|field| format!("\"{field}\":0")).collect::<Vec<_>>().join(",");
        let of = |count: usize| weight(format!("{{{}}}", fields(count)).as_bytes()).unwrap();
        assert_eq!(of(11), OBJECT + 10 * ELEMENT + fields(11).len() + 2);
        assert!(of(100_000) > 16_000_000, "{}", of(100_000));
        let nested = format!("[{},{{\"a\":{{{}}},\"b\":1}}]", vec![r#"{"a":1}"#; 1_000].join(","), fields(11));
        assert!(
            weight(nested.as_bytes()).unwrap() < 1_003 * (OBJECT + ELEMENT) + 12 * ELEMENT + ARRAY + nested.len(),
            "each counts its own"
        );
    }

    #[test]
    fn what_sdks_read_is_read() {
        assert_eq!(read("\u{feff}[1]"), serde_json::json!([1]));
        assert_eq!(
            read(r#"["\ud83d\ude00", "\ud83d", "\ude00x", "\ud83d\ud83d\ude00", "\\ud83d"]"#),
            serde_json::json!(["😀", "\u{fffd}", "\u{fffd}x", "\u{fffd}😀", "\\ud83d"])
        );
        assert_eq!(read("[1e400, -1e400, 1e-400, 12e3]"), serde_json::json!([f64::MAX, f64::MIN, 0.0, 12e3]));
        let digits = "9".repeat(400);
        assert_eq!(read(&digits), serde_json::json!(f64::MAX));
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(&deep(MAX_DEPTH)).is_array());
        assert_eq!(tidy(deep(MAX_DEPTH + 1).as_bytes(), ROOMY), Err(Unreadable::Deep));
        assert_eq!(tidy(b"\"\xff\"", ROOMY), Err(Unreadable::NotText));
    }

    #[test]
    fn a_small_text_that_becomes_a_large_tree_is_refused_and_a_long_string_is_not() {
        let objects = format!("[{}1]", r#"{"a":1},"#.repeat(10_000));
        assert_eq!(tidy(objects.as_bytes(), 4 << 20), Err(Unreadable::Heavy(4 << 20)));
        let text = format!("\"{}\"", "{[,".repeat(1 << 20));
        assert!(tidy(text.as_bytes(), 4 << 20).is_ok());
        assert!(weight(objects.as_bytes()).unwrap() > 4 << 20);
    }

    proptest! {
        #[test]
        fn what_a_strict_parser_reads_stays_as_it_is(text in "[\\[\\]{}:,\"0-9a-e.+\\\\-]{0,40}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(read(&text), value);
            }
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = tidy(&bytes, ROOMY);
        }
    }
}

//! JSON as clients' SDKs read it, which is more than the strict reader takes: deeper nesting, half surrogate pairs, numbers out of range.
//! Pure.
//!
//! Nearly all answers are read by the strict reader. Only what it refuses is looked at again, mended, and read a second time.

use serde_json::Value;

/// The deepest nesting that is read.
const DEEPEST: usize = 512;
/// How deep the strict reader is asked to go. What lies below becomes a string of its own text: nobody here looks into it, and as a string it is
/// compared all the same.
const KEPT: usize = 100;

/// Reads one JSON text. The error is the strict reader's.
pub fn read(data: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(data).or_else(|error| {
        let mended = mended(data, DEEPEST).and_then(|mended| serde_json::from_slice(&mended).ok());
        mended.ok_or(error)
    })
}

/// The text with halves of surrogate pairs replaced, numbers that no double holds brought to the greatest one, and what is nested deep turned into
/// strings; none when it is nested deeper than `levels`. It need not be JSON: the reader says so.
fn mended(data: &[u8], levels: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len());
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = data.get(at) {
        at += match byte {
            b'"' => string(&data[at..], &mut out),
            b'-' | b'0'..=b'9' => number(&data[at..], &mut out),
            b'{' | b'[' if depth == KEPT => {
                let inner = &data[at..at + nested(&data[at..])?];
                let text = mended(inner, levels.checked_sub(KEPT)?)?;
                // Below, too, it has to be JSON.
                let value: Value = serde_json::from_slice(&text).ok()?;
                out.extend_from_slice(Value::String(value.to_string()).to_string().as_bytes());
                inner.len()
            }
            other => {
                match other {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                out.push(other);
                1
            }
        };
        if depth > levels {
            return None;
        }
    }
    Some(out)
}

/// How long the object or the array is that begins here; none when it does not end.
fn nested(data: &[u8]) -> Option<usize> {
    let (mut at, mut depth, mut unread) = (0, 0_usize, Vec::new());
    while let Some(&byte) = data.get(at) {
        match byte {
            b'"' => {
                at += string(&data[at..], &mut unread);
                unread.clear();
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Copies a string with its quotes. How long it was.
fn string(data: &[u8], out: &mut Vec<u8>) -> usize {
    let mut at = 1;
    out.push(b'"');
    while let Some(&byte) = data.get(at) {
        match (byte, escaped(&data[at..])) {
            (b'"', _) => {
                out.push(byte);
                return at + 1;
            }
            (_, Some(0xd800..=0xdbff)) if matches!(escaped(&data[at + 6..]), Some(0xdc00..=0xdfff)) => {
                out.extend_from_slice(&data[at..at + 12]);
                at += 12;
            }
            (_, Some(0xd800..=0xdfff)) => {
                out.extend_from_slice(br"\ufffd");
                at += 6;
            }
            (b'\\', _) => {
                out.extend_from_slice(&data[at..data.len().min(at + 2)]);
                at += 2;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    at
}

/// The code unit of `\uXXXX` at the beginning.
fn escaped(data: &[u8]) -> Option<u16> {
    let digits = data.strip_prefix(br"\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Copies a number. How long it was.
fn number(data: &[u8], out: &mut Vec<u8>) -> usize {
    let length = data.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
    let text = &data[..length];
    match std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) {
        Some(number) if number.is_infinite() => {
            let greatest = if number > 0.0 { f64::MAX } else { f64::MIN };
            out.extend_from_slice(format!("{greatest:e}").as_bytes());
        }
        _ => out.extend_from_slice(text),
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn levels(count: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(count), "}".repeat(count))
    }

    #[test]
    fn nesting_is_read_down_to_512_levels() {
        for count in [100, 128, 129, 201, 512] {
            assert!(read(levels(count).as_bytes()).is_ok(), "{count}");
        }
        assert!(read(levels(513).as_bytes()).is_err());
        assert!(read(levels(300).replace('1', "x").as_bytes()).is_err(), "below, too, it has to be JSON");
        assert_ne!(read(levels(300).as_bytes()).expect("JSON"), read(levels(300).replace('1', "2").as_bytes()).expect("JSON"));
        assert!(read(format!(r#"["{}"]"#, "[".repeat(600)).as_bytes()).is_ok(), "brackets in a string are no levels");
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced_and_a_whole_one_is_not() {
        assert_eq!(
            read(br#"{"a":"cut \ud83d","b":"\ude00 \ud83d\ude00"}"#).expect("JSON"),
            json!({"a": "cut \u{fffd}", "b": "\u{fffd} 😀"})
        );
        assert_eq!(
            read(br#"["\\ud83d", "\ud83d\\", "\ud83d\ud83d\ude00"]"#).expect("JSON"),
            json!(["\\ud83d", "\u{fffd}\\", "\u{fffd}😀"])
        );
    }

    #[test]
    fn numbers_out_of_range_are_brought_to_the_greatest() {
        let long = "9".repeat(400);
        let read = read(format!(r#"[1e999, -1e999, {long}, 1.5, "1e999"]"#).as_bytes()).expect("JSON");
        assert_eq!(read, json!([f64::MAX, f64::MIN, f64::MAX, 1.5, "1e999"]));
    }

    #[test]
    fn what_is_no_json_is_none() {
        for bad in [&b"{"[..], b"", b"[1,]", b"1 2", b"\"\\ud8", b"[1e999", b"{\"a\":\"\\ud83d\"", b"-", b"\"\\"] {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}

//! Numbers that no machine number holds, such as 12345678901234567890123: they travel through our data as marked texts, and leave it as
//! they were written. Every border where JSON comes in guards it (`guard`), every border where it goes out releases it.

use std::{borrow::Cow, sync::LazyLock};

use serde_json::{Number, Value};

/// What a marked text begins with: a character that is none, by Unicode's word free for use inside of a program, and what nobody outside of
/// this process knows. By the character alone, anybody's text could be taken for a number.
static MARK: LazyLock<String> = LazyLock::new(|| format!("\u{FDD0}{:032x}:", rand::random::<u128>()));
/// Digits that every number of ours holds.
const SAFE: usize = 15;

/// The JSON with each number that would lose digits in the place of a marked text.
pub fn guard(json: &str) -> Cow<'_, str> {
    if !may_lose(json.as_bytes()) {
        return Cow::Borrowed(json);
    }
    let (bytes, mut out, mut copied, mut at) = (json.as_bytes(), String::new(), 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = bytes[at..].iter().position(|byte| !is_of_number(*byte)).map_or(bytes.len(), |length| at + length);
                let token = &json[at..end];
                if loses(token) {
                    out.push_str(&json[copied..at]);
                    out.extend(["\"", MARK.as_str(), token, "\""]);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The JSON with marked texts as the numbers that they were. A text that only looks marked stays one.
pub fn release(json: &str) -> Cow<'_, str> {
    if !are_marked(json.as_bytes()) {
        return Cow::Borrowed(json);
    }
    let opening = format!("\"{}", *MARK);
    let (mut out, mut rest) = (String::with_capacity(json.len()), json);
    while let Some((before, after)) = rest.split_once(&opening) {
        out.push_str(before);
        match after.split_once('"') {
            Some((token, behind)) if serde_json::from_str::<Number>(token).is_ok() => {
                out.push_str(token);
                rest = behind;
            }
            _ => {
                out.push_str(&opening);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The same, for what is written as bytes.
pub fn release_bytes(json: Vec<u8>) -> Vec<u8> {
    if !are_marked(&json) {
        return json;
    }
    match std::str::from_utf8(&json).map(release) {
        Ok(Cow::Owned(released)) => released.into_bytes(),
        _ => json,
    }
}

/// A value of ours as JSON, with the numbers as they were written.
pub fn written(value: &Value) -> String {
    let text = value.to_string();
    match release(&text) {
        Cow::Owned(released) => released,
        Cow::Borrowed(_) => text,
    }
}

/// Whether there is anything to be released.
pub fn are_marked(json: &[u8]) -> bool {
    memchr::memmem::find(json, MARK.as_bytes()).is_some()
}

/// Whether there are so many digits in a row that it is worth looking.
fn may_lose(bytes: &[u8]) -> bool {
    let mut row = 0;
    bytes.iter().any(|byte| {
        row = if byte.is_ascii_digit() || *byte == b'.' { row + 1 } else { 0 };
        row > SAFE
    })
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

fn loses(token: &str) -> bool {
    if !token.contains(['.', 'e', 'E']) {
        return token.parse::<i64>().is_err() && token.parse::<u64>().is_err();
    }
    let digits = |text: &str| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_start_matches('0').trim_end_matches('0').to_owned()
    };
    let written = digits(token);
    // Judged by who writes it: two shortest forms may be equally near to a number, and printers choose differently.
    written.len() > SAFE && serde_json::from_str::<Number>(token).is_ok_and(|number| digits(&number.to_string()) != written)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_leave_as_they_were_written() {
        for json in [
            r#"{"id":12345678901234567890123,"b":-12345678901234567890123}"#,
            r#"{"a":[1,2.5,0.1234567890123456789012345],"s":"12345678901234567890123 \" 1"}"#,
            r#"{"u":18446744073709551615,"i":-9223372036854775808,"f":0.1}"#,
        ] {
            let value: Value = serde_json::from_str(&guard(json)).expect("JSON");
            let written: Value = serde_json::from_str(&guard(&release(&value.to_string()))).expect("JSON");
            assert_eq!(written, value, "{json}");
            assert_eq!(release(&guard(json)), json);
        }
        assert!(matches!(guard(r#"{"u":18446744073709551615,"s":"12345678901234567890123"}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn a_fraction_that_a_machine_number_holds_is_no_text() {
        for number in ["1921609540214688.2", "1921609540214688.3", "1.7976931348623157e308", "5e-324", "1.5e300", "0.1", "-0.0"] {
            let value: Value = serde_json::from_str(&guard(number)).expect("JSON");
            let written = release(&value.to_string()).into_owned();
            assert_eq!(written.parse::<f64>(), number.parse::<f64>(), "{number} became {written}");
        }
        assert!(matches!(guard("1921609540214688.2"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_only_looks_marked_stays_a_text() {
        let own = |text: &str| format!("\"{}{text}\"", *MARK);
        for text in ["\"\u{FDD0}1\"", "\"\u{FDD0}1,\\\"x\"", "\"a\u{FDD0}12\"", &own("abc"), &own(""), &own("1,\\\"x")] {
            assert_eq!(release(text), text);
            assert_eq!(release(&guard(text)), text);
        }
        assert_eq!(release(&own("12")), "12");
    }

    proptest! {
        #[test]
        fn what_is_guarded_is_the_same_json(text in "\\PC{0,40}", number in any::<i128>(), fraction in any::<f64>()) {
            let plain = serde_json::json!({"t": text, "f": fraction}).to_string();
            let json = format!("{{\"a\":{plain},\"n\":{number}}}");
            let guarded = guard(&json);
            let value: Value = serde_json::from_str(&guarded).expect("JSON");
            prop_assert_eq!(value["a"]["t"].as_str(), Some(text.as_str()));
            prop_assert_eq!(value["a"]["f"].as_f64(), Some(fraction).filter(|fraction| fraction.is_finite()));
            prop_assert_eq!(release(&guarded).into_owned(), json.clone());
        }
    }
}

//! `X REGEXP Y`: SQLite has the operator and leaves the function to the program. The crate regex takes time linear in the value, whatever
//! the pattern; patterns that become too large are refused.

use std::cell::RefCell;

use regex::bytes::{Regex, RegexBuilder};
use rusqlite::Error;

/// Bytes of a compiled pattern. The time for one byte of a value grows with it.
const MAX_COMPILED_BYTES: usize = 256 << 10;

thread_local! {
    /// The pattern that was used last: SQLite keeps nothing from one row to the next where the pattern is no constant.
    static LAST: RefCell<Option<(Vec<u8>, Regex)>> = const { RefCell::new(None) };
}

/// Whether the pattern is found anywhere in the value.
pub fn is_found(pattern: &[u8], value: &[u8]) -> rusqlite::Result<bool> {
    LAST.with_borrow_mut(|last| match last {
        Some((compiled, regex)) if *compiled == *pattern => Ok(regex.is_match(value)),
        _ => {
            let (_, regex) = last.insert((pattern.to_vec(), compile(pattern)?));
            Ok(regex.is_match(value))
        }
    })
}

fn compile(pattern: &[u8]) -> rusqlite::Result<Regex> {
    let fail = |why: String| Error::UserFunctionError(format!("the pattern of REGEXP cannot be used: {why}").into());
    let pattern = std::str::from_utf8(pattern).map_err(|_| fail("it is not UTF-8".into()))?;
    let built = RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).build();
    built.map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use rusqlite::Connection;

    use super::super::functions;

    fn ask(expression: &str) -> rusqlite::Result<Option<bool>> {
        let conn = Connection::open_in_memory().unwrap();
        functions::register(&conn, Arc::new(AtomicUsize::new(1 << 20))).unwrap();
        conn.query_row(&format!("SELECT {expression}"), [], |row| row.get(0))
    }

    #[test]
    fn a_pattern_is_found_anywhere_in_the_value() {
        for (expression, expected) in [
            ("'abc' REGEXP 'b'", Some(true)),
            ("'abc' REGEXP '^b'", Some(false)),
            ("'ABC' REGEXP '(?i)^a.c$'", Some(true)),
            ("'größe' REGEXP '^gr.{2}e$'", Some(true)),
            ("2024 REGEXP '^20[0-9]{2}$'", Some(true)),
            ("'abc' NOT REGEXP 'x'", Some(true)),
            ("NULL REGEXP 'x'", None),
            ("'x' REGEXP NULL", None),
            ("CAST(x'e961' AS TEXT) REGEXP 'a$'", Some(true)),
            ("regexp('^a', 'abc')", Some(true)),
            // Backtracking would take for ever.
            ("printf('%.*c', 50000, 'a') REGEXP '^(a+)+$'", Some(true)),
            ("printf('%.*c', 50000, 'a') || 'b' REGEXP '^(a|a|aa)*$'", Some(false)),
        ] {
            assert_eq!(ask(expression).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_said() {
        for pattern in ["(", r"(a)\1", "(((a{100}){100}){100})"] {
            let error = ask(&format!("'a' REGEXP '{pattern}'")).unwrap_err().to_string();
            assert!(error.contains("the pattern of REGEXP cannot be used"), "{error}");
        }
    }
}

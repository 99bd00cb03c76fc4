//! The audit log: which statement was run through which tool, how it ended and what it cost. Values never get into it: parameters are
//! left out, and so are the literals and comments in the SQL.

use std::time::Duration;

/// One line of the audit log.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The tool.
    pub tool: &'a str,
    /// The statement as it was sent.
    pub sql: &'a str,
    /// `ok`, or the kind of failure.
    pub outcome: &'a str,
    /// Time, waiting included.
    pub took: Duration,
    /// Rows handed out.
    pub rows: usize,
    /// The request that it belongs to.
    pub request: &'a str,
    /// The caller's trace, if it sent one.
    pub trace: &'a str,
}

impl Entry<'_> {
    /// Writes the line.
    pub fn write(&self) {
        let Self { tool, sql, outcome, took, rows, request, trace } = self;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(target: "audit", tool, outcome, micros, rows, request_id = request, trace_id = trace, sql = without_values(sql), "statement");
    }
}

/// The statement with `?` for every literal, without comments, and with single spaces. Quoted names stay, they are no values.
pub fn without_values(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (length, shown): (usize, Option<&str>) = match first {
            '\'' => (quoted(rest, '\''), Some("?")),
            'x' | 'X' if rest[1..].starts_with('\'') => (1 + quoted(&rest[1..], '\''), Some("?")),
            '"' => (quoted(rest, '"'), None),
            '`' => (quoted(rest, '`'), None),
            '[' => (rest.find(']').map_or(rest.len(), |end| end + 1), None),
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), Some("")),
            '/' if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |end| end + 2), Some(" ")),
            '0'..='9' => (word(rest), Some("?")),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (1 + word(&rest[1..]), Some("?")),
            c if c.is_alphanumeric() || c == '_' => (word(rest), None),
            c if c.is_whitespace() => (c.len_utf8(), Some(" ")),
            c => (c.len_utf8(), None),
        };
        let shown = shown.unwrap_or(&rest[..length]);
        if shown != " " || !text.ends_with(' ') {
            text.push_str(shown);
        }
        rest = &rest[length..];
    }
    text.trim().to_owned()
}

/// The length of a quoted piece, its doubled quotes included; to the end when it is open.
fn quoted(text: &str, quote: char) -> usize {
    let mut from = 1;
    while let Some(end) = text[from..].find(quote) {
        from += end + 1;
        if !text[from..].starts_with(quote) {
            return from;
        }
        from += 1;
    }
    text.len()
}

/// The length of a name or number; a point belongs to a number only.
fn word(text: &str) -> usize {
    let number = text.starts_with(|c: char| c.is_ascii_digit());
    text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$' || (number && c == '.'))).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_and_comments_are_left_out_and_names_are_not() {
        for (sql, expected) in [
            ("SELECT * FROM t WHERE name = 'O''Brien' AND age > 42", "SELECT * FROM t WHERE name = ? AND age > ?"),
            (
                "INSERT INTO t1 (\"a 1\", [b 2], `c 3`) VALUES (x'00ff', -1.5e3, .5, 0x1F, NULL)",
                "INSERT INTO t1 (\"a 1\", [b 2], `c 3`) VALUES (?, -?, ?, ?, NULL)",
            ),
            ("SELECT 1 -- secret\n, /* secret */ 2", "SELECT ? , ?"),
            ("SELECT 'open secret", "SELECT ?"),
            ("SELECT ?1, :name, @x, $y", "SELECT ??, :name, @x, $y"),
            ("SELECT col2 FROM ä WHERE ö='ü'", "SELECT col2 FROM ä WHERE ö=?"),
        ] {
            assert_eq!(without_values(sql), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_no_string_literal_survives(before in "[a-z0-9 =,()]{0,20}", secret in "[A-Z]{12}", after in "\\PC{0,20}") {
            let shown = without_values(&format!("{before}'{secret}'{after}"));
            prop_assert!(!shown.contains(&secret) || after.contains(&secret));
        }

        #[test]
        fn anything_at_all_is_taken(sql in "\\PC*") {
            without_values(&sql);
        }
    }
}

//! Replacements for the built-in text functions whose time grows with the product of two arguments. SQLite cannot interrupt inside a
//! function, so `trim(x, y)` on two long strings would hold a thread for minutes; these give the same answers in linear time.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use memchr::memmem;
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};

/// Registers the replacements on a connection.
pub fn register(conn: &Connection, max_value_bytes: usize) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("trim", 2, flags, |ctx| Ok(trim(ctx, true, true)))?;
    conn.create_scalar_function("ltrim", 2, flags, |ctx| Ok(trim(ctx, true, false)))?;
    conn.create_scalar_function("rtrim", 2, flags, |ctx| Ok(trim(ctx, false, true)))?;
    conn.create_scalar_function("instr", 2, flags, |ctx| Ok(instr(ctx)))?;
    conn.create_scalar_function("unhex", 2, flags, |ctx| Ok(unhex(ctx)))?;
    conn.create_scalar_function("replace", 3, flags, move |ctx| replace(ctx, max_value_bytes))
}

/// The value as SQLite would cast it to text; None for NULL.
fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(real_as_text(number)),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// How SQLite writes a real is SQLite's own affair, and changes between versions: it is asked, through a connection apart.
fn real_as_text(number: f64) -> String {
    static SCRATCH: OnceLock<Option<Mutex<Connection>>> = OnceLock::new();
    let scratch = SCRATCH.get_or_init(|| Connection::open_in_memory().ok().map(Mutex::new));
    let asked = scratch.as_ref().and_then(|conn| {
        let conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
        conn.query_row("SELECT CAST(?1 AS TEXT)", [number], |row| row.get(0)).ok()
    });
    asked.unwrap_or_else(|| number.to_string())
}

fn trim(ctx: &Context<'_>, left: bool, right: bool) -> Option<String> {
    let input = text(ctx.get_raw(0))?;
    let set: HashSet<char> = text(ctx.get_raw(1))?.chars().collect();
    let mut trimmed = input.as_str();
    if left {
        trimmed = trimmed.trim_start_matches(|c| set.contains(&c));
    }
    if right {
        trimmed = trimmed.trim_end_matches(|c| set.contains(&c));
    }
    Some(trimmed.to_owned())
}

/// One-based position in characters, or in bytes when both are blobs; 0 when absent.
fn instr(ctx: &Context<'_>) -> Option<i64> {
    let (haystack, needle) = (ctx.get_raw(0), ctx.get_raw(1));
    if let (ValueRef::Blob(haystack), ValueRef::Blob(needle)) = (haystack, needle) {
        return Some(memmem::find(haystack, needle).map_or(0, one_based));
    }
    let (haystack, needle) = (text(haystack)?, text(needle)?);
    Some(memmem::find(haystack.as_bytes(), needle.as_bytes()).map_or(0, |at| one_based(haystack[..at].chars().count())))
}

fn one_based(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX - 1) + 1
}

/// Bytes of the hexadecimal digits; the characters of the second argument may stand between the bytes. NULL for anything else.
fn unhex(ctx: &Context<'_>) -> Option<Vec<u8>> {
    let input = text(ctx.get_raw(0))?;
    let ignored: HashSet<char> = text(ctx.get_raw(1))?.chars().collect();
    let mut bytes = Vec::with_capacity(input.len() / 2);
    let mut rest = input.chars();
    while let Some(first) = rest.next() {
        match first.to_digit(16) {
            Some(high) => bytes.push(u8::try_from(high << 4 | rest.next()?.to_digit(16)?).ok()?),
            None if ignored.contains(&first) => {}
            None => return None,
        }
    }
    Some(bytes)
}

fn replace(ctx: &Context<'_>, max_bytes: usize) -> rusqlite::Result<Value> {
    let (Some(input), Some(pattern)) = (text(ctx.get_raw(0)), text(ctx.get_raw(1))) else { return Ok(Value::Null) };
    if pattern.is_empty() {
        return Ok(Value::Text(input));
    }
    let Some(with) = text(ctx.get_raw(2)) else { return Ok(Value::Null) };
    let mut output = String::with_capacity(input.len());
    let mut rest = 0;
    for at in memmem::find_iter(input.as_bytes(), pattern.as_bytes()) {
        output.push_str(&input[rest..at]);
        output.push_str(&with);
        rest = at + pattern.len();
        if output.len() > max_bytes {
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG), None));
        }
    }
    output.push_str(&input[rest..]);
    Ok(Value::Text(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both connections get the same SQL; ours must answer as SQLite's own functions do.
    #[test]
    fn the_replacements_answer_as_the_originals() {
        let original = Connection::open_in_memory().unwrap();
        let ours = Connection::open_in_memory().unwrap();
        register(&ours, 1 << 20).unwrap();
        for expression in [
            "trim('xxabcxx','x')",
            "ltrim('xyabcyx','xy')",
            "rtrim('abc  ',' ')",
            "trim('äöäb','ä')",
            "trim(NULL,'x')",
            "trim('x',NULL)",
            "trim('abc','')",
            "trim(1221,'1')",
            "trim(1.5,'5')",
            "trim(1e300,'0')",
            "instr('abcabc','ca')",
            "instr('äöü','ü')",
            "instr('a','')",
            "instr(NULL,'a')",
            "instr('a',NULL)",
            "instr(x'00ff01',x'01')",
            "instr(x'616263','b')",
            "instr(12345,34)",
            "unhex('41-42 43','- ')",
            "unhex('414','')",
            "unhex('4-1','-')",
            "unhex('','')",
            "unhex('äaäfä','ä')",
            "unhex('4142','1')",
            "unhex('zz','y')",
            "unhex(NULL,'x')",
            "unhex('41',NULL)",
            "unhex(4142,' ')",
            "unhex(x'3431','')",
            "replace('aXbXc','X','--')",
            "replace('abc','','x')",
            "replace('abc','b',NULL)",
            "replace(NULL,'a','b')",
            "replace('aaa','aa','b')",
            "replace('äöä','ä','')",
            "replace(12.5,'.',',')",
            "typeof(replace('a','b','c'))",
            "typeof(replace(1,'b','c'))",
            "typeof(replace(1,'','c'))",
            "replace('abc', '', NULL)",
            "trim(1e15,'x')",
            "trim(1e16,'x')",
            "trim(1e17,'x')",
            "trim(1e18,'x')",
            "trim(0.0001,'x')",
            "trim(0.00001,'x')",
            "trim(1.0/3,'x')",
            "trim(-1e-300/7,'x')",
            "trim(9007199254740993.0,'x')",
            "trim(5e-324,'x')",
            "trim(123456789012345678.0,'x')",
            "trim(0.1,'x')",
            "trim(-1e-7,'x')",
            "trim(9e999,'x')",
        ] {
            let ask =
                |conn: &Connection| conn.query_row(&format!("SELECT {expression}"), [], |row| row.get::<_, Value>(0)).unwrap();
            assert_eq!(ask(&ours), ask(&original), "{expression}");
        }
    }
}

//! Replacements for the built-in text functions whose time grows with the product of two arguments. SQLite cannot interrupt inside a
//! function, so `trim(x, y)` on two long strings would hold a thread for minutes; these give the same answers in linear time, byte for byte:
//! the indexes of other programs were made with the originals, and text need not be UTF-8.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use memchr::memmem;
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::regexp;

/// Characters of a set for trim() are at most so many bytes, also where they are not UTF-8: longer ones would not be compared in linear time.
const MAX_CHARACTER_BYTES: usize = 16;

/// Registers the replacements, and `regexp`, on a connection. No result is larger than `max_value_bytes` says at the time.
pub fn register(conn: &Connection, max_value_bytes: Arc<AtomicUsize>) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("trim", 2, flags, |ctx| trim(ctx, true, true))?;
    conn.create_scalar_function("ltrim", 2, flags, |ctx| trim(ctx, true, false))?;
    conn.create_scalar_function("rtrim", 2, flags, |ctx| trim(ctx, false, true))?;
    conn.create_scalar_function("instr", 2, flags, |ctx| Ok(instr(ctx)))?;
    conn.create_scalar_function("unhex", 2, flags, |ctx| Ok(unhex(ctx)))?;
    conn.create_scalar_function("regexp", 2, flags, |ctx| regexp(ctx))?;
    conn.create_scalar_function("replace", 3, flags, move |ctx| replace(ctx, max_value_bytes.load(Ordering::Relaxed)))
}

/// Text that need not be UTF-8.
struct Text(Vec<u8>);

impl ToSql for Text {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// The value as SQLite would cast it to text; None for NULL.
fn text(value: ValueRef<'_>) -> Option<std::borrow::Cow<'_, [u8]>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
        ValueRef::Real(number) => Some(real_as_text(number).into_bytes().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.into()),
    }
}

/// How SQLite writes a real is SQLite's own affair, and changes between versions: it is asked, through a connection apart.
fn real_as_text(number: f64) -> String {
    static SCRATCH: OnceLock<Option<Mutex<Connection>>> = OnceLock::new();
    let scratch = SCRATCH.get_or_init(|| Connection::open_in_memory().ok().map(Mutex::new));
    let asked = scratch.as_ref().and_then(|conn| {
        let conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
        conn.prepare_cached("SELECT CAST(?1 AS TEXT)").and_then(|mut ask| ask.query_row([number], |row| row.get(0))).ok()
    });
    asked.unwrap_or_else(|| number.to_string())
}

fn too_big() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG), None)
}

/// The bytes up to the first NUL: where SQLite's loops over a second argument end.
fn up_to_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// SQLite's idea of the characters of a text: a byte from 0xC0 on takes all continuation bytes after it, any other stands alone.
fn characters(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let more = if first >= 0xc0 { rest[1..].iter().take_while(|byte| is_continuation(**byte)).count() } else { 0 };
        let (character, after) = rest.split_at(1 + more);
        rest = after;
        Some(character)
    })
}

/// Characters to trim, each with its place in the set: of two that fit, SQLite takes the first.
struct TrimSet<'a> {
    places: HashMap<&'a [u8], usize>,
    lengths: Vec<usize>,
}

impl<'a> TrimSet<'a> {
    fn new(set: &'a [u8]) -> rusqlite::Result<Self> {
        let mut places = HashMap::new();
        let mut lengths = Vec::new();
        for (place, character) in characters(up_to_nul(set)).enumerate() {
            if character.len() > MAX_CHARACTER_BYTES {
                return Err(too_big());
            }
            places.entry(character).or_insert(place);
            if !lengths.contains(&character.len()) {
                lengths.push(character.len());
            }
        }
        Ok(Self { places, lengths })
    }

    /// How many bytes the character takes that is cut off, if there is one.
    fn fits<'b>(&self, part: impl Fn(usize) -> Option<&'b [u8]>) -> Option<usize> {
        let found = self.lengths.iter().filter_map(|length| Some((*self.places.get(part(*length)?)?, *length)));
        found.min().map(|(_, length)| length)
    }
}

fn trim(ctx: &Context<'_>, left: bool, right: bool) -> rusqlite::Result<Option<Text>> {
    let (Some(input), Some(set)) = (text(ctx.get_raw(0)), text(ctx.get_raw(1))) else { return Ok(None) };
    let set = TrimSet::new(&set)?;
    let mut rest: &[u8] = &input;
    if left {
        while let Some(length) = set.fits(|length| rest.get(..length)) {
            rest = &rest[length..];
        }
    }
    if right {
        while let Some(length) = set.fits(|length| rest.get(rest.len().checked_sub(length)?..)) {
            rest = &rest[..rest.len() - length];
        }
    }
    Ok(Some(Text(rest.to_owned())))
}

/// One-based position in characters, or in bytes when both are blobs; 0 when absent.
fn instr(ctx: &Context<'_>) -> Option<i64> {
    let (haystack, needle) = (ctx.get_raw(0), ctx.get_raw(1));
    if let (ValueRef::Blob(haystack), ValueRef::Blob(needle)) = (haystack, needle) {
        return Some(memmem::find(haystack, needle).map_or(0, one_based));
    }
    let (haystack, needle) = (text(haystack)?, text(needle)?);
    if needle.is_empty() {
        return Some(1);
    }
    // SQLite looks only where a character begins, and at the very first byte.
    let begins = |at: &usize| *at == 0 || !is_continuation(haystack[*at]);
    let found = if is_continuation(needle[0]) {
        haystack.starts_with(&needle).then_some(0)
    } else {
        memmem::find_iter(&haystack, &needle).find(begins)
    };
    Some(found.map_or(0, |at| one_based((1..=at).filter(begins).count())))
}

fn one_based(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX - 1) + 1
}

/// One character as a number, read as SQLite reads it: what is no UTF-8 has a number, too.
fn number_of(character: &[u8]) -> u32 {
    let first = u32::from(character[0]);
    if first < 0xc0 {
        return first;
    }
    let bits = match first {
        0xc0..=0xdf => first & 0x1f,
        0xe0..=0xef => first & 0x0f,
        0xf0..=0xf7 => first & 0x07,
        0xf8..=0xfb => first & 0x03,
        0xfc..=0xfd => first & 0x01,
        _ => 0,
    };
    let number = character[1..].iter().fold(bits, |number, byte| (number << 6).wrapping_add(u32::from(byte & 0x3f)));
    let unusable = number < 0x80 || number & 0xffff_f800 == 0xd800 || number & 0xffff_fffe == 0xfffe;
    if unusable { 0xfffd } else { number }
}

/// Bytes of the hexadecimal digits; the characters of the second argument may stand between the bytes. NULL for anything else.
fn unhex(ctx: &Context<'_>) -> Option<Vec<u8>> {
    let (input, ignored) = (text(ctx.get_raw(0))?, text(ctx.get_raw(1))?);
    let ignored: HashSet<u32> = characters(&ignored).map(number_of).collect();
    let digit = |character: &[u8]| char::from(character[0]).to_digit(16).filter(|_| character.len() == 1);
    let mut bytes = Vec::with_capacity(input.len() / 2);
    let mut rest = characters(up_to_nul(&input));
    while let Some(first) = rest.next() {
        match digit(first) {
            Some(high) => bytes.push(u8::try_from(high << 4 | digit(rest.next()?)?).ok()?),
            None if ignored.contains(&number_of(first)) => {}
            None => return None,
        }
    }
    Some(bytes)
}

/// `regexp(pattern, value)`. NULL where one of them is.
fn regexp(ctx: &Context<'_>) -> rusqlite::Result<Option<bool>> {
    let (Some(pattern), Some(value)) = (text(ctx.get_raw(0)), text(ctx.get_raw(1))) else { return Ok(None) };
    regexp::is_found(&pattern, &value).map(Some)
}

fn replace(ctx: &Context<'_>, max_bytes: usize) -> rusqlite::Result<Option<Text>> {
    let (Some(input), Some(pattern)) = (text(ctx.get_raw(0)), text(ctx.get_raw(1))) else { return Ok(None) };
    if up_to_nul(&pattern).is_empty() {
        return Ok(Some(Text(input.into_owned())));
    }
    let Some(with) = text(ctx.get_raw(2)) else { return Ok(None) };
    let mut output = Vec::with_capacity(input.len());
    let mut rest = 0;
    for at in memmem::find_iter(&input, &*pattern) {
        output.extend_from_slice(&input[rest..at]);
        output.extend_from_slice(&with);
        rest = at + pattern.len();
        if output.len() > max_bytes {
            return Err(too_big());
        }
    }
    output.extend_from_slice(&input[rest..]);
    Ok(Some(Text(output)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both connections get the same SQL; ours must answer as SQLite's own functions do.
    #[test]
    fn the_replacements_answer_as_the_originals() {
        let original = Connection::open_in_memory().unwrap();
        let ours = Connection::open_in_memory().unwrap();
        register(&ours, Arc::new(AtomicUsize::new(1 << 20))).unwrap();
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
            same(&ours, &original, expression);
        }
    }

    /// Bytes that are no UTF-8, halves of characters, NULs: in every place of every function.
    #[test]
    fn bytes_that_are_not_utf_8_are_left_alone_as_the_originals_do() {
        let original = Connection::open_in_memory().unwrap();
        let ours = Connection::open_in_memory().unwrap();
        register(&ours, Arc::new(AtomicUsize::new(1 << 20))).unwrap();
        let values = [
            "x'e961'",
            "x'61e9'",
            "x'e9'",
            "x'c3a4'",
            "x'a4'",
            "x'c3'",
            "x'a4c3a461'",
            "x'61c3a4a4'",
            "x'610061'",
            "x'00'",
            "x''",
            "x'6162c3c3a4'",
            "x'fffe41'",
            "x'f0808080'",
            "x'eda080'",
            "x'3431a4'",
            "x'4100'",
            "x'c3a4343161'",
        ];
        for one in values {
            for two in values {
                let (one, two) = (format!("CAST({one} AS TEXT)"), format!("CAST({two} AS TEXT)"));
                for call in ["trim", "ltrim", "rtrim", "instr", "unhex"] {
                    same(&ours, &original, &format!("{call}({one}, {two})"));
                }
                same(&ours, &original, &format!("replace({one}, {two}, CAST(x'e962' AS TEXT))"));
                same(&ours, &original, &format!("replace({one}, 'a', {two})"));
            }
        }
    }

    fn same(ours: &Connection, original: &Connection, expression: &str) {
        let ask = |conn: &Connection| {
            let sql = format!("SELECT typeof(x), hex(x) FROM (SELECT {expression} AS x)");
            conn.query_row(&sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap()
        };
        assert_eq!(ask(ours), ask(original), "{expression}");
    }
}

//! The built-in functions that take long inside one call, where SQLite cannot be interrupted: how large a value may be in a statement
//! that calls one. Indexes depend on LIKE and GLOB, and FTS5 on its own functions, so they cannot be replaced as those in
//! db/functions.rs are.

use rusqlite::Connection;
use rusqlite::limits::Limit;

/// A function and its cap.
#[derive(Debug, PartialEq, Eq)]
pub struct Costly {
    /// The name.
    pub name: &'static str,
    /// Bytes of the largest value that a statement may touch which calls it.
    pub max_value_bytes: usize,
    /// Its time grows with the square of the value, not just with the product of value and pattern.
    pub quadratic: bool,
}

/// Each keeps one call at a second or two at most, and most of them far below. LIKE and GLOB compare up to 128 bytes of pattern at each byte of the value.
const COSTLY: &[Costly] = &[
    Costly { name: "like", max_value_bytes: 1 << 20, quadratic: false },
    Costly { name: "glob", max_value_bytes: 1 << 20, quadratic: false },
    Costly { name: "json_patch", max_value_bytes: 64 << 10, quadratic: true },
    Costly { name: "jsonb_patch", max_value_bytes: 64 << 10, quadratic: true },
    Costly { name: "highlight", max_value_bytes: 64 << 10, quadratic: true },
    Costly { name: "snippet", max_value_bytes: 64 << 10, quadratic: true },
];

/// The function of that name, if it is one of them.
pub fn find(name: &str) -> Option<&'static Costly> {
    COSTLY.iter().find(|costly| costly.name.eq_ignore_ascii_case(name))
}

impl Costly {
    /// The one with the smaller cap.
    pub fn stricter(&'static self, other: &'static Self) -> &'static Self {
        if other.max_value_bytes < self.max_value_bytes { other } else { self }
    }

    /// Runs `work` while the connection takes no larger value than this function may be given.
    pub fn capped<T>(&self, conn: &Connection, work: impl FnOnce() -> T) -> rusqlite::Result<T> {
        let before = conn.limit(Limit::SQLITE_LIMIT_LENGTH)?;
        let cap = i32::try_from(self.max_value_bytes).unwrap_or(i32::MAX).min(before);
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, cap)?;
        let result = work();
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, before)?;
        Ok(result)
    }
}

//! The built-in functions that take long inside one call, where SQLite cannot be interrupted: how large a value may be in a statement
//! that calls one. Indexes depend on LIKE and GLOB, and FTS5 on its own functions, so they cannot be replaced as those in
//! db/functions.rs are. Holding a statement to it is db/terms.rs.

/// A function and its cap.
#[derive(Debug, PartialEq, Eq)]
pub struct Costly {
    /// The name.
    pub name: &'static str,
    /// What its time depends on.
    cost: Cost,
}

#[derive(Debug, PartialEq, Eq)]
enum Cost {
    /// The product of the value's bytes and the pattern's.
    Pattern,
    /// The value's bytes, at a price for each: so many are the most.
    Value(usize),
    /// The square of the value's bytes.
    Square(usize),
}

/// A value of 1 MiB and a pattern of 256 bytes: a second or two.
const VALUE_TIMES_PATTERN: usize = 256 << 20;

/// Each keeps one call at a second or two at most, and most of them far below.
const COSTLY: &[Costly] = &[
    Costly { name: "like", cost: Cost::Pattern },
    Costly { name: "glob", cost: Cost::Pattern },
    Costly { name: "regexp", cost: Cost::Value(1 << 20) },
    Costly { name: "json_patch", cost: Cost::Square(64 << 10) },
    Costly { name: "jsonb_patch", cost: Cost::Square(64 << 10) },
    Costly { name: "highlight", cost: Cost::Square(64 << 10) },
    Costly { name: "snippet", cost: Cost::Square(64 << 10) },
];

/// The function of that name, if it is one of them.
pub fn find(name: &str) -> Option<&'static Costly> {
    COSTLY.iter().find(|costly| costly.name.eq_ignore_ascii_case(name))
}

impl Costly {
    /// Bytes of the largest value that a statement may touch which calls it, with patterns of so many bytes.
    pub fn max_value_bytes(&self, pattern_bytes: usize) -> usize {
        match self.cost {
            Cost::Pattern => VALUE_TIMES_PATTERN / pattern_bytes,
            Cost::Value(bytes) | Cost::Square(bytes) => bytes,
        }
    }

    /// Its time grows with the square of the value.
    pub fn quadratic(&self) -> bool {
        matches!(self.cost, Cost::Square(_))
    }
}

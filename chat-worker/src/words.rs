//! How a sentence counts. Pure.

/// So many of a thing, such as `1 server` and `2 servers`.
pub fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The word that goes with so many.
pub fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

//! The names of servers, as those of people become those of the cluster. Pure.

use std::collections::BTreeSet;

/// A name that a Service may have, with its suffix: at most 59 of a-z, 0-9 and '-', with a letter first.
pub fn dns_label(name: &str) -> String {
    let lower = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect::<String>();
    let words = lower.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let words = if words.starts_with(|c: char| c.is_ascii_alphabetic()) { words } else { format!("mcp-{words}") };
    let cut: String = words.chars().take(59).collect();
    cut.trim_end_matches('-').to_owned()
}

/// The name, or another where it is taken.
pub fn unique(name: &str, taken: &BTreeSet<String>) -> String {
    let other = |number: usize| if number == 1 { name.to_owned() } else { format!("{}-{number}", &name[..name.len().min(55)]) };
    // One of so many is free.
    (1..=taken.len() + 1).map(other).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names_of_services() {
        for (name, label) in [
            ("memory", "memory"),
            ("GitHub MCP (work)", "github-mcp-work"),
            ("@modelcontextprotocol/server-x", "modelcontextprotocol-server-x"),
            ("3d", "mcp-3d"),
            ("日本", "mcp"),
        ] {
            assert_eq!(dns_label(name).trim_end_matches('-'), label);
        }
        assert_eq!(dns_label(&"a".repeat(80)).len(), 59);
        let taken = BTreeSet::from(["a".to_owned(), "a-2".to_owned()]);
        assert_eq!(unique("a", &taken), "a-3");
    }
}

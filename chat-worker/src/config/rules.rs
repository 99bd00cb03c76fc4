//! What an entry of mcp.json says about the tools of its server: whether their hints are believed, which of them are offered, and what
//! their calls need. Plain data; who may call what is decided elsewhere.

use clap::ValueEnum;

/// What happens to a call of a tool that may destroy, or that says nothing of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Approvals {
    /// A person is asked.
    Ask,
    /// It is made.
    Always,
    /// It is refused.
    Never,
}

/// Whether what a server says of its own tools (`readOnlyHint` and its like) is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// It is: a tool that says that it only reads is called unasked, again after a fault, and once for all who ask the same.
    #[default]
    Hints,
    /// It is not: every tool counts as one that may destroy.
    None,
}

/// Which tools of a server are offered, by their names on that server. `deny` wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolRules {
    /// Empty: all.
    pub allow: Vec<Glob>,
    pub deny: Vec<Glob>,
    /// Instead of the program's own setting.
    pub approvals: Option<Approvals>,
}

impl ToolRules {
    /// Whether a tool is offered and may be called at all.
    pub fn permits(&self, tool: &str) -> bool {
        (self.allow.is_empty() || self.allow.iter().any(|glob| glob.matches(tool))) && !self.denies(tool)
    }

    /// Whether a name is one of those that are not offered.
    pub fn denies(&self, name: &str) -> bool {
        self.deny.iter().any(|glob| glob.matches(name))
    }
}

/// A name in which `*` stands for any number of letters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
        let Some(end) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The leftmost place leaves most to what follows.
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_number_of_letters() {
        for (pattern, name, matches) in [
            ("*", "", true),
            ("*", "read", true),
            ("read", "read", true),
            ("read", "reader", false),
            ("read_*", "read_query", true),
            ("read_*", "read", false),
            ("*_query", "read_query", true),
            ("*_query", "query", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
            ("", "x", false),
            ("gr*ße", "große", true),
            ("r?ad", "read", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn deny_wins_and_without_rules_everything_is_permitted() {
        let globs = |names: &[&str]| names.iter().map(|name| Glob::new(*name)).collect();
        let rules = ToolRules { allow: globs(&["read_*", "list"]), deny: globs(&["read_secret"]), approvals: None };
        assert!(rules.permits("read_query") && rules.permits("list"));
        assert!(!rules.permits("read_secret") && !rules.permits("write"));
        assert!(ToolRules::default().permits("anything"));
    }
}

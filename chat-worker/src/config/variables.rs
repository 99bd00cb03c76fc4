//! `${NAME}`, `${NAME:-default}` and `{env:NAME}` in the values of mcp.json. Pure: who knows the variables is passed in.

/// What a variable is; none when it is not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Puts the values of variables into a text. A default counts where the variable is not set, or empty. `${env:NAME}` is `${NAME}`, as
/// editors write it; anything else in `${…}` is an error, because it would run something else than was meant. The error holds no value.
pub fn expand(text: &str, variables: Variables) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, inside, after)) = next(rest) {
        expanded += before;
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        let name = name.strip_prefix("env:").unwrap_or(name);
        if !is_name(name) || default.is_some_and(|default| default.contains("${")) {
            return Err(format!("${{{inside}}} is not understood: only ${{NAME}} and ${{NAME:-default}} are"));
        }
        match (variables(name), default) {
            (Some(value), _) if !value.is_empty() => expanded += &value,
            (_, Some(default)) => expanded += default,
            (Some(_), None) => {}
            (None, None) => return Err(format!("the environment variable {name} is not set")),
        }
        rest = after;
    }
    Ok(expanded + rest)
}

/// What is before the next `${…}` or `{env:…}`, inside it, and after it. Braces are common: what is no name in them is no variable.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let is_variable = |at: &usize| text[at + BARE.len()..].split_once('}').is_some_and(|(name, _)| is_name(name));
    let bare = text.match_indices(BARE).map(|(at, _)| at).find(is_variable);
    let (begin, from) = match (text.find("${"), bare) {
        (Some(begin), bare) if bare.is_none_or(|bare| begin < bare) => (begin, begin + 2),
        (_, Some(bare)) => (bare, bare + 1),
        (_, None) => return None,
    };
    let (inside, after) = text[from..].split_once('}')?;
    Some((&text[..begin], inside, after))
}

/// As some programs write it.
const BARE: &str = "{env:";

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_defaults_are_put_in_and_nothing_else_is_touched() {
        let variables = |name: &str| match name {
            "TOKEN" => Some("t0p".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expanded) in [
            ("plain $TOKEN {x}", "plain $TOKEN {x}"),
            ("Bearer ${TOKEN}", "Bearer t0p"),
            ("${env:TOKEN}${TOKEN}", "t0pt0p"),
            ("${NONE:-a:-b}", "a:-b"),
            ("${EMPTY:-x}", "x"),
            ("[${EMPTY}]", "[]"),
            ("${NONE:-}", ""),
            ("no end ${TOKEN", "no end ${TOKEN"),
            ("Bearer {env:TOKEN}, {env:EMPTY}${TOKEN}", "Bearer t0p, t0p"),
            (r#"{"env": {env: 1}, {env:}, {env:a b}"#, r#"{"env": {env: 1}, {env:}, {env:a b}"#),
        ] {
            assert_eq!(expand(text, &variables).as_deref(), Ok(expanded), "{text}");
        }
        for (text, told) in [
            ("${NONE}", "NONE is not set"),
            ("{env:NONE}", "NONE is not set"),
            ("${input:key}", "${input:key} is not understood"),
            ("${TOKEN}${1X}", "${1X}"),
            ("${}", "${} is not understood"),
            ("${A:-${B}}", "is not understood"),
        ] {
            let error = expand(text, &variables).expect_err(text);
            assert!(error.contains(told) && !error.contains("t0p"), "{error}");
        }
    }
}

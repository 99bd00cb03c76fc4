//! What installed packages are called. Pure.

use serde_json::Value;

/// A package as the name of a folder: another version is another one.
pub fn folder_name(package: &str) -> String {
    package.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=') { c } else { '+' }).collect()
}

/// The program that `npx` would start: the only one, or the one that has the package's name.
pub fn npm_program(name: &str, manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    let own = name.rsplit('/').next()?;
    match manifest.get("bin")? {
        Value::String(_) => Some(own.to_owned()),
        Value::Object(programs) if programs.len() == 1 => programs.keys().next().cloned(),
        Value::Object(programs) => programs.contains_key(own).then(|| own.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_has_another_folder() {
        assert_eq!(["@a/b@1", "../x", "a[y]==1"].map(folder_name), ["+a+b+1", "..+x", "a+y+==1"]);
    }

    #[test]
    fn of_several_programs_the_one_of_the_packages_name_is_meant() {
        let program = |manifest: &str| npm_program("@a/b", manifest.as_bytes());
        assert_eq!(program(r#"{"bin": "x.js"}"#).as_deref(), Some("b"));
        assert_eq!(program(r#"{"bin": {"other": "x.js"}}"#).as_deref(), Some("other"));
        assert_eq!(program(r#"{"bin": {"other": "x.js", "b": "y.js"}}"#).as_deref(), Some("b"));
        assert_eq!(program(r#"{"bin": {"other": "x.js", "more": "y.js"}}"#), None);
        assert_eq!(program("{}"), None);
    }
}

//! What `npx` and `uvx` would start, by their arguments. Pure.

use serde_json::Value;

use super::Registry;

/// A package, and how its program is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it comes from.
    pub registry: Registry,
    /// As it was asked for, with its version.
    pub package: String,
    /// The program of the package, where it was named.
    pub program: Option<String>,
    /// For the program.
    pub args: Vec<String>,
}

/// None: another command, or one with an option that changes what would run.
pub fn wanted(command: &[String]) -> Option<Wanted> {
    let (runner, args) = command.split_first()?;
    let registry = match runner.rsplit('/').next()? {
        "npx" => Registry::Npm,
        "uvx" => Registry::Pypi,
        _ => return None,
    };
    let mut package = None;
    let mut rest = args.iter();
    loop {
        let arg = rest.next()?;
        let (option, value) =
            arg.split_once('=').filter(|_| arg.starts_with("--")).map_or((arg.as_str(), None), |(o, v)| (o, Some(v)));
        match (registry, option) {
            (Registry::Npm, "-y" | "--yes" | "-q" | "--quiet" | "--") | (Registry::Pypi, "-q" | "--quiet" | "--") => {}
            (Registry::Npm, "-p" | "--package") | (Registry::Pypi, "--from") => {
                package = Some(value.map_or_else(|| rest.next().cloned(), |value| Some(value.to_owned()))?);
            }
            (_, option) if option.starts_with('-') => return None,
            _ => {
                let args = rest.cloned().collect();
                return Some(match package {
                    Some(package) => Wanted { registry, package, program: Some(arg.clone()), args },
                    None => Wanted { registry, package: arg.clone(), program: None, args },
                });
            }
        }
    }
}

/// A package without its version. The scope begins with an @, too.
pub fn npm_name(package: &str) -> &str {
    let scope = usize::from(package.starts_with('@'));
    package[scope..].find('@').map_or(package, |at| &package[..scope + at])
}

/// A package as the name of a folder: another version is another one.
pub fn folder_name(package: &str) -> String {
    package.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=') { c } else { '+' }).collect()
}

/// A package without its version and extras.
pub fn pypi_name(package: &str) -> &str {
    let end = package.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    &package[..end.unwrap_or(package.len())]
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

    fn read(command: &str) -> Option<(String, Option<String>, String)> {
        let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
        wanted(&command).map(|wanted| (wanted.package, wanted.program, wanted.args.join(" ")))
    }

    #[test]
    fn what_a_runner_would_start_is_read_from_its_arguments() {
        let some = |package: &str, program: Option<&str>, args: &str| {
            Some((package.to_owned(), program.map(str::to_owned), args.to_owned()))
        };
        assert_eq!(read("npx -y @a/b@1.2.3 --x -y"), some("@a/b@1.2.3", None, "--x -y"));
        assert_eq!(read("/usr/bin/npx --package=@a/b@1 tool x"), some("@a/b@1", Some("tool"), "x"));
        assert_eq!(read("npx -p c@1 tool"), some("c@1", Some("tool"), ""));
        assert_eq!(
            read("uvx mcp-server-time==1.0 --local-timezone UTC"),
            some("mcp-server-time==1.0", None, "--local-timezone UTC")
        );
        assert_eq!(read("uvx --from git-server[x]==2 git-mcp"), some("git-server[x]==2", Some("git-mcp"), ""));
        assert_eq!(read("npx --call x"), None);
        assert_eq!(read("uvx --python 3.12 x"), None);
        assert_eq!(read("npx -y"), None);
        assert_eq!(read("node x"), None);
    }

    #[test]
    fn a_package_is_known_by_its_name() {
        assert_eq!(["@a/b@1", "@a/b", "b@^1", "b"].map(npm_name), ["@a/b", "@a/b", "b", "b"]);
        assert_eq!(["@a/b@1", "../x", "a[y]==1"].map(folder_name), ["+a+b+1", "..+x", "a+y+==1"]);
        assert_eq!(["a-b==1", "a_b[x]>=2", "a.b @ git+https://x"].map(pypi_name), ["a-b", "a_b", "a.b"]);
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

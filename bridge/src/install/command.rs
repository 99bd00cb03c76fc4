//! What installed packages are called. Pure.

use std::collections::BTreeMap;

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

/// The programs that a package has, each with its file.
pub fn npm_programs(name: &str, manifest: &[u8]) -> BTreeMap<String, String> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let file = |file: &Value| file.as_str().unwrap_or_default().to_owned();
    match &manifest["bin"] {
        only @ Value::String(_) => name.rsplit('/').next().map(|own| (own.to_owned(), file(only))).into_iter().collect(),
        Value::Object(programs) => programs.iter().map(|(name, named)| (name.clone(), file(named))).collect(),
        _ => BTreeMap::new(),
    }
}

/// Of the files in a folder of programs those that a package put there: an environment of pip's has some of its own.
pub fn pypi_programs(names: impl Iterator<Item = String>) -> Vec<String> {
    let own = ["python", "pip", "activate", "Activate", "deactivate"];
    let mut programs: Vec<_> = names.filter(|name| !own.iter().any(|own| name.starts_with(own))).collect();
    programs.sort_unstable();
    programs
}

/// How lines of uv begin that say what it did before it failed.
const DONE: [&str; 14] = [
    "+ ",
    "- ",
    "~ ",
    "Resolved ",
    "Prepared ",
    "Installed ",
    "Uninstalled ",
    "Audited ",
    "Downloading ",
    "Downloaded ",
    "Building ",
    "Built ",
    "Updating ",
    "Using ",
];

/// Lines that every failure of npm ends with, and that tell nothing of it.
const NOISE: [&str; 5] = [
    "A complete log of this run",
    "Note that you can also install from a",
    "tarball, folder, http url, or git",
    "npm warn",
    "npm notice",
];

/// How many lines are told of a failure.
const TELLING: usize = 4;

/// Of what an installer said the lines in which it says why it failed: of those that say anything the first two, which say what failed, and the
/// last two, which say of what.
pub fn telling(said: &[String]) -> Vec<&str> {
    let says = |line: &&str| {
        let more_than_a_code = line.split_whitespace().any(|word| !word.bytes().all(|byte| byte.is_ascii_digit()));
        more_than_a_code && NOISE.iter().all(|noise| !line.contains(noise)) && !DONE.iter().any(|done| line.starts_with(done))
    };
    let lines = said.iter().map(|line| {
        let line = line.trim();
        line.strip_prefix("npm error").or_else(|| line.strip_prefix("npm ERR!")).unwrap_or(line).trim()
    });
    let mut lines: Vec<_> = lines.filter(says).collect();
    if lines.len() > TELLING {
        lines.drain(TELLING / 2..lines.len() - TELLING / 2);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_has_another_folder() {
        assert_eq!(["@a/b@1", "../x", "a[y]==1"].map(folder_name), ["+a+b+1", "..+x", "a+y+==1"]);
    }

    #[test]
    fn of_what_an_installer_said_the_cause_is_told() {
        let said = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let npm = said(
            "npm warn deprecated x\nnpm error code E404\nnpm error 404 Not Found - GET https://r/a\nnpm error 404\nnpm error 404  'a@1' is not in this registry.\nnpm error 404\nnpm error 404 Note that you can also install from a\nnpm error 404 tarball, folder, http url, or git folder.\nnpm error A complete log of this run can be found in: /x",
        );
        assert_eq!(telling(&npm), ["code E404", "404 Not Found - GET https://r/a", "404  'a@1' is not in this registry."]);
        let uv = said(
            "Resolving\n  × No solution found when resolving tool dependencies:\n  ╰─▶ Because a was not found in the package registry",
        );
        assert_eq!(telling(&uv).last(), Some(&"╰─▶ Because a was not found in the package registry"));
        let offline = said(
            "error: Request failed after 3 retries\n  Caused by: Failed to fetch: `https://i/simple/a/`\n  Caused by: error sending request\n  Caused by: client error (Connect)\n  Caused by: dns error\n  Caused by: failed to lookup address information",
        );
        let told = telling(&offline);
        assert_eq!(told[1], "Caused by: Failed to fetch: `https://i/simple/a/`");
        assert_eq!(told[3], "Caused by: failed to lookup address information");
        let library = said(
            "Resolved 4 packages in 5ms\nInstalled 4 packages in 3ms\n + pydantic==2.1\nNo executables are provided by package `pydantic`; removing tool\nerror: Failed to install entrypoints",
        );
        assert_eq!(telling(&library)[0], "No executables are provided by package `pydantic`; removing tool");
        assert!(telling(&[]).is_empty());
    }

    #[test]
    fn of_several_programs_the_one_of_the_packages_name_is_meant() {
        let program = |manifest: &str| npm_program("@a/b", manifest.as_bytes());
        assert_eq!(program(r#"{"bin": "x.js"}"#).as_deref(), Some("b"));
        assert_eq!(program(r#"{"bin": {"other": "x.js"}}"#).as_deref(), Some("other"));
        assert_eq!(program(r#"{"bin": {"other": "x.js", "b": "y.js"}}"#).as_deref(), Some("b"));
        assert_eq!(program(r#"{"bin": {"other": "x.js", "more": "y.js"}}"#), None);
        assert_eq!(program("{}"), None);
        let own = |(program, file): (&str, &str)| (program.to_owned(), file.to_owned());
        let programs = |manifest: &str| npm_programs("@a/b", manifest.as_bytes());
        assert_eq!(
            programs(r#"{"bin": {"other": "x.js", "more": "y.js"}}"#),
            [("more", "y.js"), ("other", "x.js")].map(own).into()
        );
        assert_eq!(programs(r#"{"bin": "x.js"}"#), [("b", "x.js")].map(own).into());
        assert!(programs("{}").is_empty());
        let names = ["python3", "pip", "activate.fish", "server", "Activate.ps1", "another"].map(str::to_owned);
        assert_eq!(pypi_programs(names.into_iter()), ["another", "server"]);
    }
}

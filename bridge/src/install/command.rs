//! What installed packages and their programs are called, and what of an installer's words tells why it failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mcp_stdio::package::pypi_normal;
use serde_json::Value;

use crate::last_words::{bare, names_an_error, tells};

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

/// The programs that a package itself put into an environment of pip's, which holds those of all that it needs, too. None: it is a library,
/// or it does not say.
pub fn pypi_programs(environment: &Path, package: &str) -> Vec<String> {
    let folders = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned).unwrap_or_default();
    let is_its = |path: &PathBuf| {
        let name = named(path);
        let name = name.strip_suffix(".dist-info").and_then(|name| name.split_once('-'));
        name.is_some_and(|(name, _version)| pypi_normal(name) == pypi_normal(package))
    };
    let mut its = folders(environment.join("lib")).flat_map(|python| folders(python.join("site-packages"))).filter(is_its);
    let said = its.find_map(|its| fs::read_to_string(its.join("entry_points.txt")).ok()).unwrap_or_default();
    scripts(&said)
}

/// The names in the section `console_scripts` of an `entry_points.txt`.
fn scripts(said: &str) -> Vec<String> {
    let lines = said.lines().map(str::trim).skip_while(|line| *line != "[console_scripts]").skip(1);
    let section = lines.take_while(|line| !line.starts_with('['));
    let mut names: Vec<_> = section.filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned())).collect();
    names.sort_unstable();
    names
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

/// Lines of npm and of what it runs that say around what it failed, and not of what.
const AROUND: [&str; 7] = ["syscall ", "errno ", "command failed", "System ", "node -v ", "node-gyp -v ", "not ok"];

/// How many lines are told of a failure.
const TELLING: usize = 4;

/// Of what an installer said the lines in which it says why it failed, in their order: the first and the last of those that say anything, then
/// those that name an error, then the second and the last but one.
pub fn telling(said: &[String]) -> Vec<&str> {
    let begins = |line: &str, all: &[&str]| all.iter().any(|with| line.starts_with(with));
    let all: Vec<_> = said.iter().map(|line| (line.trim(), bare(line))).filter(|(_, bare)| !bare.is_empty()).collect();
    let says = |(line, bare): &&(&str, &str)| tells(line) && !begins(line, &DONE) && !begins(bare, &AROUND);
    let mut lines: Vec<_> = all.iter().filter(says).map(|(_, bare)| *bare).collect();
    if lines.is_empty() {
        // Better what says little than nothing.
        lines = all.iter().map(|(_, bare)| *bare).collect();
    }
    let last = lines.len().saturating_sub(1);
    let errors = (0..lines.len()).filter(|index| names_an_error(lines[*index]));
    let mut chosen = BTreeSet::new();
    for index in [0, last].into_iter().chain(errors).chain([1, last.saturating_sub(1)]) {
        if chosen.len() < TELLING && index < lines.len() {
            chosen.insert(index);
        }
    }
    chosen.into_iter().map(|index| lines[index]).collect()
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
        let refused = said(
            "npm error code ECONNREFUSED\nnpm error syscall connect\nnpm error errno ECONNREFUSED\nnpm error FetchError: request to http://r/a failed, reason: connect ECONNREFUSED\nnpm error     at ClientRequest.<anonymous> (/x.js:1:1) {\nnpm error   type: 'system',\nnpm error }\nnpm error\nnpm error If you are behind a proxy, please make sure that the\nnpm error 'proxy' config is set properly.  See: 'npm help config'\nnpm error A complete log of this run can be found in: /x",
        );
        let told = telling(&refused);
        assert_eq!(
            told[..2],
            ["code ECONNREFUSED", "FetchError: request to http://r/a failed, reason: connect ECONNREFUSED"],
            "{told:?}"
        );
        let script = said(
            "npm error code 1\nnpm error path /x/node_modules/puppeteer\nnpm error command failed\nnpm error command sh -c node install.mjs\nnpm error Error: ERROR: Failed to set up chrome v148!\nnpm error     at downloadBrowser (file:///x.js:26:15)\nnpm error   [cause]: Error: All providers failed for chrome 148:\nnpm error     - DefaultProvider: getaddrinfo ENOTFOUND storage.example\nnpm error       at installWithProviders (file:///x.js:108:11)\nnpm error }",
        );
        let why = [
            "code 1",
            "Error: ERROR: Failed to set up chrome v148!",
            "[cause]: Error: All providers failed for chrome 148:",
            "- DefaultProvider: getaddrinfo ENOTFOUND storage.example",
        ];
        assert_eq!(telling(&script), why);
        let gyp = said(
            "npm error code 1\nnpm error path /x/sqlite3\nnpm error gyp ERR! configure error\nnpm error gyp ERR! stack Error: This is most likely a problem of the network\nnpm error gyp ERR! stack     at go (/x.js:173:17)\nnpm error gyp ERR! System Linux 6\nnpm error gyp ERR! cwd /x\nnpm error gyp ERR! node -v v20\nnpm error gyp ERR! not ok",
        );
        assert!(telling(&gyp).contains(&"Error: This is most likely a problem of the network"), "{:?}", telling(&gyp));
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
        let said = "[gui_scripts]\nw = a:w\n\n[console_scripts]\nserver = a.b:main\nanother=a.c:main [x]\n\n[other]\nz = a:z\n";
        assert_eq!(scripts(said), ["another", "server"]);
        assert!(scripts("").is_empty());
    }
}

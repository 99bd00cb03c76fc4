//! Packages of npm and PyPI, installed once, so that a server's restart needs no network; and which program `npx` or `uvx` would start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

mod command;

pub use command::{Wanted, wanted};

/// Says what was installed.
const INDEX: &str = "installed.json";

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// By npm.
    Npm,
    /// By uv, or by pip where there is no uv.
    #[value(name = "pypi")]
    Pypi,
}

/// Why a package is not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Files.
    #[error("failed to write to {0}: {1}")]
    Folder(PathBuf, #[source] std::io::Error),
    /// No such program.
    #[error("{0} could not be started: {1}; use an image that has it")]
    Tool(&'static str, #[source] std::io::Error),
    /// In the tool's own words.
    #[error("{tool} could not install {package}:\n{words}")]
    Failed {
        /// Which tool.
        tool: &'static str,
        /// As it was asked for.
        package: String,
        /// Its last lines.
        words: String,
    },
    /// A library, say.
    #[error("{0} has no program to start: name one with --program")]
    NoProgram(String),
}

/// What is in a folder: the program of each package, as it was asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index(BTreeMap<String, PathBuf>);

impl Index {
    fn read(folder: &Path) -> Self {
        fs::read(folder.join(INDEX)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn write(&self, folder: &Path) -> std::io::Result<()> {
        let part = folder.join(format!("{INDEX}.part"));
        fs::write(&part, serde_json::to_vec_pretty(self).unwrap_or_default())?;
        fs::rename(part, folder.join(INDEX))
    }
}

fn key(registry: Registry, package: &str, program: Option<&str>) -> String {
    let registry = if registry == Registry::Npm { "npm" } else { "pypi" };
    format!("{registry} {package} {}", program.unwrap_or_default()).trim_end().to_owned()
}

/// Installs a package, unless it is there already, and says where its program is.
pub fn install(registry: Registry, package: &str, program: Option<&str>, folder: &Path) -> Result<PathBuf, InstallError> {
    let failed = |error| InstallError::Folder(folder.to_owned(), error);
    fs::create_dir_all(folder).map_err(failed)?;
    // Programs are started from another folder than the one where they were installed.
    let folder = &folder.canonicalize().map_err(failed)?;
    let mut index = Index::read(folder);
    let key = key(registry, package, program);
    if let Some(there) = index.0.get(&key).filter(|there| there.exists()) {
        tracing::info!(package, program = %there.display(), "the package is installed already");
        return Ok(there.clone());
    }
    let found = match registry {
        Registry::Npm => npm(package, program, folder)?,
        Registry::Pypi => pypi(package, program, folder)?,
    };
    index.0.insert(key, found.clone());
    index.write(folder).map_err(failed)?;
    tracing::info!(package, program = %found.display(), "package installed");
    Ok(found)
}

/// What to start instead of `npx` or `uvx`, if the package that they name was installed.
pub fn installed(command: &[String], folder: &Path) -> Option<Vec<String>> {
    let Wanted { registry, package, program, args } = wanted(command)?;
    let found = Index::read(folder).0.remove(&key(registry, &package, program.as_deref()))?;
    Some([vec![found.to_string_lossy().into_owned()], args].concat())
}

fn run(tool: &'static str, package: &str, command: &mut Command) -> Result<(), InstallError> {
    let done = command.output().map_err(|error| InstallError::Tool(tool, error))?;
    if done.status.success() {
        return Ok(());
    }
    let said = [done.stdout, done.stderr].concat();
    let said = mcp_stdio::stderr::readable_lines(&said);
    let words = said[said.len().saturating_sub(20)..].join("\n");
    Err(InstallError::Failed { tool, package: package.to_owned(), words })
}

fn npm(package: &str, program: Option<&str>, folder: &Path) -> Result<PathBuf, InstallError> {
    // One for each package: npm takes away what it was not asked for.
    let own = folder.join("npm").join(command::folder_name(package));
    fs::create_dir_all(&own).map_err(|error| InstallError::Folder(own.clone(), error))?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--no-update-notifier", "--no-save", "--loglevel=error", "--prefix"]);
    command.arg(&own).arg(package);
    keep_in(&mut command, folder, "npm_config_cache", "npm-cache");
    run("npm", package, &mut command)?;
    let modules = own.join("node_modules");
    let name = command::npm_name(package);
    let manifest = fs::read(modules.join(name).join("package.json")).unwrap_or_default();
    let program = program.map(str::to_owned).or_else(|| command::npm_program(name, &manifest));
    let program = program.map(|program| modules.join(".bin").join(program)).filter(|program| program.exists());
    program.ok_or_else(|| InstallError::NoProgram(package.to_owned()))
}

fn pypi(package: &str, program: Option<&str>, folder: &Path) -> Result<PathBuf, InstallError> {
    let programs = folder.join("bin");
    let mut uv = Command::new("uv");
    uv.args(["tool", "install", "--force", package]).env("UV_TOOL_DIR", folder.join("tools")).env("UV_TOOL_BIN_DIR", &programs);
    keep_in(&mut uv, folder, "UV_CACHE_DIR", "uv-cache");
    let programs = match run("uv", package, &mut uv) {
        Ok(()) => programs,
        // An image with Python has pip, but seldom uv.
        Err(InstallError::Tool(..)) => {
            let venv = folder.join("venvs").join(command::folder_name(package));
            run("python3", package, Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let mut pip = Command::new(venv.join("bin/pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check", package]);
            keep_in(&mut pip, folder, "PIP_CACHE_DIR", "pip-cache");
            run("pip", package, &mut pip)?;
            venv.join("bin")
        }
        Err(error) => return Err(error),
    };
    let program = programs.join(program.unwrap_or_else(|| command::pypi_name(package)));
    if program.exists() { Ok(program) } else { Err(InstallError::NoProgram(package.to_owned())) }
}

/// A home folder may not be writable.
fn keep_in(command: &mut Command, folder: &Path, variable: &str, name: &str) {
    if std::env::var_os(variable).is_none() {
        command.env(variable, folder.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_package_is_started_without_its_runner() {
        let folder = tempfile::tempdir().unwrap();
        let command = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let npx = command("npx -y @a/server@1.0.0 --port 5");
        assert_eq!(installed(&npx, folder.path()), None);
        let mut index = Index::default();
        index.0.insert(key(Registry::Npm, "@a/server@1.0.0", None), "/p/server".into());
        index.write(folder.path()).unwrap();
        assert_eq!(installed(&npx, folder.path()), Some(command("/p/server --port 5")));
        assert_eq!(installed(&command("npx -y @a/server@2.0.0"), folder.path()), None);
        assert_eq!(installed(&command("node server.js"), folder.path()), None);
    }
}

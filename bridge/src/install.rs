//! Packages of npm and PyPI, installed once, so that a server's restart needs no network; and which program `npx` or `uvx` would start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_stdio::group::{self, Spawned};
use mcp_stdio::package::{self, Registry, Wanted};
use mcp_stdio::secrets::Secrets;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

mod command;

/// Says what was installed.
const INDEX: &str = "installed.json";

/// Is held by whoever installs.
const LOCK: &str = ".lock";

/// Why a package is not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Files.
    #[error("failed to write to {0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// No such program.
    #[error("{0} could not be started: {1}; use an image that has it")]
    Tool(&'static str, std::io::Error),
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
    /// It was to stop.
    #[error("stopped before {0} was installed")]
    Stopped(String),
    /// Its own fault.
    #[error("{package} names the file {file} for its program {program}, and does not have it: name another version")]
    NoFile {
        /// As it was asked for.
        package: String,
        /// Its program.
        program: String,
        /// As the package says.
        file: String,
    },
    /// A library, say, or several programs of which none is meant.
    #[error("{}", no_program(.package, *.registry, .wanted.as_deref(), .others))]
    NoProgram {
        /// As it was asked for.
        package: String,
        /// Where from.
        registry: Registry,
        /// Which program was.
        wanted: Option<String>,
        /// Those that it has.
        others: Vec<String>,
    },
}

fn no_program(package: &str, registry: Registry, wanted: Option<&str>, others: &[String]) -> String {
    let wanted = wanted.map_or_else(String::new, |wanted| format!(" {wanted}"));
    if others.is_empty() {
        return format!("{package} has no program{wanted} to start, nor another one: it is a library");
    }
    let by = match registry {
        Registry::Npm => "npx --package",
        Registry::Pypi => "uvx --from",
    };
    format!("{package} has no program{wanted} to start, but {}: name one, as in {by} {package} {}", others.join(", "), others[0])
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

/// What differs where something else is to be installed.
fn key(Wanted { registry, package, with, python, program, args: _ }: &Wanted) -> String {
    let mut words = vec![registry.as_str(), package];
    words.extend(with.iter().map(String::as_str));
    words.extend(python.iter().flat_map(|python| ["--python", python]));
    words.extend(program.iter().flat_map(|program| ["--program", program]));
    words.join(" ")
}

/// Installs a package, unless it is there already, and says where its program is.
/// `from`: the registry where the environment names none.
pub async fn install(wanted: &Wanted, folder: &Path, from: Option<&str>) -> Result<PathBuf, InstallError> {
    let failed = |error| InstallError::Folder(folder.to_owned(), error);
    fs::create_dir_all(folder).map_err(failed)?;
    // Programs are started from another folder than the one where they were installed.
    let folder = &folder.canonicalize().map_err(failed)?;
    // Another one may be under way in the same folder.
    let _alone = alone(folder).await.map_err(failed)?;
    let (mut index, key, package) = (Index::read(folder), key(wanted), &wanted.package);
    if let Some(there) = index.0.get(&key).filter(|there| there.exists()) {
        tracing::info!(package, program = %there.display(), "the package is installed already");
        return Ok(there.clone());
    }
    let found = match wanted.registry {
        Registry::Npm => npm(wanted, folder, from).await?,
        Registry::Pypi => pypi(wanted, folder, from).await?,
    };
    index.0.insert(key, found.clone());
    index.write(folder).map_err(failed)?;
    tracing::info!(package, program = %found.display(), "package installed");
    Ok(found)
}

/// Waits until nobody else installs in the folder. Where files cannot be locked, nobody is waited for.
async fn alone(folder: &Path) -> std::io::Result<fs::File> {
    let file = fs::File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    while let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        // Nothing tells of the end of a lock but a thread that waits for it, and could not be told to stop.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(file)
}

/// What to start instead of `npx` or `uvx`, if the package that they name was installed.
pub fn installed(command: &[String], folder: &Path) -> Option<Vec<String>> {
    let (runner, args) = command.split_first()?;
    let wanted = package::wanted(package::runner(runner)?, args).ok()?;
    let found = Index::read(folder).0.remove(&key(&wanted))?;
    Some([vec![found.to_string_lossy().into_owned()], wanted.args].concat())
}

/// Until the tool has ended. Whoever does not wait for that ends it, and what it started.
async fn run(tool: &'static str, package: &str, command: Command) -> Result<(), InstallError> {
    let Spawned { stdin, mut stdout, mut stderr, mut group } =
        group::spawn(command).map_err(|error| InstallError::Tool(tool, error))?;
    drop(stdin);
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    // What cannot be read is not told.
    let (_, _, exit) = tokio::join!(stdout.read_to_end(&mut said), stderr.read_to_end(&mut complained), group.wait());
    if exit.code == Some(0) {
        return Ok(());
    }
    said.extend(complained);
    let said = mcp_stdio::stderr::readable_lines(&said);
    // All of it for who reads the log; what is told elsewhere has room for a few lines.
    tracing::error!(package, "{tool} said: {}", said.join("\n"));
    let mut told = command::telling(&said);
    let ended = exit.to_string();
    if told.is_empty() || exit.signal.is_some() {
        told.push(&ended);
    }
    let words = Secrets::of_environment().masked(&told.join("\n"));
    Err(InstallError::Failed { tool, package: package.to_owned(), words })
}

/// The folder of one package alone: npm takes away what it was not asked for. What was begun there, and not ended, would be taken for whole
/// by npm, and by pip for what it is not.
fn own_folder(folder: &Path, wanted: &Wanted) -> Result<PathBuf, InstallError> {
    let own = folder.join(wanted.registry.as_str()).join(command::folder_name(&key(wanted)));
    let made = match fs::remove_dir_all(&own) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&own),
    };
    made.map_err(|error| InstallError::Folder(own.clone(), error))?;
    Ok(own)
}

async fn npm(wanted: &Wanted, folder: &Path, from: Option<&str>) -> Result<PathBuf, InstallError> {
    let Wanted { package, program, .. } = wanted;
    let own = own_folder(folder, wanted)?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--no-update-notifier", "--no-save", "--loglevel=error", "--prefix"]);
    command.arg(&own).args(wanted.packages());
    keep_in(&mut command, folder, "npm_config_cache", "npm-cache");
    fetch_from(&mut command, "npm_config_registry", from, &OF_NPM);
    run("npm", package, command).await?;
    let modules = own.join("node_modules");
    let name = package::npm_name(package);
    let manifest = fs::read(modules.join(name).join("package.json")).unwrap_or_default();
    let meant = program.clone().or_else(|| command::npm_program(name, &manifest));
    if let Some(there) = meant.as_ref().map(|program| modules.join(".bin").join(program)).filter(|program| program.exists()) {
        return Ok(there);
    }
    let (package, mut programs) = (package.clone(), command::npm_programs(name, &manifest));
    Err(match meant.and_then(|program| programs.remove_entry(&program)) {
        Some((program, file)) => InstallError::NoFile { package, program, file },
        None => InstallError::NoProgram {
            package,
            registry: Registry::Npm,
            wanted: program.clone(),
            others: programs.into_keys().collect(),
        },
    })
}

/// What says to npm, to pip and to uv where packages come from.
const OF_NPM: [&str; 4] = ["npm_config_registry", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG", "npm_config_userconfig"];
const OF_PIP: [&str; 4] = ["PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"];
const OF_UV: [&str; 4] = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_CONFIG_FILE"];

async fn pypi(wanted: &Wanted, folder: &Path, from: Option<&str>) -> Result<PathBuf, InstallError> {
    let Wanted { package, program, .. } = wanted;
    let own = own_folder(folder, wanted)?;
    // uv hears nothing of what is said to pip alone, and would fetch the package from elsewhere.
    let only_pip = says(&OF_PIP) && !says(&OF_UV);
    let by_uv = if only_pip { None } else { by_uv(wanted, &own, folder, from).await? };
    let (programs, others) = match by_uv {
        Some(there) => there,
        None => by_pip(wanted, &own, folder, from).await?,
    };
    let meant = program.as_deref().unwrap_or_else(|| package::pypi_name(package));
    // A package may be written in several ways, and its program is named like one of them.
    let found = others
        .iter()
        .find(|name| *name == meant)
        .or_else(|| others.iter().find(|name| program.is_none() && package::pypi_normal(name) == package::pypi_normal(meant)));
    found.map(|name| programs.join(name)).ok_or_else(|| InstallError::NoProgram {
        package: package.clone(),
        registry: Registry::Pypi,
        wanted: program.clone(),
        others: others.clone(),
    })
}

/// The folder of the programs, and their names. None: there is no uv here. An image with Python has pip, but seldom uv.
async fn by_uv(
    wanted: &Wanted,
    own: &Path,
    folder: &Path,
    from: Option<&str>,
) -> Result<Option<(PathBuf, Vec<String>)>, InstallError> {
    let Wanted { package, python, .. } = wanted;
    let programs = own.join("bin");
    let mut uv = Command::new("uv");
    uv.args(["tool", "install", "--force"]).args(wanted.with.iter().flat_map(|with| ["--with", with]));
    uv.args(python.iter().flat_map(|python| ["--python", python])).arg(package);
    uv.env("UV_TOOL_DIR", own.join("tools")).env("UV_TOOL_BIN_DIR", &programs);
    keep_in(&mut uv, folder, "UV_CACHE_DIR", "uv-cache");
    // An interpreter that uv fetches is part of what must be there at the next start.
    keep_in(&mut uv, folder, "UV_PYTHON_INSTALL_DIR", "python");
    fetch_from(&mut uv, "UV_DEFAULT_INDEX", from, &OF_UV);
    match run("uv", package, uv).await {
        Ok(()) => {
            let entries = fs::read_dir(&programs).into_iter().flatten();
            let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
            names.sort_unstable();
            Ok(Some((programs, names)))
        }
        Err(InstallError::Tool(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folder of the programs, and their names.
async fn by_pip(wanted: &Wanted, own: &Path, folder: &Path, from: Option<&str>) -> Result<(PathBuf, Vec<String>), InstallError> {
    let Wanted { package, python, .. } = wanted;
    let venv = own.join("venv");
    let python = python.as_ref().map_or_else(|| "python3".to_owned(), |version| format!("python{version}"));
    let mut make = Command::new(python);
    make.args(["-m", "venv"]).arg(&venv);
    run("python3", package, make).await?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(wanted.packages());
    keep_in(&mut pip, folder, "PIP_CACHE_DIR", "pip-cache");
    fetch_from(&mut pip, "PIP_INDEX_URL", from, &OF_PIP);
    run("pip", package, pip).await?;
    let programs = command::pypi_programs(&venv, package::pypi_name(package));
    Ok((venv.join("bin"), programs))
}

/// Whether one of these variables is set.
fn says(variables: &[&str]) -> bool {
    variables.iter().any(|name| std::env::var_os(name).is_some())
}

/// The registry of all servers counts for one that says nothing of registries by any of its variables, of which this is one.
fn fetch_from(command: &mut Command, variable: &str, from: Option<&str>, of_its_own: &[&str]) {
    if let Some(from) = from.filter(|_| !says(of_its_own)) {
        command.env(variable, from);
    }
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
        let wanted = package::wanted(Registry::Npm, &npx[1..]).unwrap();
        index.0.insert(key(&wanted), "/p/server".into());
        index.write(folder.path()).unwrap();
        assert_eq!(installed(&npx, folder.path()), Some(command("/p/server --port 5")));
        for other in ["npx -y @a/server@2.0.0", "npx -y -p @a/server@1.0.0 other", "node server.js"] {
            assert_eq!(installed(&command(other), folder.path()), None, "{other}");
        }
    }

    #[test]
    fn what_differs_in_what_is_installed_differs_in_its_key() {
        let key = |args: &str| {
            let args: Vec<_> = args.split(' ').map(str::to_owned).collect();
            key(&package::wanted(Registry::Pypi, &args).unwrap())
        };
        assert_eq!(key("a==1 --x"), key("a@1 --y"), "arguments of the program do not");
        let keys = ["a==1", "--with b a==1", "--python 3.12 a==1", "--from a==1 b"].map(key);
        assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)), "{keys:?}");
    }
}

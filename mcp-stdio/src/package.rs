//! What `npx` and `uvx` would install and start, by their arguments. Pure. The operator, which has it installed, and the bridge, which
//! starts it, read them here, and so mean the same.

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// npm's, by `npx`.
    Npm,
    /// Python's, by `uvx`.
    Pypi,
}

impl Registry {
    /// As `bridge install` is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pypi => "pypi",
        }
    }
}

/// A package, and how its program is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it comes from.
    pub registry: Registry,
    /// As its installer takes it: `@scope/name@1.2.3`, `name==1.2.3`.
    pub package: String,
    /// Further packages beside it.
    pub with: Vec<String>,
    /// The interpreter that it wants, as `uv --python` takes it.
    pub python: Option<String>,
    /// The program of the package, where it was named.
    pub program: Option<String>,
    /// For the program.
    pub args: Vec<String>,
}

/// Why a command of `npx` or `uvx` is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclear {
    /// An option that may change what runs.
    Option(String),
    /// No package.
    Nothing,
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Option(option) => write!(f, "the option {option} is not understood"),
            Self::Nothing => f.write_str("it names no package"),
        }
    }
}

/// The registry whose runner this command is: `npx`, `/usr/local/bin/uvx`. None: another command.
pub fn runner(command: &str) -> Option<Registry> {
    match command.rsplit('/').next()? {
        "npx" => Some(Registry::Npm),
        "uvx" => Some(Registry::Pypi),
        _ => None,
    }
}

/// What the runner would start.
pub fn wanted(registry: Registry, args: &[String]) -> Result<Wanted, Unclear> {
    let mut wanted = Wanted { registry, package: String::new(), with: Vec::new(), python: None, program: None, args: Vec::new() };
    let mut packages = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (option, inline) = match arg.split_once('=') {
            Some((option, value)) if arg.starts_with("--") => (option, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let mut value = || inline.clone().or_else(|| rest.next().cloned()).ok_or(Unclear::Nothing);
        match (registry, option) {
            (Registry::Npm, "-y" | "--yes" | "-q" | "--quiet" | "--")
            | (Registry::Pypi, "-q" | "--quiet" | "-n" | "--no-progress" | "--isolated" | "--") => {}
            (Registry::Npm, "-p" | "--package") => packages.push(value()?),
            (Registry::Pypi, "--from") => packages = vec![value()?],
            (Registry::Pypi, "--with" | "-w") => wanted.with.extend(value()?.split(',').map(str::to_owned)),
            (Registry::Pypi, "--python" | "-p") => wanted.python = Some(value()?),
            (_, option) if option.starts_with('-') => return Err(Unclear::Option(option.to_owned())),
            // The first word that is no option ends the runner's own.
            _ => {
                if packages.is_empty() {
                    packages.push(arg.clone());
                } else {
                    wanted.program = Some(arg.clone());
                }
                wanted.args = rest.cloned().collect();
                let mut packages = packages.into_iter();
                wanted.package = packages.next().unwrap_or_default();
                wanted.with.extend(packages);
                return Ok(wanted.as_installers_name_it());
            }
        }
    }
    Err(Unclear::Nothing)
}

impl Wanted {
    /// `uvx` takes `name@1.2.3` and `name@latest`, other tools do not. A program that is named like that is the package's own.
    pub fn as_installers_name_it(mut self) -> Self {
        let bare = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.[],".contains(c));
        if self.registry == Registry::Pypi
            && let Some((name, version)) = self.package.split_once('@')
            && bare(name)
            && !version.contains(['/', ' '])
        {
            self.package = if version == "latest" { name.to_owned() } else { format!("{name}=={version}") };
        }
        self
    }

    /// Whether the same is installed whenever it is installed: a version that is one, and no range, tag or branch.
    pub fn is_pinned(&self) -> bool {
        match self.registry {
            Registry::Npm => self.packages().all(npm_pinned),
            Registry::Pypi => self.packages().all(pypi_pinned),
        }
    }

    /// All that are installed, the one that is started first.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        [&self.package].into_iter().chain(&self.with).map(String::as_str)
    }
}

fn npm_pinned(package: &str) -> bool {
    let version = package[npm_name(package).len()..].trim_start_matches('@');
    is_commit(package) || is_version(version)
}

fn pypi_pinned(package: &str) -> bool {
    let version = package.split(';').next().unwrap_or_default().split_once("==").map_or("", |(_, version)| version);
    let version = version.trim_start_matches('=').trim();
    is_commit(package) || (version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains(['*', ',', '<', '>', '~', '!']))
}

/// `1.2.3`, `2026.8.31-beta.1`: three numbers, and what a release before a release has.
fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = numbers.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A repository at a commit, which never changes.
fn is_commit(package: &str) -> bool {
    let Some(commit) = package.rsplit(['#', '@']).next() else { return false };
    package.contains('/') && commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A package of npm without its version. The scope begins with an @, too.
pub fn npm_name(package: &str) -> &str {
    let scope = usize::from(package.starts_with('@'));
    package[scope..].find('@').map_or(package, |at| &package[..scope + at])
}

/// A package of Python without its version and extras.
pub fn pypi_name(package: &str) -> &str {
    let end = package.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    &package[..end.unwrap_or(package.len())]
}

/// The one form of a package's name that stands for all (PEP 503): `My_Server` and `my-server` are one package.
pub fn pypi_normal(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: &str) -> Result<Wanted, Unclear> {
        let mut words = command.split(' ').map(str::to_owned);
        let registry = runner(&words.next().unwrap()).unwrap();
        wanted(registry, &words.collect::<Vec<_>>())
    }

    /// Package, further packages, program and arguments.
    fn told(command: &str) -> String {
        match read(command) {
            Ok(Wanted { package, with, python, program, args, .. }) => {
                let python = python.map(|python| format!(" py{python}")).unwrap_or_default();
                format!("{package} +{}{python} {} | {}", with.join("+"), program.unwrap_or_default(), args.join(" "))
            }
            Err(unclear) => unclear.to_string(),
        }
    }

    #[test]
    fn what_a_runner_would_start_is_read_from_its_arguments() {
        for (command, means) in [
            ("npx -y @a/b@1.2.3 --x -y", "@a/b@1.2.3 +  | --x -y"),
            ("npx a", "a +  | "),
            ("/usr/bin/npx --package=@a/b@1 tool x", "@a/b@1 + tool | x"),
            ("npx -p c@1 -p d@2 -- tool", "c@1 +d@2 tool | "),
            ("uvx mcp-server-time==1.0 --local-timezone UTC", "mcp-server-time==1.0 +  | --local-timezone UTC"),
            ("uvx mcp-server-time@1.0", "mcp-server-time==1.0 +  | "),
            ("uvx a[x]@latest", "a[x] +  | "),
            ("uvx --from git-server[x]==2 --with b,c -w d git-mcp", "git-server[x]==2 +b+c+d git-mcp | "),
            ("uvx --from git+https://host/a/b@v1 b", "git+https://host/a/b@v1 + b | "),
            ("uvx --python 3.12 -q a", "a + py3.12  | "),
            ("npx --call x", "the option --call is not understood"),
            ("uvx --index-url https://host a", "the option --index-url is not understood"),
            ("npx -y", "it names no package"),
            ("uvx --from", "it names no package"),
        ] {
            assert_eq!(told(command), means, "{command}");
        }
        assert_eq!(runner("node"), None);
    }

    #[test]
    fn a_version_is_pinned_and_a_range_a_tag_or_a_branch_is_not() {
        let commit = "0123456789012345678901234567890123456789";
        for pinned in [
            "npx a@1.2.3",
            "npx -y @a/b@2026.8.31",
            "npx a@1.0.0-beta.1",
            &format!("npx github:a/b#{commit}"),
            "npx -p a@1.2.3 -p b@1.0.0 x",
            "uvx a==1.2",
            "uvx a[x]===2026.10.10",
            "uvx a@1.2.3",
            &format!("uvx --from git+https://host/a/b@{commit} b"),
        ] {
            assert!(read(pinned).unwrap().is_pinned(), "{pinned}");
        }
        for loose in [
            "npx a",
            "npx @a/b",
            "npx a@latest",
            "npx a@^1.2.3",
            "npx a@1.2",
            "npx a@1.x.0",
            "npx github:a/b",
            "npx -p a@1.2.3 -p b x",
            "uvx a",
            "uvx a@latest",
            "uvx a>=1.2",
            "uvx a==1.*",
            "uvx --with b a==1.0",
            "uvx --from git+https://host/a/b@main b",
        ] {
            assert!(!read(loose).unwrap().is_pinned(), "{loose}");
        }
    }

    #[test]
    fn a_package_is_known_by_its_name() {
        assert_eq!(["@a/b@1", "@a/b", "b@^1", "b"].map(npm_name), ["@a/b", "@a/b", "b", "b"]);
        assert_eq!(["a-b==1", "a_b[x]>=2", "a.b @ git+https://x"].map(pypi_name), ["a-b", "a_b", "a.b"]);
        assert!(["My_Server", "my-server", "my__server", "MY.server"].iter().all(|name| pypi_normal(name) == "my-server"));
    }
}

//! What a command line of a desktop means for a cluster: a package, an image, a server elsewhere, or nothing that there is one for. Pure.

use mcp_stdio::package::{self, Registry, Unclear};

use super::secret::{self, HIDDEN};

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launch {
    /// A package, by `npx` or `uvx` and these arguments.
    Package(Registry, Vec<String>),
    /// A container.
    Image(Box<Image>),
    /// A server elsewhere, by a program that hands on to it.
    Remote {
        /// Where it is.
        url: String,
        /// Headers of requests.
        headers: Vec<(String, String)>,
    },
    /// Something of this machine's. A sentence says what to do.
    Local(String),
}

/// A container, as `docker run` starts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// What replaces the image's entrypoint.
    pub entrypoint: Option<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables: without a value they are those of the caller.
    pub env: Vec<(String, Option<String>)>,
    /// Where a volume that outlives the container is.
    pub data: Option<String>,
    /// What has no place in a manifest.
    pub notes: Vec<String>,
}

/// The variables that `env NAME=VALUE… COMMAND` gives, and the command.
pub fn variables(command: &[String]) -> (Vec<(&str, &str)>, &[String]) {
    let is_env = command.first().is_some_and(|program| program.rsplit('/').next() == Some("env"));
    let mut given = Vec::new();
    let mut rest = if is_env { &command[1..] } else { command };
    while is_env
        && let Some((word, others)) = rest.split_first()
        && let Some(variable) = word.split_once('=')
    {
        given.push(variable);
        rest = others;
    }
    (given, rest)
}

/// What the command means.
pub fn read(command: &[String]) -> Launch {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let own = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let Some((program, rest)) = words.split_first() else { return Launch::Local("it has no command and no url".to_owned()) };
    let Some(program) = named(program) else {
        return Launch::Local(
            "its command is a whole line: write the program alone into command, and the rest into args".to_owned(),
        );
    };
    let program = program.to_ascii_lowercase();
    let program = program.trim_end_matches(".exe").trim_end_matches(".cmd");
    match (program, rest) {
        // Windows starts no script without it.
        ("cmd", ["/c" | "/C" | "/d" | "/s", rest @ ..]) | ("wsl", rest) => read(&own(rest)),
        ("npx" | "bunx", rest) | ("pnpm" | "yarn", ["dlx", rest @ ..]) | ("bun", ["x", rest @ ..]) => {
            package_of(Registry::Npm, &own(rest))
        }
        ("npm", ["exec" | "x", rest @ ..]) => {
            // It takes the first one for itself; npx hands it on.
            let mut args = own(rest);
            args.iter().position(|arg| arg == "--").map(|at| args.remove(at));
            package_of(Registry::Npm, &args)
        }
        ("pipx", ["run", "--spec", spec, rest @ ..]) => package_of(Registry::Pypi, &own(&[&["--from", *spec], rest].concat())),
        ("uvx", rest) | ("uv", ["tool", "run", rest @ ..]) | ("pipx", ["run", rest @ ..]) => {
            package_of(Registry::Pypi, &own(rest))
        }
        ("docker" | "podman" | "nerdctl", ["run" | "container", rest @ ..]) => image(rest),
        _ => Launch::Local(format!(
            "the command {} starts something of this machine: build an image with it, and set spec.stdio.image and command",
            secret::shown("", program)
        )),
    }
}

/// The program without its folder, whose name may have spaces. None: there is more than a program.
fn named(command: &str) -> Option<&str> {
    let more = command.contains([' ', '\t', '\n']) && (command.contains(" -") || command.contains("://"));
    let program = command.rsplit(['/', '\\']).next().unwrap_or_default();
    (!more && !program.contains(char::is_whitespace) && !command.contains('=')).then_some(program)
}

fn package_of(registry: Registry, args: &[String]) -> Launch {
    let wanted = match package::wanted(registry, args) {
        Ok(wanted) => wanted,
        Err(unclear) => {
            return Launch::Local(format!(
                "{}: write it with the package and its arguments alone, or build an image and set spec.stdio.image and command",
                match &unclear {
                    // Its value may be glued to it.
                    Unclear::Option(option) if secret::is_secret("", option) => format!("an option is not understood {HIDDEN}"),
                    unclear => unclear.to_string(),
                }
            ));
        }
    };
    if registry == Registry::Npm
        && package::npm_name(&wanted.package) == "mcp-remote"
        && let Some(remote) = remote(&wanted.args)
    {
        return remote;
    }
    if wanted.package.starts_with(['.', '/', '~']) || wanted.package.contains('\\') {
        return Launch::Local(format!(
            "{:?} is a folder of this machine: publish it, or build an image with it",
            secret::shown("", &wanted.package)
        ));
    }
    Launch::Package(registry, args.to_vec())
}

/// `mcp-remote URL [PORT] [--header NAME:VALUE]…`
fn remote(args: &[String]) -> Option<Launch> {
    let url = args.iter().find(|arg| arg.starts_with("https://") || arg.starts_with("http://"))?.clone();
    let mut headers = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let header = match arg.strip_prefix("--header=") {
            Some(header) => Some(header),
            None if arg == "--header" => rest.next().map(String::as_str),
            None => None,
        };
        headers.extend(
            header
                .and_then(|header| header.split_once(':'))
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())),
        );
    }
    Some(Launch::Remote { url, headers })
}

/// Options of `docker run` without a value.
const SWITCHES: [&str; 11] = [
    "--detach",
    "--interactive",
    "--tty",
    "--rm",
    "--init",
    "--read-only",
    "--privileged",
    "--no-healthcheck",
    "--sig-proxy",
    "--publish-all",
    "--quiet",
];
/// Such of one letter, which may stand behind one sign.
const LETTERS: [char; 4] = ['i', 't', 'd', 'P'];

/// Options of `docker run` that have one.
const WITH_VALUES: [&str; 5] = ["-e", "--env", "--entrypoint", "-v", "--volume"];

fn image(words: &[&str]) -> Launch {
    let mut found = Image::default();
    let mut rest = words.iter().skip_while(|word| **word == "run").peekable();
    let mut no_more_options = false;
    while let Some(word) = rest.next() {
        if *word == "--" && !no_more_options {
            no_more_options = true;
            continue;
        }
        if no_more_options || !word.starts_with('-') {
            // After an option that is not known, a value may stand here.
            if word.contains('=') || secret::is_secret("", word) {
                return Launch::Local(
                    "docker run names no image that is understood: write it with -i, --rm and -e alone".to_owned(),
                );
            }
            (*word).clone_into(&mut found.name);
            found.args = rest.map(ToString::to_string).collect();
            return Launch::Image(Box::new(found));
        }
        let letters = if word.starts_with("--") { "" } else { word[1..].trim_start_matches(LETTERS) };
        if letters.is_empty() && !word.starts_with("--") {
            continue;
        }
        let word = &if letters.is_empty() { (*word).to_owned() } else { format!("-{letters}") };
        let (option, inline) = word.split_once('=').filter(|_| word.starts_with("--")).unwrap_or((word.as_str(), ""));
        if SWITCHES.contains(&option) {
            if option == "--privileged" {
                found.notes.push("--privileged: pods keep to the Pod Security Standard restricted".to_owned());
            }
            continue;
        }
        let glued = ["-e", "-v", "-p", "-u", "-m"]
            .iter()
            .find(|short| option.starts_with(**short) && !option.starts_with("--") && option.len() > 2);
        let (option, value) = match glued {
            Some(short) => (*short, option[2..].trim_start_matches('=').to_owned()),
            None if word.contains('=') && word.starts_with("--") => (option, inline.to_owned()),
            // An option that nobody knows may be one without a value.
            None if !WITH_VALUES.contains(&option) && rest.peek().is_none_or(|next| next.starts_with('-')) => {
                (option, String::new())
            }
            None => (option, rest.next().map(ToString::to_string).unwrap_or_default()),
        };
        match option {
            "-e" | "--env" => found.env.push(match value.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (value, None),
            }),
            "--entrypoint" => found.entrypoint = Some(value),
            "-v" | "--volume" | "--mount" => volume(&mut found, option, &value),
            "--env-file" => {
                let value = secret::shown("", &value);
                found.notes.push(format!("--env-file {value}: put its variables into a Secret, and name that in envFrom"));
            }
            "--name" | "--pull" | "--platform" | "-l" | "--label" => {}
            _ => {
                let shown = [secret::shown("", option), secret::shown(option, &value)].join(" ");
                found.notes.push(format!("{}: not carried over", shown.trim_end()));
            }
        }
    }
    Launch::Local("docker run names no image".to_owned())
}

fn volume(found: &mut Image, option: &str, value: &str) {
    let part = |keys: &[&str]| {
        let parts = value.split(',').filter_map(|part| part.split_once('='));
        parts.into_iter().find(|(key, _)| keys.contains(key)).map(|(_, value)| value)
    };
    let (source, target) = if option == "--mount" {
        (part(&["src", "source"]), part(&["dst", "target", "destination"]))
    } else {
        // A drive's letter is followed by a colon, too.
        let windows = value.chars().nth(1) == Some(':') && value.starts_with(|c: char| c.is_ascii_alphabetic());
        let at = if windows { 2 } else { 0 };
        let split = value.get(at..).and_then(|rest| rest.find(':')).map(|found| found + at);
        match split {
            Some(split) => (value.get(..split), value.get(split + 1..).and_then(|rest| rest.split(':').next())),
            None => (None, Some(value)),
        }
    };
    let named = source.is_none_or(|source| !source.contains(['/', '\\', '~', '$', '.']));
    match target {
        Some(target) if named && found.data.is_none() && !secret::is_secret("", target) => found.data = Some(target.to_owned()),
        _ => found.notes.push(format!(
            "{option} {}: folders of this machine are not in a cluster; give the server spec.storage, or spec.volumes and volumeMounts",
            secret::shown("", value)
        )),
    }
}

//! One entry of mcp.json: its fields, in our own words and in those of other programs, become a server or everything that is wrong with
//! it. Pure. What is not understood and would change what runs, or who may what, refuses the entry (`unknown`).

use std::{cell::Cell, path::PathBuf, time::Duration};

use jsonc_parser::ast::{Object, Value};
use mcp_wire::headers::is_of_every_request;

use super::{
    fields::{Fields, kind},
    rules::{Approvals, Glob, ToolRules, Trust},
    server::{Hidden, Launch, ServerEntry, Target},
    unknown,
    variables::{Variables, expand},
};

const NO_URL: &str = "must be a whole http:// or https:// URL";
/// Longer is taken for milliseconds, which other programs count in.
const LONG: Duration = Duration::from_hours(1);

/// Reads the entry. `key` is its name where it stands in a map. Warnings name what is ignored.
pub fn read(
    key: Option<&str>,
    object: &Object,
    variables: Variables,
    warnings: &mut Vec<String>,
) -> Result<ServerEntry, Vec<String>> {
    let mut fields = Fields::new(object);
    let name = name(key, &mut fields, warnings);
    let seconds = |fields: &mut Fields, field, default| {
        let value = fields.number(field, "a number of seconds").unwrap_or(default);
        if (0.001..=86_400.0).contains(&value) {
            return Duration::from_secs_f64(value);
        }
        fields.problem(field, "must be seconds, more than 0 and at most 86400");
        Duration::ZERO
    };
    let timeout = seconds(&mut fields, "timeout", 30.0);
    let health_check_interval = seconds(&mut fields, "health_check_interval", 60.0);
    if timeout > LONG {
        warnings.push(format!("timeout: {} s is long; it is in seconds", timeout.as_secs()));
    }
    let max_retries = retries(&mut fields);
    let enabled = enabled(&mut fields, warnings);
    // What does not run needs no variables.
    let lacks = Cell::new(false);
    let unset = |name: &str| {
        variables(name).or_else(|| {
            lacks.set(true);
            Some("unset".to_owned())
        })
    };
    let variables: Variables = if enabled { variables } else { &unset };
    let trust = trust(&mut fields);
    let legacy = legacy(&mut fields);
    let tools = tools(&mut fields);
    let metadata = metadata(&mut fields);
    let target = target(&mut fields, variables);
    if lacks.get() {
        // Whether it is one is seen when it is switched on.
        fields.problems.retain(|problem| !problem.ends_with(NO_URL));
    }
    let headers = headers(&mut fields, variables);
    let headers_from = headers_from(&mut fields);
    let ca_file = fields.text("ca_file").map(PathBuf::from);
    let has_headers = !headers.is_empty() || !headers_from.is_empty() || ca_file.is_some();
    if has_headers && matches!(target, Some(Target::Command(_))) {
        fields.problem("headers, headers_from, ca_file", "only for url");
    }
    for field in fields.left().collect::<Vec<_>>() {
        if unknown::refuses(field) {
            fields.problem(
                field,
                "this field is not understood, and may change what runs or who may what; take it out, or say it otherwise",
            );
        } else {
            warnings.push(format!("the unknown field {field:?} is ignored"));
        }
    }
    match target {
        Some(target) if fields.problems.is_empty() => Ok(ServerEntry {
            name,
            target,
            enabled,
            timeout,
            max_retries,
            health_check_interval,
            headers,
            headers_from,
            ca_file,
            trust,
            tools,
            legacy,
            description: metadata.description,
            version: metadata.version,
            disabled_because: (!metadata.reason.is_empty()).then_some(metadata.reason),
            circuit_open: !enabled && matches!(metadata.circuit.as_str(), "Open" | "HalfOpen"),
        }),
        _ => Err(fields.problems),
    }
}

fn name(key: Option<&str>, fields: &mut Fields, warnings: &mut Vec<String>) -> String {
    let own = fields.text("name");
    let name = key.or(own).unwrap_or_default();
    if name.trim().is_empty() {
        fields.problem("name", "give the server a name");
    }
    if let (Some(key), Some(own)) = (key, own)
        && key != own
    {
        warnings.push(format!("name: {own:?} is ignored; its key is its name"));
    }
    name.to_owned()
}

/// Names of fields, as letters and digits, by which programs say that a server does not run: when they are true, and when they are false. One
/// that is ignored would let run what somebody has switched off.
const OFF: [&str; 13] = [
    "disabled",
    "disable",
    "isdisabled",
    "off",
    "paused",
    "ispaused",
    "pause",
    "stopped",
    "isstopped",
    "suspended",
    "suspend",
    "inactive",
    "isinactive",
];
const ON: [&str; 14] = [
    "enabled",
    "enable",
    "isenabled",
    "active",
    "isactive",
    "on",
    "running",
    "isrunning",
    "autostart",
    "autorun",
    "autoconnect",
    "autoload",
    "autoenable",
    "autoenabled",
];
/// The same in a word: `"status": "disabled"`.
const STATES: [&str; 3] = ["status", "state", "mode"];

/// What takes the right to run wins.
fn enabled(fields: &mut Fields, warnings: &mut Vec<String>) -> bool {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let (mut on, mut off) = (None, None);
    for field in fields.left().collect::<Vec<_>>() {
        let name = plain(field);
        if OFF.contains(&name.as_str()) {
            off = fields.boolean(field).map(|says| off == Some(true) || says).or(off);
        } else if ON.contains(&name.as_str()) {
            on = fields.boolean(field).map(|says| on != Some(false) && says).or(on);
        } else if STATES.contains(&name.as_str())
            && let Some(state) = fields.peek(field).and_then(|value| value.as_string_lit())
            && let state = plain(&state.value)
            && OFF.contains(&state.as_str())
        {
            fields.take(field);
            off = Some(true);
        }
    }
    if on.is_some() && on == off {
        warnings.push("one of its fields says that it is enabled, another one that it is not; it is not".to_owned());
    }
    on.unwrap_or(true) && !off.unwrap_or(false)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 10")]
fn retries(fields: &mut Fields) -> u32 {
    let value = fields.number("max_retries", "a number").unwrap_or(3.0);
    if value < 0.0 || value.fract() != 0.0 {
        fields.problem("max_retries", "must be a whole number, 0 or more");
        return 0;
    }
    value.min(10.0) as u32
}

fn trust(fields: &mut Fields) -> Trust {
    match fields.text("trust") {
        None | Some("hints") => Trust::Hints,
        Some("none") => Trust::None,
        Some(_) => {
            fields.problem("trust", "must be \"hints\" or \"none\"");
            Trust::None
        }
    }
}

fn legacy(fields: &mut Fields) -> bool {
    match fields.text("era") {
        None | Some("auto") => false,
        Some("legacy") => true,
        Some(_) => {
            fields.problem("era", "must be \"auto\" or \"legacy\"");
            false
        }
    }
}

fn tools(fields: &mut Fields) -> ToolRules {
    let mut rules = ToolRules::default();
    // As other programs write them, beside the server.
    for field in ["disabledTools", "disabled_tools", "excludeTools", "exclude_tools"] {
        rules.deny.extend(globs(fields, field).unwrap_or_default());
    }
    for field in ["enabledTools", "enabled_tools", "includeTools", "include_tools", "allowedTools", "allowed_tools"] {
        let allowed = globs(fields, field);
        allow(&mut rules, allowed);
    }
    let Some(object) = fields.object("tools") else { return rules };
    let mut inner = Fields::new(object);
    let allowed = globs(&mut inner, "allow");
    allow(&mut rules, allowed);
    rules.deny.extend(globs(&mut inner, "deny").unwrap_or_default());
    rules.approvals = match inner.text("approvals").map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("ask") => Some(Approvals::Ask),
        Some("always") => Some(Approvals::Always),
        Some("never") => Some(Approvals::Never),
        Some(_) => {
            inner.problem("approvals", "must be \"Ask\", \"Always\" or \"Never\"");
            None
        }
    };
    for field in inner.left().collect::<Vec<_>>() {
        inner.problem(field, "this field is not understood; allow, deny and approvals are");
    }
    fields.problems.extend(inner.problems.into_iter().map(|problem| format!("tools.{problem}")));
    rules
}

/// A list that allows nothing allows nothing: without a list, everything is.
fn allow(rules: &mut ToolRules, listed: Option<Vec<Glob>>) {
    match listed {
        Some(globs) if globs.is_empty() => rules.deny.push(Glob::new("*")),
        Some(globs) => rules.allow.extend(globs),
        None => {}
    }
}

fn globs(fields: &mut Fields, field: &str) -> Option<Vec<Glob>> {
    Some(fields.texts(field)?.into_iter().map(Glob::new).collect())
}

#[derive(Default)]
struct Metadata {
    description: String,
    version: String,
    reason: String,
    circuit: String,
}

/// For people: whatever has another shape is left out.
fn metadata(fields: &mut Fields) -> Metadata {
    let own = fields.take("description").and_then(Value::as_string_lit).map(|text| text.value.clone().into_owned());
    let version = fields.take("version").and_then(Value::as_string_lit).map(|text| text.value.clone().into_owned());
    let mut metadata =
        Metadata { description: own.unwrap_or_default(), version: version.unwrap_or_default(), ..Metadata::default() };
    for property in fields.object("metadata").map(|object| object.properties.as_slice()).unwrap_or_default() {
        let Some(text) = property.value.as_string_lit() else { continue };
        let field = match property.name.as_str() {
            "description" => &mut metadata.description,
            "version" => &mut metadata.version,
            "reason" => &mut metadata.reason,
            "circuit" => &mut metadata.circuit,
            _ => continue,
        };
        *field = text.value.clone().into_owned();
    }
    metadata
}

fn target(fields: &mut Fields, variables: Variables) -> Option<Target> {
    let transport = transport(fields);
    let url = one_of(fields, &["url", "httpUrl", "serverUrl"]);
    let script = fields.text("script_path");
    let command = command(fields);
    let args = fields.texts("args").unwrap_or_default();
    let env = fields.words("env");
    let cwd = fields.text("cwd");
    let program = match (url, script, command) {
        (Some(url), None, None) => {
            if !args.is_empty() || !env.is_empty() || cwd.is_some() {
                fields.problem("args, env, cwd", "only for command or script_path");
            }
            if transport == Some(Transport::Stdio) {
                fields.problem("type", "\"stdio\" goes with a command, not with a url");
            }
            return remote(fields, url, variables);
        }
        (None, Some(script), None) if !script.trim().is_empty() => vec![script],
        (None, None, Some(command)) if command.first().is_some_and(|program| !program.trim().is_empty()) => command,
        _ => {
            fields.problem("url, script_path, command", "set exactly one of them");
            return None;
        }
    };
    if transport == Some(Transport::Http) {
        fields.problem("type", "\"http\" goes with a url, not with a command");
    }
    let mut expanded = |field: &str, text: &str| {
        expand(text, variables).unwrap_or_else(|problem| {
            fields.problem(field, problem);
            String::new()
        })
    };
    let mut words = program.iter().map(|word| expanded("command", word)).collect::<Vec<_>>().into_iter();
    let program = words.next().unwrap_or_default();
    let args = words.chain(args.iter().enumerate().map(|(index, arg)| expanded(&format!("args[{index}]"), arg)));
    let args = args.collect::<Vec<_>>();
    let value = |(name, value): (&str, Option<&str>)| {
        (name.to_owned(), value.map(|value| Hidden::new(expanded(&format!("env.{name}"), value))))
    };
    let env: Vec<_> = env.into_iter().map(value).collect();
    let cwd = cwd.map(|cwd| PathBuf::from(expanded("cwd", cwd)));
    for (name, _) in &env {
        if name.is_empty() || name.contains(['=', '\0']) {
            fields.problem("env", format!("{name:?} cannot be the name of a variable"));
        }
    }
    Some(Target::Command(Launch { program, args, env, cwd }))
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Transport {
    Stdio,
    Http,
}

fn transport(fields: &mut Fields) -> Option<Transport> {
    let mut found = None;
    for field in ["type", "transport", "transportType"] {
        let Some(text) = fields.text(field) else { continue };
        let plain: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        found = match plain.as_str() {
            "stdio" | "local" | "command" => Some(Transport::Stdio),
            "http" | "streamablehttp" | "streamable" | "remote" => Some(Transport::Http),
            "sse" => {
                fields.problem(
                    field,
                    "the transport \"sse\" is not spoken here; give the server's streamable HTTP url, and \"http\"",
                );
                None
            }
            _ => {
                fields.problem(field, format!("{text:?} is not known; \"stdio\" and \"http\" are"));
                None
            }
        };
    }
    found
}

/// The one of several names for the same that is set.
fn one_of<'a>(fields: &mut Fields<'a>, names: &[&str]) -> Option<&'a str> {
    let found: Vec<_> = names.iter().filter_map(|name| fields.text(name)).collect();
    if found.len() > 1 {
        fields.problem(&names.join(", "), "set exactly one of them");
    }
    found.first().copied()
}

/// A program, or a program and its first arguments in one array.
fn command<'a>(fields: &mut Fields<'a>) -> Option<Vec<&'a str>> {
    match fields.take("command")? {
        Value::StringLit(text) => Some(vec![&text.value]),
        Value::Array(array) if array.elements.iter().all(|word| word.as_string_lit().is_some()) => {
            Some(array.elements.iter().filter_map(|word| Some(&*word.as_string_lit()?.value)).collect())
        }
        other => {
            fields.problem("command", format!("must be a string, not {}", kind(other)));
            Some(vec!["-"])
        }
    }
}

fn remote(fields: &mut Fields, url: &str, variables: Variables) -> Option<Target> {
    match expand(url, variables) {
        Ok(url) => {
            let parsed = url::Url::parse(url.trim()).ok();
            if parsed.is_none_or(|url| !matches!(url.scheme(), "http" | "https") || !url.has_host()) {
                fields.problem("url", NO_URL);
            }
            Some(Target::Url(url.trim().to_owned()))
        }
        Err(problem) => {
            fields.problem("url", problem);
            None
        }
    }
}

fn headers(fields: &mut Fields, variables: Variables) -> Vec<(String, Hidden)> {
    let mut headers = Vec::new();
    for field in ["headers", "http_headers"] {
        for (name, value) in fields.words(field) {
            let Some(value) = value else { continue };
            // People write what other programs need; we send our own.
            if is_ours(name) {
                continue;
            }
            let at = format!("{field}.{name}");
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                fields.problem(&at, "this cannot be the name of a header");
            }
            match expand(value, variables) {
                Ok(value) if http::HeaderValue::from_str(value.trim()).is_ok() => {
                    headers.push((name.to_owned(), Hidden::new(value.trim())));
                }
                Ok(_) => fields.problem(&at, "its value cannot be that of a header"),
                Err(problem) => fields.problem(&at, problem),
            }
        }
    }
    headers
}

/// Whether a header is of HTTP or MCP itself. A host of another name is somebody's wish.
fn is_ours(name: &str) -> bool {
    is_of_every_request(name) && !name.eq_ignore_ascii_case("host")
}

/// Headers whose values stand in files.
fn headers_from(fields: &mut Fields) -> Vec<(String, PathBuf)> {
    let mut headers = Vec::new();
    for (index, value) in fields.array("headers_from").unwrap_or_default().iter().enumerate() {
        let at = format!("headers_from[{index}]");
        let Some(object) = value.as_object() else {
            fields.problem(&at, format!("must be an object, not {}", kind(value)));
            continue;
        };
        let mut inner = Fields::new(object);
        let (name, file) = (inner.text("name"), inner.text("file"));
        let odd: Vec<_> = inner.left().collect();
        for field in odd {
            inner.problem(field, "this field is not understood; name and file are");
        }
        if name.is_some_and(is_ours) {
            inner.problem("name", "must not be a header of HTTP or MCP itself, which every request has");
        }
        if inner.problems.is_empty() && (name.is_none() || file.is_none()) {
            inner.problem("name, file", "set both of them");
        }
        fields.problems.extend(inner.problems.into_iter().map(|problem| format!("{at}.{problem}")));
        headers.extend(name.zip(file).map(|(name, file)| (name.to_owned(), PathBuf::from(file))));
    }
    headers
}

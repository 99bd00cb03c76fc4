//! From an entry to a manifest, with the command that makes its Secret, and what could not be carried over. Pure.

use std::collections::{BTreeMap, BTreeSet};

use mcp_stdio::package::{self, Registry};
use serde_json::{Map, Value, json};

use super::{
    address,
    arguments::{self, Argument},
    command::{self, Image, Launch},
    file::{Entry, Input},
    header,
    labels::{dns_label, unique},
    secret,
    values::{self, Kept},
    yaml,
};

/// What stands for a command that an image has and we do not know.
const UNKNOWN_COMMAND: &str = "/REPLACE/with-the-entrypoint-of-the-image";

/// What the API takes of a description.
const LONGEST_DESCRIPTION: usize = 2_048;

/// A server, as it is to be applied.
#[derive(Debug)]
pub struct Manifest {
    /// Its name in the cluster.
    pub name: String,
    /// The spec. None: there is none for it.
    pub spec: Option<Value>,
    /// The keys of its Secret.
    pub secrets: BTreeSet<String>,
    /// What could not be carried over, or wants a look.
    pub notes: Vec<String>,
}

/// The manifest of the entry. `taken` are the names that others have.
pub fn build(entry: &Entry, inputs: &BTreeMap<String, Input>, taken: &BTreeSet<String>) -> Manifest {
    let name = unique(&dns_label(entry.shown_name()), taken);
    let mut making = Making {
        secret: format!("{name}-credentials"),
        inputs,
        env: Map::new(),
        secrets: BTreeSet::new(),
        notes: entry.notes.clone(),
    };
    let (given, command) = command::variables(&entry.command);
    let launch = match &entry.url {
        Some(url) => Launch::Remote { url: url.clone(), headers: entry.headers.clone().into_iter().collect() },
        None => command::read(command),
    };
    for (variable, value) in entry.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(given) {
        // Of docker's the variables that it does not name stay outside.
        let passed = match &launch {
            Launch::Image(image) => image.env.iter().any(|(name, given)| name == variable && given.is_none()),
            Launch::Package(..) if values::is_of_one_machine(variable) => {
                making.notes.push(format!("{variable}: it says where things are on this machine, and is left out"));
                false
            }
            Launch::Package(..) => true,
            // There is nothing that would read them.
            Launch::Remote { .. } | Launch::Local(_) => false,
        };
        if passed {
            making.variable(variable, value);
        }
    }
    let mut spec = match launch {
        Launch::Package(registry, args) => Some(making.package(registry, &args)),
        Launch::Image(image) => Some(making.image(*image)),
        Launch::Remote { url, headers } => making.remote(&url, &headers),
        Launch::Local(why) => {
            making.notes.insert(0, why);
            None
        }
    };
    if let Some(Value::Object(spec)) = &mut spec {
        if let Some(words) = &entry.description {
            if secret::is_secret("", words) {
                making.notes.push("description: it seems to hold a credential, and is left out".to_owned());
            } else {
                spec.insert("description".into(), words.chars().take(LONGEST_DESCRIPTION).collect::<String>().into());
            }
        }
        if let Some(seconds) = entry.timeout_seconds {
            spec.insert("timeoutSeconds".into(), json!(seconds));
        }
        if entry.disabled {
            spec.insert("enabled".into(), json!(false));
        }
        if !making.env.is_empty() && !spec.contains_key("remote") {
            spec.insert("env".into(), making.env.values().cloned().collect());
        }
    }
    let secrets = if spec.is_some() { making.secrets } else { BTreeSet::new() };
    Manifest { name, spec, secrets, notes: making.notes }
}

/// What an entry has become so far.
struct Making<'a> {
    secret: String,
    inputs: &'a BTreeMap<String, Input>,
    env: Map<String, Value>,
    secrets: BTreeSet<String>,
    notes: Vec<String>,
}

impl Making<'_> {
    /// A reference to a key of the Secret, which has it from now on.
    fn reference(&mut self, key: &str) -> Value {
        let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect();
        self.secrets.insert(key.clone());
        json!({"name": self.secret, "key": key})
    }

    fn variable(&mut self, name: &str, value: &str) {
        if name.is_empty() || name.contains('=') || secret::is_secret("", name) {
            self.notes.push("a variable has no name that one can have, and is left out".to_owned());
            return;
        }
        let variable = match values::keep(name, value, self.inputs) {
            Kept::Plain(value) => {
                self.look_at(name, name, &value);
                if let Some(folder) = values::is_of_the_image(&value) {
                    self.notes.push(format!(
                        "{name} {value}: in a pod this is a path of the image, where nothing can be written; if the server writes it, add to its spec `storage: {{size: 1Gi, mountPath: {folder}}}`"
                    ));
                }
                // A reference to another variable is one to Kubernetes alone.
                json!({"name": name, "value": value.replace("$(", "$$(")})
            }
            Kept::Secret => json!({"name": name, "valueFrom": {"secretKeyRef": self.reference(name)}}),
        };
        self.env.insert(name.to_owned(), variable);
    }

    /// What is of this machine will not be found in a cluster. `called`: what says what the value is.
    fn look_at(&mut self, name: &str, called: &str, value: &str) {
        if address::is_of_this_machine(value) {
            self.notes
                .push(format!("{name} {value}: in a cluster this leads to the pod itself; name the Service of what is meant"));
        }
        if values::is_a_file_with_a_secret(called, value) || values::is_a_file_of_credentials(value) {
            self.notes.push(format!(
                "{name} {value}: this file is not in a cluster; make a Secret of it, mount that by spec.volumes and volumeMounts, and name its path there"
            ));
        } else if values::is_of_a_desktop(value) {
            self.notes.push(format!(
                "{name} {value}: this folder is not in a cluster; give the server spec.storage (or spec.volumes and volumeMounts), and name its mountPath here"
            ));
        }
    }

    /// Arguments whose secrets are variables out of the Secret: Kubernetes puts `$(NAME)` in.
    fn arguments(&mut self, args: &[String]) -> Vec<String> {
        let read = arguments::read(args, self.inputs).into_iter();
        read.map(|argument| match argument {
            Argument::Plain { prefix, called, value } => {
                self.look_at("argument", &called, &value);
                format!("{prefix}{value}").replace("$(", "$$(")
            }
            Argument::Secret { prefix, name } => {
                let variable = self.variable_for(&name);
                let reference = self.reference(&variable);
                self.env.insert(variable.clone(), json!({"name": variable, "valueFrom": {"secretKeyRef": reference}}));
                format!("{prefix}$({variable})")
            }
        })
        .collect()
    }

    /// A variable for the secret of this flag, that there is none of yet.
    fn variable_for(&self, flag: &str) -> String {
        let words = flag.trim_start_matches('-').to_ascii_uppercase();
        let words: String = words.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let base = if words.starts_with(|c: char| c.is_ascii_alphabetic()) { words } else { "ARGUMENT".to_owned() };
        let other = |number: usize| if number == 1 { base.clone() } else { format!("{base}_{number}") };
        // One of so many is free.
        (1..=self.env.len() + 1).map(other).find(|name| !self.env.contains_key(name)).unwrap_or_default()
    }

    fn package(&mut self, registry: Registry, args: &[String]) -> Value {
        let command = if registry == Registry::Npm { "npx" } else { "uvx" };
        if let Ok(wanted) = package::wanted(registry, args)
            && !wanted.is_pinned()
        {
            let shown = wanted.packages().map(|package| secret::shown("", package));
            let named = shown.collect::<Vec<_>>().join(", ");
            self.notes.push(format!("{named} names no one version, so that each new pod installs the newest: pin it"));
        }
        json!({"stdio": {"command": command, "args": self.arguments(args)}})
    }

    fn image(&mut self, image: Image) -> Value {
        let Image { name: image, entrypoint, args, env, data, notes } = image;
        self.notes.extend(notes);
        for (name, value) in env {
            match value {
                Some(value) => self.variable(&name, &value),
                // Of the machine's own environment: nothing is known of it.
                None if !self.env.contains_key(&name) => {
                    let reference = self.reference(&name);
                    self.env.insert(name.clone(), json!({"name": name, "valueFrom": {"secretKeyRef": reference}}));
                }
                None => {}
            }
        }
        // One word, and no secret in it: the API takes no other.
        let entrypoint = entrypoint.filter(|command| !command.contains(char::is_whitespace) && !secret::is_secret("", command));
        let command = entrypoint.unwrap_or_else(|| {
            self.notes.push(format!(
                "the command of the image is not known here: put the first word of its entrypoint into spec.stdio.command, and the others before args; docker image inspect --format '{{{{json .Config.Entrypoint}}}} {{{{json .Config.Cmd}}}}' {image} tells them"
            ));
            UNKNOWN_COMMAND.to_owned()
        });
        let mut stdio = json!({"image": image, "command": command});
        let args = self.arguments(&args);
        if !args.is_empty() {
            stdio["args"] = json!(args);
        }
        let mut spec = json!({"stdio": stdio});
        if let Some(path) = data {
            self.notes.push(format!("the volume at {path} is new and empty"));
            spec["storage"] = json!({"size": "1Gi", "mountPath": path});
        }
        spec
    }

    fn remote(&mut self, url: &str, headers: &[(String, String)]) -> Option<Value> {
        let Kept::Plain(url) = values::keep("url", url, self.inputs) else {
            self.notes.insert(0, "its url holds a credential, or a value that is asked for: write it without, and give the credential as a header (spec.remote.headersFrom)".to_owned());
            return None;
        };
        if !address::is_of_a_server(&url) {
            self.notes.insert(
                0,
                "its url is none of a remote server: http:// or https:// with a host, and without a fragment".to_owned(),
            );
            return None;
        }
        if address::is_of_this_machine(&url) {
            self.notes.insert(0, "its url leads to this machine, which is another one in a cluster: run the server there, by spec.container or spec.stdio, or name a host that pods reach".to_owned());
            return None;
        }
        if url.trim_end_matches('/').ends_with("/sse") {
            self.notes.push("its url looks like the old transport, sse, which is not spoken: most servers offer streamable HTTP, too, at a path that ends in /mcp".to_owned());
        }
        let headers = self.headers(headers);
        if headers.is_empty() {
            self.notes.push(
                "no header is known: where the server asks who is there, give credentials in spec.remote.headersFrom".to_owned(),
            );
        }
        let mut remote = json!({"url": url});
        if !headers.is_empty() {
            remote["headersFrom"] = json!(headers);
        }
        Some(json!({"remote": remote}))
    }

    /// Those that the API takes, by reference. Of the others it is told.
    fn headers(&mut self, headers: &[(String, String)]) -> Vec<Value> {
        let (mut from, mut named) = (Vec::new(), BTreeSet::new());
        for (name, _) in headers {
            if let Some(why) = header::refused(name) {
                let name = secret::shown("", name);
                self.notes.push(format!("header {name}: {why}"));
            } else if named.insert(name.to_ascii_lowercase()) {
                from.push(json!({"name": name, "secretKeyRef": self.reference(name)}));
            } else {
                self.notes.push(format!("header {name}: it is named twice, and left out here"));
            }
        }
        from
    }
}

impl Manifest {
    /// The manifest as a YAML document, with what a person has to know before it as comments.
    pub fn to_yaml(&self, entry: &str) -> String {
        let mut lines = vec![comment(entry)];
        lines.extend(self.notes.iter().map(|note| comment(&format!("- {note}"))));
        if !self.secrets.is_empty() {
            lines.push("# Its credentials are not in here. Put them where the placeholders are:".to_owned());
            lines.push(format!("#   kubectl create secret generic {}-credentials {}", self.name, self.literals().join(" ")));
        }
        if self.spec.is_none() {
            lines.push("# No manifest is made for it.".to_owned());
        }
        let mut text = lines.join("\n") + "\n";
        if let Some(spec) = &self.spec {
            let head = json!({"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "metadata": {"name": self.name}});
            text += &yaml::write(&head);
            text += &yaml::write(&json!({"spec": spec}));
        }
        text
    }

    /// For each key of its Secret what `kubectl create secret` is told.
    fn literals(&self) -> Vec<String> {
        // A header's value is there as a whole.
        let scheme = |key: &str| if key.eq_ignore_ascii_case("authorization") { "Bearer " } else { "" };
        self.secrets.iter().map(|key| format!("--from-literal={key}='{}REPLACE'", scheme(key))).collect()
    }
}

/// On one line, with the sign before it.
fn comment(text: &str) -> String {
    format!("# {}", one_line(text))
}

/// Without what a reader of YAML or a terminal takes for more than a letter.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || yaml::BREAKS.contains(&c) { ' ' } else { c }).collect()
}

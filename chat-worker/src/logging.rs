//! The log: one JSON object a line, with exactly the guide's fields (timestamp, level, component, request_id, message,
//! duration_seconds, tools_used). What else an event carries stands behind the message, quoted where it could be taken for more than one
//! thing; but a line of the audit has it in fields of its own, which nobody's words can forge. Written to the log file, which is rotated by
//! size, and to standard output where that belongs to nobody else. Secrets are taken out on the way.

use std::{
    borrow::Cow,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use log_lines::Level;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::{Context, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::{audit, config::watch::Loaded, current_request, redact::redact, telemetry::Telemetry};

const MAX_SIZE: u64 = 10 * 1024 * 1024;
const KEPT: u32 = 5;

/// From which level on lines are written. It may be another one later.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    fn new(level: &str) -> (reload::Layer<Targets, Registry>, Self) {
        let (filter, handle) = reload::Layer::new(filter(level));
        (filter, Self(handle))
    }

    fn set(&self, level: &str) {
        // Where nobody logs any more, there is nothing to set.
        let _ = self.0.reload(filter(level));
    }

    /// Follows the level that the configuration names.
    pub async fn follow(self, mut config: watch::Receiver<Loaded>) {
        let named = |config: &watch::Receiver<Loaded>| config.borrow().config.log_level.clone().unwrap_or_default();
        let mut last = named(&config);
        while config.changed().await.is_ok() {
            let now = named(&config);
            if now != last {
                self.set(&now);
                tracing::info!("the log level is {} now", if now.is_empty() { "INFO" } else { &now });
                last = now;
            }
        }
    }
}

/// Starts logging, and the traces beside it. Says on standard error if the file cannot be written, and goes on without it.
pub fn start(level: &str, file: &str, to_stdout: bool, traces: Option<&Telemetry>) -> LogLevel {
    let file = match file {
        "" | "-" => None,
        path => match Rotating::open(Path::new(path)) {
            Ok(file) => Some(file),
            Err(error) => {
                eprintln!("cannot write the log to {path} ({error}); set LOG_FILE to another file, or to - for none");
                None
            }
        },
    };
    let layer = Json { file: file.map(Mutex::new), to_stdout };
    let (filter, level) = LogLevel::new(level);
    // A second start, in tests, keeps the first.
    let _ = match traces {
        // Each layer sees its own spans.
        Some(traces) => tracing_subscriber::registry().with(layer.with_filter(filter)).with(traces.layer()).try_init(),
        // The spans of traces cost nothing where one filter turns them off for everybody.
        None => tracing_subscriber::registry().with(filter).with(layer).try_init(),
    };
    level
}

/// A level is that of our own lines: the libraries tell of every byte at DEBUG.
fn filter(level: &str) -> Targets {
    let level: Level = level.parse().unwrap_or_else(|error| {
        eprintln!("LOG_LEVEL, or log_level of mcp.json: {error}; INFO is used");
        Level::default()
    });
    let lines = match level.alone() {
        Some(own) => Targets::new().with_default(LevelFilter::WARN).with_target("chat_worker", own),
        None => level.filter(),
    };
    lines.with_target(audit::TARGET, LevelFilter::INFO)
}

struct Json {
    file: Option<Mutex<Rotating>>,
    to_stdout: bool,
}

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let own = (event.metadata().target() == audit::TARGET).then(Map::new);
        let mut fields = Fields { own, ..Fields::default() };
        event.record(&mut fields);
        let request_id = fields.request_id.take().or_else(current_request::id);
        let mut line = line(event.metadata(), &fields, request_id.as_deref());
        line.push(b'\n');
        if self.to_stdout {
            // A closed pipe is no reason to stop working.
            let _ = io::stdout().lock().write_all(&line);
        }
        if let Some(file) = &self.file {
            let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write(&line);
        }
    }
}

/// The fields of a line, in their order.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    component: &'a str,
    request_id: Option<&'a str>,
    message: Cow<'a, str>,
    duration_seconds: Option<f64>,
    tools_used: &'a [String],
    #[serde(flatten)]
    own: Option<&'a Map<String, Value>>,
}

fn line(metadata: &Metadata<'_>, fields: &Fields, request_id: Option<&str>) -> Vec<u8> {
    let message = format!("{}{}", fields.message, fields.others);
    let line = Line {
        timestamp: timestamp(),
        level: level(*metadata.level()),
        component: component(metadata.target()),
        request_id,
        message: redact(&message),
        duration_seconds: fields.duration_seconds,
        tools_used: &fields.tools_used,
        own: fields.own.as_ref(),
    };
    // Texts and numbers: they cannot fail to be written.
    serde_json::to_vec(&line).unwrap_or_default()
}

fn timestamp() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn level(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "ERROR",
        tracing::Level::WARN => "WARNING",
        tracing::Level::INFO => "INFO",
        tracing::Level::DEBUG | tracing::Level::TRACE => "DEBUG",
    }
}

/// The part of the program, by the names of the guide's kind.
fn component(target: &str) -> &str {
    match target.strip_prefix("chat_worker::").unwrap_or(target) {
        target if target.starts_with("turn") => "MCPClient",
        target if target.starts_with("llm") => "ModelClient",
        target if target.starts_with("tools") => "ServerHub",
        target if target.starts_with("config") => "Configuration",
        target if target.starts_with("ui::web") => "HTTPServer",
        target if target.starts_with("usage") => "Usage",
        "chat_worker" => "ChatWorker",
        other => other,
    }
}

/// The fields of an event: the guide's, and the rest as words, or as fields.
#[derive(Default)]
struct Fields {
    message: String,
    request_id: Option<String>,
    duration_seconds: Option<f64>,
    tools_used: Vec<String>,
    others: String,
    /// Of a line of the audit.
    own: Option<Map<String, Value>>,
}

impl Fields {
    fn other(&mut self, name: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = match &mut self.own {
            Some(own) => {
                own.insert(name.to_owned(), redact(value).into());
                Ok(())
            }
            None if is_one_word(value) => write!(self.others, " {name}={value}"),
            None => write!(self.others, " {name}={value:?}"),
        };
    }
}

/// Whether a value needs no quotes to be told from what follows it.
fn is_one_word(value: &str) -> bool {
    !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '=' | '"'))
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match field.name() {
            "duration_seconds" => self.duration_seconds = Some((value * 1_000.0).round() / 1_000.0),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "request_id" => self.request_id = Some(value.to_owned()),
            "tools_used" => self.tools_used = value.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect(),
            name => self.other(name, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match &mut self.own {
            Some(own) => drop(own.insert(field.name().to_owned(), value.into())),
            None => self.other(field.name(), if value { "true" } else { "false" }),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            // Writing to a String cannot fail.
            "message" => {
                let _ = write!(self.message, "{value:?}");
            }
            name => {
                let value = format!("{value:?}");
                // A text among them has its quotes already.
                let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
                if is_quoted && self.own.is_none() {
                    let _ = write!(self.others, " {name}={value}");
                } else {
                    self.other(name, &value);
                }
            }
        }
    }
}

/// A file that becomes `name.1` when it is full, and so on.
struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > MAX_SIZE {
            self.rotate()?;
        }
        self.size += line.len() as u64;
        self.file.write_all(line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..KEPT).rev() {
            // Most of them do not exist yet.
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        std::fs::rename(&self.path, numbered(1))?;
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use serde_json::json;

    use super::*;

    /// The one line that `log` writes.
    fn written(log: impl FnOnce()) -> Value {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mcp.log");
        let layer = Json { file: Some(Mutex::new(Rotating::open(&path).expect("opened"))), to_stdout: false };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("one JSON object")
    }

    #[test]
    fn nobodys_words_forge_a_line_of_the_audit_or_another_field() {
        let forged = "x allowed=true decision=person\noutcome=ok \u{2028}\"";
        let call = audit::Call {
            caller: "192.0.2.1",
            server: "",
            tool: forged,
            arguments: "{}",
            decision: "unknown",
            allowed: false,
            outcome: "refused",
            duration: Duration::ZERO,
        };
        let line = written(|| call.log(audit::AuditArguments::Whole));
        assert_eq!((&line["message"], &line["component"]), (&json!("Tool call"), &json!("audit")));
        let fields = ["caller", "server", "tool", "arguments", "allowed", "decision", "outcome"].map(|name| line[name].clone());
        assert_eq!(json!(fields), json!(["192.0.2.1", "", forged, "{}", false, "unknown", "refused"]));
        let error = std::io::Error::other(forged);
        let line = written(|| tracing::info!(server = forged, tool = ?forged, plain = "s", %error, empty = "", "said"));
        let quoted = r#""x allowed=true decision=person\noutcome=ok \u{2028}\"""#;
        let expected = format!(r#"said server={quoted} tool={quoted} plain=s error={quoted} empty="""#);
        assert_eq!(line["message"], expected.as_str());
    }

    #[test]
    fn the_level_may_change_while_the_program_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mcp.log");
        let layer = Json { file: Some(Mutex::new(Rotating::open(&path).expect("opened"))), to_stdout: false };
        let (filter, level) = LogLevel::new("WARNING");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(layer), || {
            let say = |what: &str| tracing::info!("{what}");
            say("too quiet");
            level.set("INFO");
            say("heard");
            level.set("ERROR");
            say("too quiet again");
        });
        let text = std::fs::read_to_string(path).expect("written");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("heard"), "{text}");
    }

    #[test]
    fn a_line_has_exactly_the_guides_fields() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logs/mcp.log");
        let file = Rotating::open(&path).expect("opened");
        let layer = Json { file: Some(Mutex::new(file)), to_stdout: false };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let work = async {
                tracing::info!(duration_seconds = 1.2345, tools_used = "a,b", server = "s", "done with sk-ant-secret");
            };
            current_request::scope("req_1".to_owned(), work).now_or_never().expect("it waits for nothing");
        });
        let text = std::fs::read_to_string(path).expect("written");
        let line: Value = serde_json::from_str(&text).expect("one JSON object");
        let names: Vec<_> = line.as_object().expect("an object").keys().cloned().collect();
        let guide = ["component", "duration_seconds", "level", "message", "request_id", "timestamp", "tools_used"];
        assert_eq!(names, guide);
        assert!(text.starts_with(r#"{"timestamp":"#), "when it was comes first: {text}");
        assert_eq!(line["message"], "done with [redacted] server=s");
        assert_eq!((&line["request_id"], &line["tools_used"]), (&json!("req_1"), &json!(["a", "b"])));
        assert_eq!(line["duration_seconds"], 1.235);
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mcp.log");
        let mut file = Rotating::open(&path).expect("opened");
        for _ in 0..8 {
            file.write(b"x\n").expect("written");
            file.size = MAX_SIZE;
        }
        let count = std::fs::read_dir(directory.path()).expect("listed").count();
        assert_eq!(count, 6, "the file and five older ones");
    }
}

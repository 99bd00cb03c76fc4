//! The log of every program of ours: which of its lines are written, and how. One JSON object a line; as text, and in colours at a terminal,
//! where somebody asked for that. (The chat worker writes its lines itself, with the fields that its guide names; which of them are written is
//! said here, too.)

use std::{
    fmt,
    io::{self, IsTerminal as _},
    str::FromStr,
};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::writer::BoxMakeWriter,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

const NAMES: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// Which lines are written: those from a level on, or those that a filter lets through, a level for each module
/// ([`Targets`]: what asks for fields of spans would have every program carry an engine of regular expressions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

/// What is no level, and no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no level: use DEBUG, INFO, WARNING or ERROR, or a filter such as info,rmcp=warn")]
pub struct Unknown(String);

impl FromStr for Level {
    type Err = Unknown;

    /// Levels have the names that people know from their programs, in any case of letters; nothing at all is INFO.
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let text = text.trim();
        let name = match text.to_ascii_lowercase().as_str() {
            "" => "info".to_owned(),
            "warning" => "warn".to_owned(),
            "critical" | "fatal" => "error".to_owned(),
            other => other.to_owned(),
        };
        if NAMES.contains(&&*name) {
            return Ok(Self(name));
        }
        // A word alone would be the name of a module, of which everything is written: it is a level that was misspelt.
        let is_filter = text.contains('=') && text.parse::<Targets>().is_ok();
        if is_filter { Ok(Self(text.to_owned())) } else { Err(Unknown(text.to_owned())) }
    }
}

impl Level {
    /// The level alone; `None` for a filter, which says more.
    pub fn alone(&self) -> Option<LevelFilter> {
        self.0.parse().ok()
    }

    /// As a filter. Of the crates that send traces it lets nothing through beyond INFO, whoever asks for it.
    ///
    /// # Panics
    /// Never: what is no filter is no level.
    pub fn filter(&self) -> Targets {
        let asked: Targets = self.0.parse().expect("it was parsed when it came in");
        let most = |level: LevelFilter| level.min(LevelFilter::INFO);
        let by_name = asked.iter().filter(|(target, _)| target.starts_with(SENDERS_OF_TRACES));
        let by_name: Vec<_> = by_name.map(|(target, level)| (target.to_owned(), most(level))).collect();
        let others = most(asked.default_level().unwrap_or(LevelFilter::OFF));
        asked.with_target(SENDERS_OF_TRACES, others).with_targets(by_name)
    }
}

impl Default for Level {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The flags by which a program is told of its log. (A bridge stands among the variables of its server, which may mean something else by them:
/// it has the level alone.)
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Least severe message to log: ERROR, WARNING, INFO or DEBUG, or a filter such as info,rmcp=warn.
    #[arg(long, global = true, env = "LOG_LEVEL", default_value = "INFO")]
    pub log_level: Level,
    /// How a message is written.
    #[arg(long, global = true, env = "LOG_FORMAT", value_enum, default_value_t = Format::Json)]
    pub log_format: Format,
}

impl Flags {
    /// Writes from now on what they let through.
    pub fn start(&self, to: To) {
        start(self.log_level.filter(), self.log_format, to);
    }
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Stdout,
    /// Where standard output is for something else.
    Stderr,
}

/// The crates that send traces: at DEBUG they write the collector's address as it was given, and a password may stand in it.
const SENDERS_OF_TRACES: &str = "opentelemetry";

/// Writes from now on what the filter lets through.
pub fn start(filter: Targets, format: Format, to: To) {
    let (writer, is_terminal) = match to {
        To::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
        To::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
    };
    let lines = tracing_subscriber::fmt::layer().with_ansi(is_terminal).with_writer(writer);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).init(),
        Format::Text => registry.with(lines).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_senders_of_traces_do_not_tell_where_they_send() {
        let written = |level: &str, target: &str, of: LevelFilter| {
            let filter = level.parse::<Level>().expect("a level").filter();
            filter.would_enable(target, &of.into_level().expect("not off"))
        };
        for level in
            ["DEBUG", "trace", "debug,hyper=warn", "info,opentelemetry=trace", "opentelemetry-otlp=debug,opentelemetry_sdk=trace"]
        {
            for target in ["opentelemetry", "opentelemetry-otlp", "opentelemetry_sdk"] {
                assert!(!written(level, target, LevelFilter::DEBUG), "{target} by {level}");
            }
        }
        assert!(written("debug", "opentelemetry-otlp", LevelFilter::INFO) && written("debug", "bridge", LevelFilter::DEBUG));
        assert!(!written("debug,opentelemetry=off", "opentelemetry-otlp", LevelFilter::ERROR), "who wants less gets less");
    }

    #[test]
    fn levels_have_the_names_that_people_know() {
        for (text, level) in [
            ("INFO", LevelFilter::INFO),
            ("warning", LevelFilter::WARN),
            (" Warn ", LevelFilter::WARN),
            ("CRITICAL", LevelFilter::ERROR),
            ("Debug", LevelFilter::DEBUG),
            ("off", LevelFilter::OFF),
            ("", LevelFilter::INFO),
        ] {
            assert_eq!(text.parse::<Level>().map(|level| level.alone()), Ok(Some(level)), "{text}");
        }
        let filter: Level = "warn,chat_worker::Turn=debug".parse().expect("a filter");
        assert_eq!((filter.alone(), filter.to_string().as_str()), (None, "warn,chat_worker::Turn=debug"));
        for odd in ["loud", "INFOS", "chat_worker", "a=loud", "5 levels", "a[b=]=info=x"] {
            let told = odd.parse::<Level>().expect_err(odd).to_string();
            assert!(told.contains(odd) && told.contains("WARNING"), "{told}");
        }
    }
}

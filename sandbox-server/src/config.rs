//! Flags and environment, read once. What they mean to the parts is in those parts' settings.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use http_server::forwarded;
use ipnet::IpNet;

use crate::db::authorizer::SchemaMode;
use crate::db::backup::Compression;
use crate::db::backup::place::Place;
use crate::db::limits::Limits;
use crate::db::open::OpenOptions;
use crate::http::host::{AllowedOrigin, HostPattern};

/// SQLite over MCP, safe in front of a model.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110, after_help = format!("{TRACES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged, and how. It goes to standard error.
    #[command(flatten)]
    pub log: log_lines::Flags,
}

const TRACES: &str = "Traces are sent by OTLP over HTTP when OTEL_EXPORTER_OTLP_ENDPOINT, such as http://collector:4318, is set.";
const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the database could not be opened; 4 the address could not be bound; 5 the token file could not be read.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve MCP over streamable HTTP at /mcp, with /healthz, /readyz and /metrics beside it.
    Serve(ServeArgs),
    /// Serve MCP over standard input and output, for one client.
    Stdio(DatabaseArgs),
    /// Copy a database, in use or not, to a file that appears only when it is whole and verified.
    Backup(BackupArgs),
    /// Put a backup in the place of a database, after verifying it. The server must be stopped.
    Restore(RestoreArgs),
}

/// The database and its caps.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// The database file. It is created when its folder is there.
    #[arg(long, env = "SANDBOX_DB", value_name = "FILE")]
    pub db: PathBuf,
    /// Offer only tools that read, and open the file so that it cannot be written.
    #[arg(long, env = "SANDBOX_READ_ONLY")]
    pub read_only: bool,
    /// End with an error where there is no database, instead of creating one.
    #[arg(long, env = "SANDBOX_NO_CREATE")]
    pub no_create: bool,
    /// What callers may do to the schema: nothing; create tables, indexes and views; or all that stays within the database, DROP, ALTER,
    /// triggers, ANALYZE and VACUUM included.
    #[arg(long, env = "SANDBOX_SCHEMA", value_name = "HOW", value_enum, default_value_t)]
    pub schema: SchemaMode,
    /// Bytes that the database file may grow to. What would make it larger is refused. Default: no limit but the disk's.
    #[arg(long, env = "SANDBOX_MAX_DB_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(MIN_DB_BYTES..))]
    pub max_db_bytes: Option<u64>,
    /// Threads that read. Default: one a processor, at least 2, at most 16.
    #[arg(long, env = "SANDBOX_READERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub readers: Option<u16>,
    /// Time for one statement in milliseconds, waiting included.
    #[arg(long, env = "SANDBOX_STATEMENT_TIMEOUT_MS", value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub statement_timeout_ms: u64,
    /// Rows in one result; the rest comes in further pages.
    #[arg(long, env = "SANDBOX_MAX_ROWS", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_rows: u32,
    /// Bytes of rows in one result.
    #[arg(long, env = "SANDBOX_MAX_RESULT_BYTES", value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1024..=67_108_864))]
    pub max_result_bytes: u32,
    /// Bytes of one value or row inside the database.
    #[arg(long, env = "SANDBOX_MAX_VALUE_BYTES", value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(1024..=268_435_456))]
    pub max_value_bytes: u32,
    /// Bytes of the text of one statement.
    #[arg(long, env = "SANDBOX_MAX_SQL_BYTES", value_name = "BYTES", default_value_t = 256 << 10, value_parser = clap::value_parser!(u32).range(256..=1_048_576))]
    pub max_sql_bytes: u32,
    /// Log every statement with its outcome and cost, without the values in it.
    #[arg(long, env = "SANDBOX_AUDIT")]
    pub audit: bool,
    /// Memory in bytes that SQLite may take in the whole process. Default: 256 MiB, or half of the container's memory limit where that
    /// is less.
    #[arg(long, env = "SANDBOX_MAX_MEMORY_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(MIN_MEMORY_BYTES..))]
    pub max_memory_bytes: Option<u64>,
}

impl DatabaseArgs {
    /// As the database takes it.
    pub fn options(self) -> OpenOptions {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        OpenOptions {
            path: self.db,
            read_only: self.read_only,
            create: !self.no_create,
            schema: self.schema,
            max_db_bytes: self.max_db_bytes,
            readers: self.readers.map_or_else(|| processors.clamp(2, 16), usize::from),
            limits: Limits {
                statement_timeout: Duration::from_millis(self.statement_timeout_ms),
                max_rows: self.max_rows as usize,
                max_result_bytes: self.max_result_bytes as usize,
                max_value_bytes: self.max_value_bytes as usize,
                max_sql_bytes: self.max_sql_bytes as usize,
                max_memory_bytes: self.max_memory_bytes.unwrap_or_else(|| memory_within(container_memory_limit())),
                ..Limits::default()
            },
        }
    }
}

/// A schema and a few rows.
const MIN_DB_BYTES: u64 = 64 << 10;

/// Below it SQLite cannot do honest work.
const MIN_MEMORY_BYTES: u64 = 16 << 20;

/// SQLite's share of a container's memory limit: the process needs the rest for requests, results and what its allocator holds free.
fn memory_within(container: Option<u64>) -> u64 {
    let usual = Limits::default().max_memory_bytes;
    container.map_or(usual, |limit| usual.min(limit / 2).max(MIN_MEMORY_BYTES))
}

/// In bytes, as the kernel tells the container by cgroup v2 or v1; None: no limit, or no container.
fn container_memory_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// Everything that `backup` takes.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The database file.
    #[arg(long, env = "SANDBOX_DB", value_name = "FILE")]
    pub db: PathBuf,
    /// A file; or a folder that is there, or s3://BUCKET/PREFIX: then the backup is named after the database and the time. A bucket's
    /// endpoint, region and credentials come from AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS's other
    /// variables; a key with _FILE behind its name is read from the file.
    #[arg(long, env = "SANDBOX_BACKUP_TO", value_name = "FILE|FOLDER|S3")]
    pub to: Place,
    /// For a bucket: the folder in which the copy is made and verified before it is sent. Default: that of the database.
    #[arg(long, env = "SANDBOX_BACKUP_SCRATCH", value_name = "FOLDER")]
    pub scratch: Option<PathBuf>,
    /// Write how it went to this file, in Prometheus' text format.
    #[arg(long, env = "SANDBOX_BACKUP_METRICS_FILE", value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How many backups to keep there; the oldest beyond are removed. Default: all.
    #[arg(long, env = "SANDBOX_BACKUP_KEEP", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub keep: Option<u16>,
    /// Compress. Default: not.
    #[arg(long, env = "SANDBOX_BACKUP_COMPRESS", value_name = "HOW")]
    pub compress: Option<Compression>,
    /// The same as --compress gzip.
    #[arg(long, env = "SANDBOX_BACKUP_GZIP", conflicts_with = "compress")]
    pub gzip: bool,
}

/// Everything that `restore` takes.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The database file to write.
    #[arg(long, env = "SANDBOX_DB", value_name = "FILE")]
    pub db: PathBuf,
    /// The backup, compressed or not: a file or s3://BUCKET/PREFIX/NAME. A folder or s3://BUCKET/PREFIX stands for the newest backup of a
    /// database of this name in it.
    #[arg(long, env = "SANDBOX_RESTORE_FROM", value_name = "FILE|FOLDER|S3")]
    pub from: Place,
    /// Where to look for one when there is none.
    #[arg(long, env = "SANDBOX_RESTORE_OR_FROM", value_name = "FILE|FOLDER|S3")]
    pub or_from: Option<Place>,
    /// Do nothing, and succeed, when there is a database.
    #[arg(long, env = "SANDBOX_RESTORE_IF_MISSING", conflicts_with = "force")]
    pub if_missing: bool,
    /// Replace a database that is there. The old file is kept beside it as FILE.before-restore-TIME.
    #[arg(long)]
    pub force: bool,
}

/// Everything that `serve` takes.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Address and port to listen on.
    #[arg(long, env = "SANDBOX_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// A Host header to accept besides IP addresses, localhost, names of one label, *.svc and *.cluster.local: mcp.example.com,
    /// mcp.example.com:8443, *.example.com, or * for all. May be repeated.
    #[arg(long = "allowed-host", env = "SANDBOX_ALLOWED_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub allowed_hosts: Vec<HostPattern>,
    /// An Origin header to accept besides those of localhost, such as https://app.example.com. May be repeated.
    #[arg(long = "allowed-origin", env = "SANDBOX_ALLOWED_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<AllowedOrigin>,
    /// A file of bearer tokens, one a line; each of them is accepted. Read again when it changes. Without it nobody is asked.
    #[arg(long, env = "SANDBOX_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Bytes of one request.
    #[arg(long, env = "SANDBOX_MAX_REQUEST_BYTES", value_name = "BYTES", default_value_t = 2 << 20, value_parser = clap::value_parser!(u32).range(1024..=67_108_864))]
    pub max_request_bytes: u32,
    /// MCP requests that are worked on at once; more get 503, and so does a caller who takes more than half of what others leave.
    #[arg(long, env = "SANDBOX_MAX_REQUESTS", value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_requests: u16,
    /// An address or network of a proxy in front, such as 10.0.0.0/8: whom it names in X-Forwarded-For is the caller. May be repeated.
    #[arg(long = "trusted-proxy", env = "SANDBOX_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',', value_parser = forwarded::network)]
    pub trusted_proxies: Vec<IpNet>,
    /// MCP requests a second from one address, with bursts of as many; more get 429. Default: no limit.
    #[arg(long, env = "SANDBOX_RATE_LIMIT", value_name = "N")]
    pub rate_limit: Option<NonZeroU32>,
    /// Keep a session for each client of the eras before 2026-07-28, so that they can subscribe to changes. A session that is left
    /// behind costs memory for 5 minutes.
    #[arg(long, env = "SANDBOX_LEGACY_SESSIONS")]
    pub legacy_sessions: bool,
    /// Connections that are open at once. For one more, the one that has been without a request for longest is closed.
    #[arg(long, env = "SANDBOX_MAX_CONNECTIONS", value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,
    /// Seconds for which a connection without a request is kept. Balancers and pools keep theirs for 60: it is for them to close it first.
    #[arg(long, env = "SANDBOX_IDLE_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = http_server::IDLE_TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub idle_timeout_seconds: u64,
    /// Seconds that running requests get to finish after SIGTERM.
    #[arg(long, env = "SANDBOX_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 20)]
    pub drain_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_gets_half_of_a_small_container() {
        assert_eq!(memory_within(None), 256 << 20);
        assert_eq!(memory_within(Some(4 << 30)), 256 << 20);
        assert_eq!(memory_within(Some(128 << 20)), 64 << 20);
        assert_eq!(memory_within(Some(20 << 20)), MIN_MEMORY_BYTES);
    }
}

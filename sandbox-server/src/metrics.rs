//! Every metric of this server, once. What happens is counted where it happens; this file only names it.

use std::sync::atomic::Ordering;

use prometheus::core::{AtomicU64, GenericGauge};
use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::db::{Database, file};

type Gauge = GenericGauge<AtomicU64>;

/// The metrics, and the registry that they are printed from.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    seconds: HistogramVec,
    /// Calls that are running now.
    pub in_flight: IntGauge,
    /// Sessions of clients of the eras before 2026-07-28 that are kept.
    sessions: Gauge,
    /// Rows handed out.
    pub rows: IntCounter,
    /// Bytes of rows handed out.
    pub bytes: IntCounter,
    /// Requests refused before they reached MCP, by reason.
    pub refused: IntCounterVec,
    queued: GenericGaugeVec,
    commits: Gauge,
    write_statements: Gauge,
    replays: Gauge,
    database_bytes: Gauge,
    wal_bytes: Gauge,
    reader_threads: Gauge,
}

type GenericGaugeVec = prometheus::core::GenericGaugeVec<AtomicU64>;

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| Gauge::new(name, help);
        let buckets = vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let metrics = Self {
            calls: IntCounterVec::new(
                Opts::new("sandbox_tool_calls_total", "Tool calls by tool and outcome."),
                &["tool", "outcome"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("sandbox_tool_call_seconds", "Time of tool calls, waiting included.").buckets(buckets),
                &["tool"],
            )?,
            in_flight: IntGauge::new("sandbox_tool_calls_in_flight", "Tool calls that are running now.")?,
            sessions: gauge("sandbox_sessions", "Sessions that are kept, with --legacy-sessions.")?,
            rows: IntCounter::new("sandbox_result_rows_total", "Rows handed out.")?,
            bytes: IntCounter::new("sandbox_result_bytes_total", "Bytes of rows handed out, as JSON.")?,
            refused: IntCounterVec::new(
                Opts::new("sandbox_http_refused_total", "HTTP requests refused before MCP, by reason."),
                &["reason"],
            )?,
            queued: GenericGaugeVec::new(
                Opts::new("sandbox_queued_statements", "Statements that wait for a thread."),
                &["queue"],
            )?,
            commits: gauge("sandbox_commits", "Transactions committed since the start.")?,
            write_statements: gauge(
                "sandbox_write_statements",
                "Writing statements since the start; divided by commits: how many share one flush.",
            )?,
            replays: gauge("sandbox_write_group_replays", "Groups of writes that were run again one by one.")?,
            database_bytes: gauge("sandbox_database_bytes", "Size of the database file.")?,
            wal_bytes: gauge("sandbox_wal_bytes", "Size of the write-ahead log.")?,
            reader_threads: gauge("sandbox_reader_threads", "Threads that read.")?,
            registry,
        };
        let Self {
            registry,
            calls,
            seconds,
            in_flight,
            sessions,
            rows,
            bytes,
            refused,
            queued,
            commits,
            write_statements,
            replays,
            database_bytes,
            wal_bytes,
            reader_threads,
        } = &metrics;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(queued.clone()))?;
        for counter in [rows, bytes] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [sessions, commits, write_statements, replays, database_bytes, wal_bytes, reader_threads] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(metrics)
    }

    /// A finished call.
    pub fn finished(&self, tool: &str, outcome: &str, seconds: f64) {
        self.calls.with_label_values(&[tool, outcome]).inc();
        self.seconds.with_label_values(&[tool]).observe(seconds);
    }

    /// The text that Prometheus reads, with so many sessions. Sizes and queues are looked up now.
    pub fn render(&self, db: &Database, sessions: usize) -> prometheus::Result<String> {
        self.sessions.set(sessions as u64);
        let (reading, writing, threads) = db.queue_lengths();
        self.queued.with_label_values(&["read"]).set(reading as u64);
        self.queued.with_label_values(&["write"]).set(writing as u64);
        self.reader_threads.set(threads as u64);
        let stats = db.writer_stats();
        self.commits.set(stats.commits.load(Ordering::Relaxed));
        self.write_statements.set(stats.statements.load(Ordering::Relaxed));
        self.replays.set(stats.replays.load(Ordering::Relaxed));
        let path = &db.options().path;
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        self.database_bytes.set(size(path));
        self.wal_bytes.set(size(&file::wal_path(path)));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

//! Every metric of this server, once. What happens is counted where it happens; this file only names it.

use std::sync::atomic::Ordering;

use metrics_text::{Exposition, HistogramVec, IntCounter, IntCounterVec, IntGauge, MetricSet, UintGauge, UintGaugeVec};

use crate::db::{Database, file};

/// Of a call, in seconds.
const SECONDS: [f64; 15] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    all: MetricSet,
    calls: IntCounterVec,
    seconds: HistogramVec,
    /// Calls that are running now.
    pub in_flight: IntGauge,
    /// Sessions of clients of the eras before 2026-07-28 that are kept.
    sessions: UintGauge,
    /// Rows handed out.
    pub rows: IntCounter,
    /// Bytes of rows handed out.
    pub bytes: IntCounter,
    /// Requests refused before they reached MCP, by reason.
    pub refused: IntCounterVec,
    queued: UintGaugeVec,
    commits: UintGauge,
    write_statements: UintGauge,
    replays: UintGauge,
    database_bytes: UintGauge,
    wal_bytes: UintGauge,
    reader_threads: UintGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let all = MetricSet::default();
        let shared = "Writing statements since the start; divided by commits: how many share one flush.";
        Self {
            calls: all.counters("sandbox_tool_calls_total", "Tool calls by tool and outcome.", &["tool", "outcome"]),
            seconds: all.histograms("sandbox_tool_call_seconds", "Time of tool calls, waiting included.", &["tool"], &SECONDS),
            in_flight: all.gauge("sandbox_tool_calls_in_flight", "Tool calls that are running now."),
            sessions: all.gauge("sandbox_sessions", "Sessions that are kept, with --legacy-sessions."),
            rows: all.counter("sandbox_result_rows_total", "Rows handed out."),
            bytes: all.counter("sandbox_result_bytes_total", "Bytes of rows handed out, as JSON."),
            refused: all.counters("sandbox_http_refused_total", "HTTP requests refused before MCP, by reason.", &["reason"]),
            queued: all.gauges("sandbox_queued_statements", "Statements that wait for a thread.", &["queue"]),
            commits: all.gauge("sandbox_commits", "Transactions committed since the start."),
            write_statements: all.gauge("sandbox_write_statements", shared),
            replays: all.gauge("sandbox_write_group_replays", "Groups of writes that were run again one by one."),
            database_bytes: all.gauge("sandbox_database_bytes", "Size of the database file."),
            wal_bytes: all.gauge("sandbox_wal_bytes", "Size of the write-ahead log."),
            reader_threads: all.gauge("sandbox_reader_threads", "Threads that read."),
            all,
        }
    }
}

impl Metrics {
    /// A finished call.
    pub fn finished(&self, tool: &str, outcome: &str, seconds: f64) {
        self.calls.with_label_values(&[tool, outcome]).inc();
        self.seconds.with_label_values(&[tool]).observe(seconds);
    }

    /// What answers `/metrics`, with so many sessions. Sizes and queues are looked up now.
    pub fn answer(&self, db: &Database, sessions: usize) -> Exposition {
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
        self.all.answer()
    }
}

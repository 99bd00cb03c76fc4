//! What the writing thread does for the file beside its statements, so that it neither grows without bound nor gets slow with time: it
//! folds the log into the database, gives free pages back to the disk, and lets SQLite count what its planner goes by.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::error::DbError;
use super::file;
use super::limits::CallBudget;
use super::line::Line;
use super::open::{self, OpenOptions, Session};
use super::write::WriteOutcome;

/// The thread is idle when nothing came for so long.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// SQLite folds the log in by itself, but only up to what the oldest reader still reads, and begins it again only in a moment without readers.
/// A log of so many bytes is folded in whole, while the readers of the moment are waited for.
const LARGE_LOG: u64 = 64 << 20;

/// How long such a log may hold up the writer, at its first size; with the square of its size when it has grown beyond. It has to be longer
/// than the reads of the moment, and the log must not outgrow the disk.
const WAIT_FOR_READERS: Duration = Duration::from_millis(250);

/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Statements between two looks at the log.
const LOOK_EVERY: u64 = 64;

/// Statements after which the planner's numbers are looked at: when idle, and at the latest.
const OPTIMIZE_WHEN_IDLE: u64 = 1_000;
const OPTIMIZE_AT_THE_LATEST: u64 = 200_000;

/// Rows of an index that are looked at for them.
const ROWS_LOOKED_AT: u32 = 1_000;

/// The longest that one piece of upkeep holds up a statement that arrives.
const LONGEST: Duration = Duration::from_millis(500);

/// Free pages that are left for what is written next, and those that are given back in one go.
const FREE_PAGES_KEPT: u32 = 256;
const FREE_PAGES_AT_ONCE: u32 = 2_000;

/// What has been written since, and what is to be done about it.
#[derive(Debug)]
pub struct Upkeep {
    log: PathBuf,
    longest_wait: Duration,
    since_look: u64,
    since_optimize: u64,
    /// Something was written since the thread was idle last.
    untidy: bool,
    not_before: Instant,
}

impl Upkeep {
    /// For a database that was opened just now; it may have been left with a log.
    pub fn new(options: &OpenOptions) -> Self {
        Self {
            log: file::wal_path(&options.path),
            longest_wait: options.limits.statement_timeout,
            since_look: 0,
            since_optimize: 0,
            untidy: true,
            not_before: Instant::now(),
        }
    }

    /// Waits for the next write, and tidies up when none comes for a while. None: no more will come.
    pub fn next<T>(&mut self, work: &Line<T>, session: &Session) -> Option<T> {
        while self.untidy && !work.is_closed() {
            if let Some(job) = work.next_before(Instant::now() + IDLE_AFTER, |_| true) {
                return Some(job);
            }
            self.untidy = !self.tidy_up(session);
        }
        work.next()
    }

    /// After each group: looks whether the log is too large to wait until nobody writes.
    pub fn after(&mut self, results: &[Result<Vec<WriteOutcome>, DbError>], session: &Session) {
        let statements = results.iter().filter(|result| result.is_ok()).count() as u64;
        self.untidy |= statements > 0;
        self.since_look += statements;
        self.since_optimize += statements;
        if self.since_optimize >= OPTIMIZE_AT_THE_LATEST {
            self.optimize(session);
        }
        if self.since_look < LOOK_EVERY || Instant::now() < self.not_before {
            return;
        }
        self.since_look = 0;
        let bytes = self.log_bytes();
        if bytes >= LARGE_LOG {
            let times = u32::try_from(bytes / LARGE_LOG).unwrap_or(u32::MAX);
            let wait = WAIT_FOR_READERS.saturating_mul(times.saturating_mul(times)).min(self.longest_wait);
            if !fold_in(session, wait) {
                tracing::warn!(bytes, "the write-ahead log cannot be folded in: somebody reads what is in it for long");
            }
            self.not_before = Instant::now() + TRY_AGAIN_AFTER;
        }
    }

    /// Whether everything was done that there was to do.
    fn tidy_up(&mut self, session: &Session) -> bool {
        if self.since_optimize >= OPTIMIZE_WHEN_IDLE {
            self.optimize(session);
        }
        let given_back = limited(session, give_back);
        let folded = self.log_bytes() == 0 || fold_in(session, Duration::from_millis(20));
        given_back && folded
    }

    fn optimize(&mut self, session: &Session) {
        self.since_optimize = 0;
        // 0x10000: also tables that were never counted.
        let sql = format!("PRAGMA analysis_limit={ROWS_LOOKED_AT}; PRAGMA optimize(0x10002)");
        limited(session, |conn| conn.execute_batch(&sql).map(|()| true));
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }
}

/// Gives free pages back, where the file was made for it. Whether those are all.
fn give_back(conn: &Connection) -> rusqlite::Result<bool> {
    let ask = |pragma: &str| conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, u32>(0));
    let free = ask("freelist_count")?;
    if free <= FREE_PAGES_KEPT || ask("auto_vacuum")? != 2 {
        return Ok(true);
    }
    let pages = (free - FREE_PAGES_KEPT).min(FREE_PAGES_AT_ONCE);
    // One page a step.
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    Ok(free - pages <= FREE_PAGES_KEPT)
}

/// Runs a piece of upkeep under the guard. What fails is tried again when there is something to tidy up again: nothing depends on it.
fn limited(session: &Session, work: impl FnOnce(&Connection) -> rusqlite::Result<bool>) -> bool {
    let result = session.guard.watch(&CallBudget::starting_now(LONGEST), || Ok(work(&session.conn)?));
    result.unwrap_or_else(|error| {
        tracing::debug!(%error, "upkeep of the database was put off");
        true
    })
}

/// Folds the whole log into the database and cuts it to nothing. False: somebody reads or writes.
fn fold_in(session: &Session, wait: Duration) -> bool {
    let conn = &session.conn;
    let folded =
        conn.busy_timeout(wait).and_then(|()| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)));
    if let Err(error) = conn.busy_timeout(open::BUSY_WAIT) {
        tracing::warn!(%error, "the wait for other processes could not be set");
    }
    match folded {
        Ok(busy) => busy == 0,
        Err(error) => {
            if !matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
                tracing::warn!(%error, "the write-ahead log could not be folded in");
            }
            false
        }
    }
}

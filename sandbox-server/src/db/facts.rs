//! What the writer has to know of a schema before it runs a statement: which tables have foreign keys that are judged at the commit, and
//! whether anything in it can leave half of a statement behind. And what a statement has touched, as SQLite tells row by row.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::hooks::Action;
use rusqlite::{Connection, OptionalExtension as _};

use super::open::Session;
use super::schema;

/// Of one version of the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaFacts {
    version: Option<i64>,
    /// Tables whose rows a deferred foreign key comes from or points to, in small letters.
    deferred: HashSet<String>,
    /// One of them has no rowids: SQLite does not tell of its rows, so that every statement may have touched it.
    deferred_untold: bool,
    /// A constraint or trigger says FAIL: a statement that fails by it leaves behind what it did before.
    pub leaves_halves: bool,
}

impl SchemaFacts {
    /// Reads them anew when the schema has changed, by whomever.
    fn refresh(&mut self, session: &Session) -> rusqlite::Result<()> {
        let version: i64 = session.conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        if self.version == Some(version) {
            return Ok(());
        }
        *self = Self { version: Some(version), ..session.terms.wide(&session.conn, || Self::read(&session.conn))?? };
        Ok(())
    }

    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut facts = Self::default();
        let mut objects = conn.prepare_cached("SELECT type, name, lower(sql) FROM sqlite_schema WHERE sql IS NOT NULL")?;
        let mut rows = objects.query([])?;
        while let Some(row) = rows.next()? {
            let sql = String::from_utf8_lossy(row.get_ref(2)?.as_bytes().unwrap_or_default()).into_owned();
            facts.leaves_halves |= sql.contains("fail");
            if row.get::<_, String>(0)? == "table" && sql.contains("deferred") {
                let name: String = row.get(1)?;
                let mut keys = conn.prepare_cached("SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1)")?;
                let parents = keys.query_map([&name], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
                facts.deferred.extend(parents.into_iter().map(|parent| parent.to_lowercase()));
                facts.deferred_untold |= sql.contains("without");
                facts.deferred.insert(name.to_lowercase());
            }
        }
        Ok(facts)
    }
}

/// What the statement at hand has touched. Shared with the hook that SQLite calls for each row.
#[derive(Debug, Clone, Default)]
pub struct Touched(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    facts: SchemaFacts,
    /// The table that the statement inserts into.
    target: Option<Arc<str>>,
    /// A row of it was touched.
    target_touched: bool,
    /// The last row that was inserted into it.
    inserted: Option<i64>,
    /// A row at the end of a deferred foreign key was touched.
    deferred: bool,
}

impl Touched {
    /// Lets SQLite tell of rows.
    pub fn install(conn: &mut Connection) -> rusqlite::Result<Self> {
        let touched = Self::default();
        let seen = touched.clone();
        conn.update_hook(Some(move |action, _: &str, table: &str, rowid| seen.lock().row(action, table, rowid)))?;
        Ok(touched)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the last statement's rows; the next one inserts into `target`.
    pub fn begin(&self, target: Option<Arc<str>>) {
        let mut seen = self.lock();
        let deferred = seen.facts.deferred_untold;
        seen.target = target;
        (seen.target_touched, seen.inserted, seen.deferred) = (false, None, deferred);
    }

    /// What is known of the schema now.
    pub fn refresh(&self, session: &Session) -> rusqlite::Result<()> {
        // The hook, which takes the lock too, is not called by what only reads.
        self.lock().facts.refresh(session)
    }

    /// A statement that fails may leave behind what it did before, by the schema.
    pub fn leaves_halves(&self) -> bool {
        self.lock().facts.leaves_halves
    }

    /// The statement's part in a foreign key is judged only at the commit.
    pub fn judged_at_commit(&self) -> bool {
        self.lock().deferred
    }

    /// The same for a batch: one of its statements is.
    pub fn also_judged_at_commit(&self, deferred: bool) {
        self.lock().deferred |= deferred;
    }

    /// The rowid of the last row that the statement inserted itself. `before` is the connection's before it ran: that one stays as it was
    /// over an UPSERT that updates, a table without rowids, and a view whose trigger inserts elsewhere.
    pub fn own_rowid(&self, conn: &Connection, before: i64) -> rusqlite::Result<Option<i64>> {
        let last = conn.last_insert_rowid();
        let (target, touched, inserted) = {
            let seen = self.lock();
            let Some(target) = seen.target.clone() else { return Ok(None) };
            (target, seen.target_touched, seen.inserted)
        };
        let own = if !touched && is_virtual(conn, &target)? {
            // What is not a row but a command of FTS5's, such as 'optimize', leaves 0.
            last != 0 || has_row(conn, &target, last)?
        } else {
            last != before || inserted == Some(last)
        };
        Ok(own.then_some(last))
    }
}

impl Seen {
    fn row(&mut self, action: Action, table: &str, rowid: i64) {
        if self.target.as_deref() == Some(table) {
            self.target_touched = true;
            if action == Action::SQLITE_INSERT {
                self.inserted = Some(rowid);
            }
        }
        if !self.deferred && !self.facts.deferred.is_empty() {
            self.deferred = self.facts.deferred.contains(&table.to_lowercase());
        }
    }
}

fn has_row(conn: &Connection, table: &str, rowid: i64) -> rusqlite::Result<bool> {
    conn.prepare(&format!("SELECT 1 FROM main.{} WHERE rowid = ?1", schema::quoted(table)))?.exists([rowid])
}

/// SQLite tells nothing of the rows of virtual tables, but keeps their rowids.
fn is_virtual(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let mut ask = conn.prepare_cached(
        "SELECT rootpage = 0 AND type = 'table' FROM sqlite_schema WHERE name = ?1 AND type IN ('table', 'view')",
    )?;
    Ok(ask.query_row([table], |row| row.get(0)).optional()?.unwrap_or(false))
}

//! The one gate: what a statement may do, asked by SQLite for every action while it is being prepared. An allow-list: what is
//! not named here is refused. It also notes which functions a statement calls that SQLite cannot interrupt. Caps on time and size are
//! db/limits.rs, what those functions may be given is db/costly.rs.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::costly::{self, Costly};

/// The table in which append_insight keeps its memo. Only that tool writes it.
pub const INSIGHTS_TABLE: &str = "_mcp_insights";

/// What the statement at hand is allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Permit {
    /// Reading only.
    Read = 0,
    /// Reading, and changing rows of ordinary tables.
    Write = 1,
    /// Creating tables, indexes and views (and the rows that come with them, as in CREATE TABLE … AS).
    Create = 2,
    /// The server's own statements: transactions, pragmas, the memo.
    Internal = 3,
}

impl Permit {
    fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Write,
            2 => Self::Create,
            3 => Self::Internal,
            _ => Self::Read,
        }
    }
}

/// PRAGMAs that only report, and that need no value or take a name as one.
const REPORTING_PRAGMAS: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "function_list",
    "collation_list",
    "compile_options",
    "integrity_check",
    "quick_check",
];

/// PRAGMAs that report when they have no value, and change something when they have one.
const READABLE_PRAGMAS: &[&str] = &[
    "user_version",
    "application_id",
    "schema_version",
    "data_version",
    "page_count",
    "page_size",
    "freelist_count",
    "encoding",
    "journal_mode",
    "foreign_keys",
    "synchronous",
    "auto_vacuum",
    "cache_size",
];

/// Functions that reach outside the database, or hand out pointers.
const REFUSED_FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "fsdir", "sqlite_log"];

/// Virtual table modules that keep their data inside the database file.
const CREATABLE_MODULES: &[&str] = &["fts5", "rtree", "rtree_i32", "geopoly"];

/// The gate of one connection.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    permit: Arc<AtomicU8>,
    /// Why the last statement was refused: SQLite itself says only "not authorized".
    refusal: Arc<Mutex<Option<String>>>,
    /// The strictest cap on values among the functions of the statements that were prepared since it was last taken.
    costly: Arc<Mutex<Option<&'static Costly>>>,
}

impl Gate {
    /// Installs the gate; it stands at `Internal` until somebody passes through.
    pub fn install(conn: &mut Connection) -> rusqlite::Result<Self> {
        let gate = Self::default();
        gate.permit.store(Permit::Internal as u8, Ordering::Relaxed);
        let seen = gate.clone();
        conn.authorizer(Some(move |context: AuthContext<'_>| seen.judge(&context)))?;
        Ok(gate)
    }

    /// Runs `work` (preparing and stepping) with `permit`, and goes back to what stood before.
    pub fn with<T>(&self, permit: Permit, work: impl FnOnce() -> T) -> T {
        let before = self.permit.swap(permit as u8, Ordering::Relaxed);
        let result = work();
        self.permit.store(before, Ordering::Relaxed);
        result
    }

    /// The reason of the last refusal, once.
    pub fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What was noted about the functions of a statement, once.
    pub fn take_costly(&self) -> Option<&'static Costly> {
        self.costly.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        let permit = Permit::from_raw(self.permit.load(Ordering::Relaxed));
        if let AuthAction::Function { function_name } = context.action
            && permit != Permit::Internal
            && let Some(found) = costly::find(function_name)
        {
            let mut noted = self.costly.lock().unwrap_or_else(PoisonError::into_inner);
            *noted = Some(noted.map_or(found, |before| before.stricter(found)));
        }
        match decide(permit, &context.action) {
            Ok(()) => Authorization::Allow,
            Err(reason) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Authorization::Deny
            }
        }
    }
}

/// The decision, pure: allowed, or the sentence that says what was refused.
fn decide(permit: Permit, action: &AuthAction<'_>) -> Result<(), String> {
    use AuthAction as A;
    if permit == Permit::Internal {
        return match action {
            A::Attach { .. } | A::Detach { .. } => refuse("ATTACH and DETACH"),
            _ => Ok(()),
        };
    }
    match *action {
        A::Select | A::Recursive | A::Read { .. } => Ok(()),
        A::Function { function_name } => function(permit, function_name),
        A::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        A::Insert { table_name } | A::Update { table_name, .. } | A::Delete { table_name } => change(permit, table_name),
        A::CreateTable { table_name } | A::CreateIndex { table_name, .. } if permit == Permit::Create => own_name(table_name),
        A::CreateView { view_name } if permit == Permit::Create => own_name(view_name),
        // CREATE INDEX fills the new index through this action.
        A::Reindex { .. } if permit == Permit::Create => Ok(()),
        A::CreateVtable { table_name, module_name } if permit == Permit::Create => {
            if !CREATABLE_MODULES.iter().any(|known| known.eq_ignore_ascii_case(module_name)) {
                return refuse(&format!("a virtual table of the module {module_name}"));
            }
            own_name(table_name)
        }
        A::CreateTable { .. } | A::CreateView { .. } | A::CreateIndex { .. } | A::CreateVtable { .. } => {
            refuse("CREATE outside of the create_table tool")
        }
        A::CreateTempTable { .. } | A::CreateTempView { .. } | A::CreateTempIndex { .. } | A::CreateTempTrigger { .. } => {
            refuse("a temporary table, view, index or trigger (calls share connections; use WITH instead)")
        }
        A::CreateTrigger { .. } => refuse("CREATE TRIGGER"),
        A::DropTable { .. }
        | A::DropView { .. }
        | A::DropIndex { .. }
        | A::DropTrigger { .. }
        | A::DropVtable { .. }
        | A::DropTempTable { .. }
        | A::DropTempView { .. }
        | A::DropTempIndex { .. }
        | A::DropTempTrigger { .. } => refuse("DROP"),
        A::AlterTable { .. } => refuse("ALTER TABLE"),
        A::Attach { .. } => refuse("ATTACH and VACUUM (they write other files)"),
        A::Detach { .. } => refuse("DETACH"),
        A::Transaction { .. } | A::Savepoint { .. } => refuse("a transaction of the caller's own (each call is one transaction)"),
        A::Reindex { .. } | A::Analyze { .. } => refuse("REINDEX and ANALYZE"),
        _ => refuse("an action that this server does not know"),
    }
}

fn refuse(what: &str) -> Result<(), String> {
    Err(format!("not allowed: {what}"))
}

fn function(permit: Permit, name: &str) -> Result<(), String> {
    // In a CHECK or a generated column it would run in statements that do not name it, and so without its cap.
    if permit == Permit::Create && costly::find(name).is_some_and(|costly| costly.quadratic) {
        return refuse(&format!("{name}() in what is created"));
    }
    if REFUSED_FUNCTIONS.iter().any(|refused| refused.eq_ignore_ascii_case(name)) {
        return refuse(&format!("the function {name}()"));
    }
    Ok(())
}

fn pragma(name: &str, value: Option<&str>) -> Result<(), String> {
    let listed = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
    if listed(REPORTING_PRAGMAS) || (listed(READABLE_PRAGMAS) && value.is_none()) {
        return Ok(());
    }
    match value {
        Some(_) => refuse(&format!("PRAGMA {name} with a value")),
        None => refuse(&format!("PRAGMA {name}")),
    }
}

fn change(permit: Permit, table: &str) -> Result<(), String> {
    if permit == Permit::Read {
        return refuse("changing data with a reading tool; use write_query");
    }
    // Creating anything writes the schema table; SQLite's defensive mode refuses the same by hand.
    let schema_table = table.eq_ignore_ascii_case("sqlite_master") || table.eq_ignore_ascii_case("sqlite_schema");
    if permit == Permit::Create && schema_table {
        return Ok(());
    }
    own_name(table)
}

/// Tables of SQLite and of this server are not the caller's to create or change. sqlite_sequence is: resetting a counter is ordinary.
fn own_name(table: &str) -> Result<(), String> {
    let lower = table.to_ascii_lowercase();
    if lower == INSIGHTS_TABLE {
        return refuse(&format!("changing {INSIGHTS_TABLE}; use append_insight"));
    }
    if lower.starts_with("sqlite_") && lower != "sqlite_sequence" && !lower.starts_with("sqlite_autoindex") {
        return refuse(&format!("changing {table}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_permit_refuses_every_change() {
        for action in [
            AuthAction::Insert { table_name: "t" },
            AuthAction::Update { table_name: "t", column_name: "a" },
            AuthAction::Delete { table_name: "t" },
            AuthAction::CreateTable { table_name: "t" },
            AuthAction::DropTable { table_name: "t" },
            AuthAction::Attach { filename: "x" },
            AuthAction::Pragma { pragma_name: "user_version", pragma_value: Some("1") },
        ] {
            assert!(decide(Permit::Read, &action).is_err(), "{action:?}");
        }
    }

    #[test]
    fn a_writing_permit_changes_rows_but_never_schema_tables() {
        assert!(decide(Permit::Write, &AuthAction::Insert { table_name: "t" }).is_ok());
        assert!(decide(Permit::Write, &AuthAction::Insert { table_name: "sqlite_master" }).is_err());
        assert!(decide(Permit::Write, &AuthAction::Delete { table_name: "SQLITE_SCHEMA" }).is_err());
        assert!(decide(Permit::Write, &AuthAction::Delete { table_name: INSIGHTS_TABLE }).is_err());
    }

    #[test]
    fn nobody_attaches_not_even_the_server() {
        for permit in [Permit::Read, Permit::Write, Permit::Create, Permit::Internal] {
            assert!(decide(permit, &AuthAction::Attach { filename: "x" }).is_err());
        }
    }
}

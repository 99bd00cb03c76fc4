//! The one gate: what a statement may do, asked by SQLite for every action while it is being prepared. An allow-list: what is
//! not named here is refused. That what is to read only reads is asked of
//! SQLite once more, of the statement that came of it, in `Database::read` (db/mod.rs). It also notes what a statement calls that SQLite cannot
//! interrupt, and which table it inserts into. Caps on
//! time and size are db/limits.rs, what those functions may be given is db/costly.rs.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::costly::{self, Costly};
use super::error::DbError;

/// The table in which append_insight keeps its memo. Only that tool writes it.
pub const INSIGHTS_TABLE: &str = "_mcp_insights";

/// What callers may do to the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum SchemaMode {
    /// Nothing.
    None,
    /// Create tables, indexes and views.
    #[default]
    Add,
    /// Create, alter and drop whatever lies in the database, triggers too; ANALYZE, REINDEX and VACUUM.
    Full,
}

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
    /// Creating, altering and dropping, triggers too; statistics and indexes made anew.
    Schema = 4,
    /// VACUUM, which attaches a file of its own that has no name.
    Vacuum = 5,
    /// The server's own statements: transactions, pragmas, the memo.
    Internal = 3,
}

impl Permit {
    fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Write,
            2 => Self::Create,
            3 => Self::Internal,
            4 => Self::Schema,
            5 => Self::Vacuum,
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

/// Functions of the build that reach outside the database, hand out pointers, or have no use but to slow a statement down.
#[cfg(test)]
const REFUSED_FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer", "sqlite_log"];

/// Every function of the build that may be called: `pragma function_list` without those above. A test holds it to the build.
static ALLOWED_FUNCTIONS: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("functions.txt").lines().collect());

/// What SQLite itself calls to alter a table. In a statement of somebody's own it does not find them.
const ALTERING_FUNCTIONS: &[&str] = &[
    "sqlite_rename_column",
    "sqlite_rename_table",
    "sqlite_rename_test",
    "sqlite_rename_quotefix",
    "sqlite_drop_column",
    "sqlite_drop_constraint",
    "sqlite_add_constraint",
    "sqlite_find_constraint",
    "sqlite_fail",
];

/// Virtual table modules that keep their data inside the database file.
const CREATABLE_MODULES: &[&str] = &["fts5", "rtree", "rtree_i32", "geopoly"];

const TEMPORARY: &str = "a temporary table, view, index or trigger (calls share connections; use WITH instead)";

/// Why the last statement was refused: SQLite itself says only "not authorized".
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// It changes rows, and came to a connection that reads.
    Changes,
    /// Anything else, as a sentence.
    Other(String),
}

/// Something whose own statements SQLite reads only when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// A view of this name.
    View(String),
    /// A trigger on this table or view.
    TriggerOn(String),
}

/// What was seen of a statement while it was prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// Functions that it calls which SQLite cannot interrupt.
    pub costly: Vec<&'static Costly>,
    /// The table or view that it inserts into, not from within a trigger.
    pub inserts_into: Option<Arc<str>>,
    /// The view or trigger that it creates.
    pub creates: Option<Created>,
    /// It was prepared, and not taken from the cache.
    pub prepared: bool,
    /// It alters a table: what it calls from then on is SQLite's own, on the text of the schema.
    alters: bool,
}

/// The gate of one connection.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    permit: Arc<AtomicU8>,
    refusal: Arc<Mutex<Option<Refusal>>>,
    noted: Arc<Mutex<Noted>>,
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
    pub fn take_refusal(&self) -> Option<DbError> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(match refusal {
            Refusal::Changes => DbError::Changes,
            Refusal::Other(sentence) => DbError::Denied(sentence),
        })
    }

    /// What was noted of the statements that were prepared since it was last taken.
    pub fn take_noted(&self) -> Noted {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        let permit = Permit::from_raw(self.permit.load(Ordering::Relaxed));
        if permit != Permit::Internal {
            self.note(context);
        }
        let creates_temporary = matches!(context.action, AuthAction::Insert { .. } | AuthAction::Delete { .. })
            && context.database_name == Some("temp")
            && !matches!(permit, Permit::Internal | Permit::Vacuum);
        // `CREATE TABLE temp.t` looks like one of main, but for the schema that it is written to.
        let decision = if creates_temporary { refuse(TEMPORARY) } else { decide(permit, &context.action) };
        match decision {
            Ok(()) => Authorization::Allow,
            Err(reason) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Authorization::Deny
            }
        }
    }

    fn note(&self, context: &AuthContext<'_>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.prepared = true;
        match context.action {
            AuthAction::AlterTable { .. } => noted.alters = true,
            AuthAction::Function { function_name } if !noted.alters => noted.costly.extend(costly::find(function_name)),
            AuthAction::Insert { table_name } if context.accessor.is_none() && noted.inserts_into.is_none() => {
                noted.inserts_into = Some(table_name.into());
            }
            AuthAction::CreateView { view_name } => noted.creates = Some(Created::View(view_name.to_owned())),
            AuthAction::CreateTrigger { table_name, .. } => noted.creates = Some(Created::TriggerOn(table_name.to_owned())),
            _ => {}
        }
    }
}

/// The decision, pure: allowed, or the sentence that says what was refused.
fn decide(permit: Permit, action: &AuthAction<'_>) -> Result<(), Refusal> {
    use AuthAction as A;
    match permit {
        Permit::Internal | Permit::Vacuum => {
            return match action {
                // A file of no name lies in memory or in a temporary folder, and goes with the statement.
                A::Attach { filename: "" } | A::Detach { .. } if permit == Permit::Vacuum => Ok(()),
                A::Attach { .. } | A::Detach { .. } => refuse("ATTACH, DETACH and VACUUM INTO"),
                _ => Ok(()),
            };
        }
        Permit::Schema => {
            if let Some(decision) = change_of_schema(action) {
                return decision;
            }
        }
        Permit::Read | Permit::Write | Permit::Create => {}
    }
    let creates = matches!(permit, Permit::Create | Permit::Schema);
    match *action {
        A::Select | A::Recursive | A::Read { .. } => Ok(()),
        A::Function { function_name } => function(permit, function_name),
        A::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        A::Insert { table_name } | A::Update { table_name, .. } | A::Delete { table_name } => change(permit, table_name),
        A::CreateTable { table_name } | A::CreateIndex { table_name, .. } if creates => own_name(table_name),
        A::CreateView { view_name } if creates => own_name(view_name),
        // CREATE INDEX fills the new index through this action.
        A::Reindex { .. } if creates => Ok(()),
        A::CreateVtable { table_name, module_name } if creates => {
            if !CREATABLE_MODULES.iter().any(|known| known.eq_ignore_ascii_case(module_name)) {
                return refuse(&format!("a virtual table of the module {module_name}"));
            }
            own_name(table_name)
        }
        A::CreateTable { .. } | A::CreateView { .. } | A::CreateIndex { .. } | A::CreateVtable { .. } => {
            refuse("CREATE with this tool; use create_table")
        }
        A::CreateTempTable { .. } | A::CreateTempView { .. } | A::CreateTempIndex { .. } | A::CreateTempTrigger { .. } => {
            refuse(TEMPORARY)
        }
        A::CreateTrigger { .. } => refuse_unless_full("CREATE TRIGGER"),
        A::DropTable { .. } | A::DropView { .. } | A::DropIndex { .. } | A::DropTrigger { .. } | A::DropVtable { .. } => {
            refuse_unless_full("DROP")
        }
        A::DropTempTable { .. } | A::DropTempView { .. } | A::DropTempIndex { .. } | A::DropTempTrigger { .. } => {
            refuse("DROP of what is temporary")
        }
        A::AlterTable { .. } => refuse_unless_full("ALTER TABLE"),
        A::Attach { .. } => refuse("ATTACH and VACUUM (they write other files)"),
        A::Detach { .. } => refuse("DETACH"),
        A::Transaction { .. } | A::Savepoint { .. } => {
            refuse("a transaction of the caller's own (each call is one; write_batch takes several statements)")
        }
        A::Reindex { .. } | A::Analyze { .. } => refuse_unless_full("REINDEX and ANALYZE"),
        _ => refuse("an action that this server does not know"),
    }
}

/// What `--schema full` allows beyond the creation of tables, indexes and views. None: the same as otherwise.
fn change_of_schema(action: &AuthAction<'_>) -> Option<Result<(), Refusal>> {
    use AuthAction as A;
    let decision = match *action {
        A::CreateTrigger { table_name, trigger_name } | A::DropTrigger { table_name, trigger_name } => {
            own_name(table_name).and_then(|()| own_name(trigger_name))
        }
        A::DropTable { table_name } | A::DropVtable { table_name, .. } | A::DropIndex { table_name, .. } => droppable(table_name),
        A::DropView { view_name } => own_name(view_name),
        A::AlterTable { table_name, .. } => own_name(table_name),
        A::Analyze { .. } | A::Reindex { .. } => Ok(()),
        A::Function { function_name } if listed(ALTERING_FUNCTIONS, function_name) => Ok(()),
        // Renaming looks into the temporary schema, too. What is created there would be an insert.
        A::Update { table_name, .. } if listed(&["sqlite_temp_master", "sqlite_temp_schema"], table_name) => Ok(()),
        // ANALYZE keeps its numbers there.
        A::CreateTable { table_name } | A::Insert { table_name } | A::Delete { table_name } if is_statistics(table_name) => {
            Ok(())
        }
        _ => return None,
    };
    Some(decision)
}

fn is_statistics(table: &str) -> bool {
    table.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_stat"))
}

fn droppable(table: &str) -> Result<(), Refusal> {
    if is_statistics(table) { Ok(()) } else { own_name(table) }
}

/// Whether a function of the build may not be called by anybody.
#[cfg(test)]
pub fn is_refused(name: &str) -> bool {
    listed(REFUSED_FUNCTIONS, name)
}

fn refuse(what: &str) -> Result<(), Refusal> {
    Err(Refusal::Other(format!("not allowed: {what}")))
}

fn refuse_unless_full(what: &str) -> Result<(), Refusal> {
    refuse(&only_in_full(what))
}

/// What was refused, and where it would be taken.
pub fn only_in_full(what: &str) -> String {
    format!("{what} outside of change_schema, a tool that this server offers with --schema full")
}

fn listed(list: &[&str], name: &str) -> bool {
    list.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn function(permit: Permit, name: &str) -> Result<(), Refusal> {
    // In a CHECK or a generated column it would run in statements that do not name it, and so without its cap.
    if matches!(permit, Permit::Create | Permit::Schema) && costly::find(name).is_some_and(Costly::quadratic) {
        return refuse(&format!("{name}() in what is created"));
    }
    if ALLOWED_FUNCTIONS.contains(name.to_ascii_lowercase().as_str()) {
        Ok(())
    } else {
        refuse(&format!("the function {name}()"))
    }
}

fn pragma(name: &str, value: Option<&str>) -> Result<(), Refusal> {
    if listed(REPORTING_PRAGMAS, name) || (listed(READABLE_PRAGMAS, name) && value.is_none()) {
        return Ok(());
    }
    match value {
        Some(_) => refuse(&format!("PRAGMA {name} with a value")),
        None => refuse(&format!("PRAGMA {name}")),
    }
}

fn change(permit: Permit, table: &str) -> Result<(), Refusal> {
    if permit == Permit::Read {
        return Err(Refusal::Changes);
    }
    // Creating anything writes the schema table; SQLite's defensive mode refuses the same by hand.
    let schema_table = listed(&["sqlite_master", "sqlite_schema"], table);
    if matches!(permit, Permit::Create | Permit::Schema) && schema_table {
        return Ok(());
    }
    own_name(table)
}

/// Tables of SQLite and of this server are not the caller's to create or change. sqlite_sequence is: resetting a counter is ordinary.
fn own_name(table: &str) -> Result<(), Refusal> {
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
        for permit in [Permit::Read, Permit::Write, Permit::Create, Permit::Schema, Permit::Vacuum, Permit::Internal] {
            assert!(decide(permit, &AuthAction::Attach { filename: "x" }).is_err());
        }
        assert!(decide(Permit::Internal, &AuthAction::Attach { filename: "" }).is_err());
    }

    #[test]
    fn only_the_full_mode_alters_and_drops_and_never_what_is_the_servers() {
        let actions = |table: &'static str| {
            [
                AuthAction::DropTable { table_name: table },
                AuthAction::AlterTable { database_name: "main", table_name: table },
                AuthAction::CreateTrigger { trigger_name: "g", table_name: table },
                AuthAction::DropIndex { index_name: "i", table_name: table },
            ]
        };
        for action in actions("t") {
            assert!(decide(Permit::Schema, &action).is_ok(), "{action:?}");
            assert!(decide(Permit::Create, &action).is_err(), "{action:?}");
            assert!(decide(Permit::Write, &action).is_err(), "{action:?}");
        }
        for action in actions(INSIGHTS_TABLE).into_iter().chain(actions("sqlite_schema")) {
            assert!(decide(Permit::Schema, &action).is_err(), "{action:?}");
        }
    }
}

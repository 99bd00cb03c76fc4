//! Any tool name and arguments, read as a call and run against a database. Nothing may panic, and no file may appear beside the database.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sandbox_server::audit;
use sandbox_server::db::Database;
use sandbox_server::db::limits::Limits;
use sandbox_server::db::open::OpenOptions;
use sandbox_server::db::query::{Page, Parameters};
use sandbox_server::db::writer::Command;
use sandbox_server::mcp::tools::ToolCall;

struct World {
    folder: tempfile::TempDir,
    db: Database,
    runtime: tokio::runtime::Runtime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { statement_timeout: Duration::from_millis(100), ..Limits::default() };
    let db = Database::open(OpenOptions { path: folder.path().join("x.db"), read_only: false, readers: 1, limits }).expect("a database");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    World { folder, db, runtime }
});

const TOOLS: [&str; 5] = ["read_query", "write_query", "create_table", "explain_query", "execute_sql_query"];

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    // Half of the inputs are arguments as JSON, half are the SQL itself.
    let arguments = if first & 1 == 0 { serde_json::from_str(&text).ok() } else { serde_json::json!({"query": text}).as_object().cloned() };
    let Ok(call) = ToolCall::read(TOOLS[usize::from(first >> 1) % TOOLS.len()], arguments) else { return };
    audit::without_values(call.sql());
    let World { folder, db, runtime } = &*WORLD;
    runtime.block_on(async {
        // Errors are what most inputs end in.
        match call {
            ToolCall::Read(args) => drop(db.read(db.budget(), args.query, args.params.into(), None, args.cursor).await),
            ToolCall::Write(args) => {
                let page = Page { offset: 0, max_rows: 10, max_bytes: 10_000 };
                drop(db.write(db.budget(), Command::Change { sql: args.query, parameters: args.params.into(), page }).await);
            }
            ToolCall::Create(args) => drop(db.write(db.budget(), Command::Create { sql: args.query }).await),
            ToolCall::Explain(args) => drop(db.explain(db.budget(), args.query).await),
            _ => {}
        }
        assert!(db.read(db.budget(), "SELECT 1".into(), Parameters::None, None, None).await.is_ok());
    });
    assert!(std::fs::read_dir(folder.path()).expect("the folder").count() <= 3, "a file appeared beside the database");
});

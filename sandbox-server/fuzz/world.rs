//! One input of the fuzzer: a database, and a call that is read, run and answered as the server does it, from the request's bytes to the
//! answer's. Nothing may panic, no thread may end, no file may appear, and nothing of the schema may change that no tool may change.
//! Included by the fuzzer and by the test that replays what it found (tests/it/fuzz.rs).

use std::time::{Duration, Instant};

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use sandbox_server::audit;
use sandbox_server::db::Database;
use sandbox_server::db::limits::{CallBudget, Limits};
use sandbox_server::db::open::OpenOptions;
use sandbox_server::db::turns::Caller;
use sandbox_server::http::direct;
use sandbox_server::mcp::{HandlerSettings, SqliteMcp};
use sandbox_server::metrics::Metrics;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const TOOLS: [&str; 9] = [
    "read_query",
    "write_query",
    "create_table",
    "explain_query",
    "execute_sql_query",
    "describe_table",
    "search_schema",
    "append_insight",
    "list_tables",
];

/// How an input becomes a call: the first byte's low part says which of these, the rest which tool.
const FORMS: u8 = 3;

/// Inputs write. Beyond this size the database is begun anew.
const MAX_DATABASE_BYTES: u64 = 8 << 20;

/// The database under attack, and the server over it.
pub struct World {
    folder: tempfile::TempDir,
    schema: &'static str,
    db: Database,
    handler: SqliteMcp,
    runtime: tokio::runtime::Runtime,
}

impl World {
    /// A new database of this schema.
    pub fn new(schema: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        rusqlite::Connection::open(&path).and_then(|conn| conn.execute_batch(schema)).expect("the schema");
        let limits = Limits { statement_timeout: Duration::from_millis(50), max_memory_bytes: 64 << 20, ..Limits::default() };
        let db = Database::open(OpenOptions { readers: 1, limits, ..OpenOptions::new(path) }).expect("a database");
        let settings = HandlerSettings { audit: true, ..HandlerSettings::default() };
        let handler = SqliteMcp::new(db.clone(), Metrics::default(), settings, CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { folder, schema, db, handler, runtime }
    }

    /// Makes the call that an input stands for, and looks at what is left.
    pub fn try_input(&mut self, data: &[u8]) {
        let Some((&first, rest)) = data.split_first() else { return };
        let tool = TOOLS[usize::from(first / FORMS) % TOOLS.len()];
        let text = String::from_utf8_lossy(rest);
        audit::without_values(&text);
        let body = match first % FORMS {
            0 => body(tool, &statement(tool, &text)),
            1 => match serde_json::from_slice(rest) {
                Ok(arguments) => body(tool, &arguments),
                Err(_) => return,
            },
            _ => rest.to_vec(),
        };
        self.runtime.block_on(async {
            if let Some((call, era)) = direct::read::<SqliteMcp>(&Method::POST, &headers(), &body, true) {
                let running = call.answer(era, &self.handler, HeaderMap::new(), Caller::OWN).expect("a readable _meta");
                let json = running.await.expect("an answer that can be written");
                let answer: Value = serde_json::from_slice(&json).expect("JSON");
                assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
                self.look_around().await;
            }
        });
        let size = std::fs::metadata(self.folder.path().join("x.db")).expect("the database").len();
        if size > MAX_DATABASE_BYTES {
            self.db.close();
            *self = Self::new(self.schema);
        }
    }

    async fn look_around(&self) {
        // A statement inside one long function ends some time after its limit; the thread must come back all the same.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = self.db.check().await {
            assert!(Instant::now() < deadline, "the server does not answer any more: {error}");
        }
        let kept = "SELECT (SELECT count(*) FROM sqlite_schema WHERE name IN ('canary', 'birds', 'canary_parent', 'audit', 'canary_gone', 'docs')), user_version, journal_mode \
                    FROM pragma_user_version, pragma_journal_mode";
        let found: (i64, i64, String) = self
            .db
            .inspect(CallBudget::starting_now(Duration::from_secs(10)), |conn| {
                Ok(conn.query_row(kept, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
            })
            .await
            .expect("the schema can be read");
        assert_eq!(found, (6, 7, "wal".to_owned()));
        let files = std::fs::read_dir(self.folder.path()).expect("the folder").count();
        assert!(files <= 3, "a file appeared beside the database");
    }
}

/// The arguments of a tool that takes one text.
fn statement(tool: &str, text: &str) -> Value {
    match tool {
        "describe_table" => json!({"table_name": text}),
        "search_schema" => json!({"text": text}),
        "append_insight" => json!({"insight": text}),
        _ => json!({"query": text}),
    }
}

fn body(tool: &str, arguments: &Value) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
        .to_string()
        .into_bytes()
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json, text/event-stream")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("mcp-protocol-version"), HeaderValue::from_static("2025-11-25")),
    ])
}

/// What fuzzing begins with: each statement through each tool that runs statements, and calls whose arguments are more than a statement.
pub fn seeds(statements: impl IntoIterator<Item = String>) -> Vec<Vec<u8>> {
    let with = |tool: u8, form: u8, text: &str| [&[tool * FORMS + form], text.as_bytes()].concat();
    let mut seeds: Vec<Vec<u8>> = statements.into_iter().flat_map(|text| (0..5).map(move |tool| with(tool, 0, &text))).collect();
    for (tool, arguments) in [
        (0, r#"{"query":"SELECT ?, ?, :a","params":[1.5,{"$blob":"AP8="},null],"max_rows":2}"#),
        (0, r#"{"query":"SELECT :name, @b, $c","params":{":name":"ä","b":true,"c":9007199254740993}}"#),
        (0, r#"{"query":"SELECT id FROM canary","max_rows":3,"cursor":"AAAAAAAAAAAAAAAAAAAAAA"}"#),
        (0, r#"{"query":"SELECT nme FROM canry WHERE ä = 1"}"#),
        (1, r#"{"query":"INSERT INTO audit VALUES (?) RETURNING *","params":["x"]}"#),
        (5, r#"{"table_name":"canary"}"#),
        (6, r#"{"text":"na"}"#),
        (7, r#"{"insight":"x"}"#),
        (8, "{}"),
    ] {
        seeds.push(with(tool, 1, arguments));
        let whole = String::from_utf8(body(TOOLS[usize::from(tool)], &serde_json::from_str(arguments).expect("JSON")));
        seeds.push(with(tool, 2, &whole.expect("UTF-8")));
    }
    seeds
}

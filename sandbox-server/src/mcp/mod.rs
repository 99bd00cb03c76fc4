//! The MCP server: the tools, resources and the prompt on the database. Both protocol eras and both transports share it. What it is made
//! of is here; requests are handler.rs, calls of tools call.rs; how requests arrive is http/ and main.rs.

pub mod arguments;
mod call;
mod dialect;
pub mod error;
pub mod events;
mod handler;
pub mod portable;
pub mod prompt;
pub mod render;
pub mod resources;
pub mod tools;
pub mod types;
pub mod values;

use std::sync::Arc;

use rmcp::model::{Implementation, ServerCapabilities, ServerConfig, Tool};
use tokio_util::sync::CancellationToken;

use crate::db::Database;
use crate::db::authorizer::SchemaMode;
use crate::metrics::Metrics;
use crate::telemetry::Telemetry;
use events::{Events, Watched};

/// The handler of every request. Cheap to make: rmcp takes one for each request, or each session.
#[derive(Debug, Clone)]
pub struct SqliteMcp {
    shared: Arc<Shared>,
    /// Of this session; requests without one have an empty set.
    watched: Arc<Watched>,
}

/// What main.rs decides about the handler.
#[derive(Debug, Clone, Default)]
pub struct HandlerSettings {
    /// Clients of earlier eras keep a session, through which they can be told of changes.
    pub sessions: bool,
    /// Write the audit log.
    pub audit: bool,
    /// Absent: no traces.
    pub telemetry: Option<Telemetry>,
    /// Cancelled when running calls have had their time to finish: then they are stopped.
    pub end: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    db: Database,
    metrics: Metrics,
    settings: HandlerSettings,
    end: CancellationToken,
    events: Events,
    tools: Vec<Tool>,
    info: ServerConfig,
}

impl SqliteMcp {
    /// A handler over an open database. Subscriptions end when `stop` is cancelled.
    pub fn new(db: Database, metrics: Metrics, settings: HandlerSettings, stop: CancellationToken) -> Self {
        let (read_only, schema) = (db.options().read_only, db.options().schema);
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_prompts()
            .enable_completions()
            .build();
        let info = ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("sandbox-server", env!("CARGO_PKG_VERSION")).with_title("SQLite sandbox"))
            .with_instructions(instructions(read_only, schema));
        let shared = Shared {
            db,
            metrics,
            end: settings.end.clone(),
            settings,
            events: Events::new(stop),
            tools: tools::definitions(read_only, schema),
            info,
        };
        Self { shared: Arc::new(shared), watched: Arc::default() }
    }

    /// A handler for another session over the same database.
    pub fn for_another_session(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), watched: Arc::default() }
    }
}

fn instructions(read_only: bool, schema: SchemaMode) -> String {
    if read_only {
        return "A SQLite database that can only be read. Begin with list_tables and describe_table, then use read_query with values in params.".into();
    }
    let schema = match schema {
        SchemaMode::None => "the schema cannot be changed",
        SchemaMode::Add => "create_table to create tables and indexes",
        SchemaMode::Full => "create_table and change_schema to change the schema",
    };
    format!(
        "A SQLite database. Begin with list_tables and describe_table. Use read_query to read, write_query to change rows, {schema}; one statement a call, \
         values in params. Each call is a transaction of its own; write_batch runs several statements in one."
    )
}

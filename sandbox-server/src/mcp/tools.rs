//! The tools: their names, schemas and hints, and how a call's arguments are read. Running them is mcp/mod.rs.

use std::borrow::Cow;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::portable;
use super::types::{
    BatchArgs, BatchResult, CreateArgs, DescribeArgs, Done, ExplainArgs, InsightArgs, NoArgs, QueryResult, ReadArgs, SchemaArgs,
    SearchArgs, SearchResult, TableList, WriteArgs, WriteResult,
};
use crate::db::authorizer::SchemaMode;
use crate::db::schema::TableDescription;

/// A call whose arguments have been read.
#[derive(Debug)]
pub enum ToolCall {
    /// `read_query`
    Read(ReadArgs),
    /// `write_query`
    Write(WriteArgs),
    /// `write_batch`
    Batch(BatchArgs),
    /// `create_table`
    Create(CreateArgs),
    /// `change_schema`
    ChangeSchema(SchemaArgs),
    /// `execute_sql_query`
    Any(ReadArgs),
    /// `list_tables`
    ListTables,
    /// `describe_table`
    Describe(DescribeArgs),
    /// `append_insight`
    Insight(InsightArgs),
    /// `explain_query`
    Explain(ExplainArgs),
    /// `search_schema`
    Search(SearchArgs),
}

/// Why a call could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// No such tool: a mistake of the client, answered as a protocol error.
    UnknownTool,
    /// The arguments do not fit: a mistake of the model, answered as a tool error that it can mend.
    Arguments(String),
}

impl ToolCall {
    /// Reads a call.
    pub fn read(name: &str, arguments: Option<JsonObject>) -> Result<Self, Unreadable> {
        let arguments = Value::Object(arguments.unwrap_or_default());
        Self::from_arguments(name, arguments)
    }

    /// Reads a call whose arguments are still JSON; None: they are no object.
    pub fn read_json(name: &str, arguments: Option<&RawValue>) -> Option<Result<Self, Unreadable>> {
        let Some(arguments) = arguments else { return Some(Self::read(name, None)) };
        if !arguments.get().starts_with('{') {
            return None;
        }
        // What cannot be read is read again the other way, for the words of its error, or since a field stands twice in it.
        let quick = || Self::from_arguments(name, arguments).ok().map(Ok);
        quick().or_else(|| Some(Self::read(name, serde_json::from_str(arguments.get()).ok()?)))
    }

    fn from_arguments<'de, A>(name: &str, arguments: A) -> Result<Self, Unreadable>
    where
        A: Deserializer<'de, Error = serde_json::Error>,
    {
        Ok(match name {
            "read_query" => Self::Read(arguments_of(name, arguments)?),
            "write_query" => Self::Write(arguments_of(name, arguments)?),
            "write_batch" => Self::Batch(arguments_of(name, arguments)?),
            "create_table" => Self::Create(arguments_of(name, arguments)?),
            "change_schema" => Self::ChangeSchema(arguments_of(name, arguments)?),
            "list_tables" => arguments_of::<NoArgs>(name, arguments).map(|_| Self::ListTables)?,
            "describe_table" => Self::Describe(arguments_of(name, arguments)?),
            "append_insight" => Self::Insight(arguments_of(name, arguments)?),
            "explain_query" => Self::Explain(arguments_of(name, arguments)?),
            "search_schema" => Self::Search(arguments_of(name, arguments)?),
            "execute_sql_query" => Self::Any(arguments_of(name, arguments)?),
            _ => return Err(Unreadable::UnknownTool),
        })
    }

    /// The SQL, for error messages and the audit log.
    pub fn sql(&self) -> Cow<'_, str> {
        match self {
            Self::Read(args) | Self::Any(args) => args.query.as_str().into(),
            Self::Write(args) => args.query.as_str().into(),
            Self::Batch(args) => args.statements.iter().map(|one| one.query.as_str()).collect::<Vec<_>>().join(";\n").into(),
            Self::Create(args) => args.query.as_str().into(),
            Self::ChangeSchema(args) => args.query.as_str().into(),
            Self::Explain(args) => args.query.as_str().into(),
            Self::ListTables | Self::Describe(_) | Self::Insight(_) | Self::Search(_) => "".into(),
        }
    }
}

fn arguments_of<'de, T: Deserialize<'de>>(
    tool: &str,
    arguments: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<T, Unreadable> {
    T::deserialize(arguments)
        .map_err(|error| Unreadable::Arguments(format!("the arguments of {tool} do not fit its schema: {error}")))
}

/// Whether `name` is one of ours: metrics must not grow with whatever clients send.
pub fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|known| **known == name).copied()
}

const NAMES: [&str; 11] = [
    "read_query",
    "write_query",
    "write_batch",
    "create_table",
    "change_schema",
    "list_tables",
    "describe_table",
    "append_insight",
    "explain_query",
    "search_schema",
    "execute_sql_query",
];

/// Every tool that this server offers: with `read_only` those that write are left out, and those for the schema are there by its mode.
pub fn definitions(read_only: bool, mode: SchemaMode) -> Vec<Tool> {
    let reads = [
        reading::<ReadArgs, QueryResult>(
            "read_query",
            "Run a query",
            "Run one SELECT (or VALUES, WITH … SELECT, EXPLAIN, reporting PRAGMA) on the SQLite database and get its rows. Pass values in `params`, not in the SQL. \
             Long results come in pages: call again with `cursor`.",
        ),
        reading::<NoArgs, TableList>("list_tables", "List tables", "List the tables and views of the database."),
        reading::<DescribeArgs, TableDescription>(
            "describe_table",
            "Describe a table",
            "Show a table's columns, primary key, indexes, foreign keys and the SQL that created it.",
        ),
        reading::<ExplainArgs, QueryResult>(
            "explain_query",
            "Explain a query",
            "Show how SQLite would run a statement (which indexes it uses), without running it.",
        ),
        reading::<SearchArgs, SearchResult>(
            "search_schema",
            "Search the schema",
            "Find tables and columns by a part of their name.",
        ),
    ];
    let writes = [
        tool::<WriteArgs>(
            "write_query",
            "Change rows",
            "Run one INSERT, UPDATE, DELETE or REPLACE. The answer comes when the change is on disk. Pass values in `params`, not in the SQL.",
        )
        .with_output_schema::<WriteResult>()
        .with_annotations(hints("Change rows").destructive(true).idempotent(false)),
        tool::<BatchArgs>(
            "write_batch",
            "Run several statements",
            "Run several statements in order, as one transaction: all of them are kept or, when one fails, none. Each may have values in `params`, \
             and each sees what those before it did. One result a statement.",
        )
        .with_output_schema::<BatchResult>()
        .with_annotations(hints("Run several statements").destructive(true).idempotent(false)),
        tool::<InsightArgs>("append_insight", "Add an insight", "Add a line to the memo at memo://insights.")
            .with_output_schema::<Done>()
            .with_annotations(hints("Add an insight").destructive(false).idempotent(false)),
    ];
    // Destructive: a unique index lets other callers' inserts fail from then on.
    let create = tool::<CreateArgs>(
        "create_table",
        "Create a table",
        "Run one CREATE TABLE, CREATE INDEX, CREATE VIEW or CREATE VIRTUAL TABLE (fts5, rtree, geopoly).",
    )
    .with_output_schema::<Done>()
    .with_annotations(hints("Create a table").destructive(true).idempotent(false));
    let change_schema = tool::<SchemaArgs>(
        "change_schema",
        "Change the schema",
        "Run one ALTER TABLE, DROP, CREATE (triggers too), REINDEX, ANALYZE or VACUUM. What is dropped is gone.",
    )
    .with_output_schema::<Done>()
    .with_annotations(hints("Change the schema").destructive(true).idempotent(false));
    // No output schema: its results have that of the tool it stands for.
    let alias = tool::<ReadArgs>(
        "execute_sql_query",
        "Run SQL",
        "Run one SQL statement: the same as read_query, write_query or create_table, whichever it is for. Prefer those.",
    );
    let alias = if read_only {
        alias.with_annotations(hints("Run SQL").read_only(true))
    } else {
        alias.with_annotations(hints("Run SQL").destructive(true).idempotent(false))
    };
    let mut tools = Vec::from(reads);
    if !read_only {
        tools.extend(writes);
        tools.extend((mode != SchemaMode::None).then_some(create));
        tools.extend((mode == SchemaMode::Full).then_some(change_schema));
    }
    tools.push(alias);
    for tool in &mut tools {
        portable::rewrite(&mut tool.input_schema);
        tool.output_schema.iter_mut().for_each(portable::rewrite);
    }
    tools
}

fn tool<A: JsonSchema + 'static>(name: &'static str, title: &str, description: &'static str) -> Tool {
    Tool::new(name, description, JsonObject::default()).with_input_schema::<A>().with_title(title)
}

fn reading<A: JsonSchema + 'static, R: JsonSchema + 'static>(name: &'static str, title: &str, description: &'static str) -> Tool {
    tool::<A>(name, title, description).with_output_schema::<R>().with_annotations(hints(title).read_only(true).idempotent(true))
}

/// All of them work on this one database and nothing else.
fn hints(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(false).open_world(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, arguments: &Value) -> Result<ToolCall, Unreadable> {
        ToolCall::read(name, arguments.as_object().cloned())
    }

    #[test]
    fn every_defined_tool_is_known_and_the_other_way_round() {
        let mut defined: Vec<_> = definitions(false, SchemaMode::Full).into_iter().map(|tool| tool.name.to_string()).collect();
        let mut names: Vec<_> = NAMES.iter().map(ToString::to_string).collect();
        defined.sort();
        names.sort();
        assert_eq!(defined, names);
    }

    #[test]
    fn no_schema_uses_what_some_clients_refuse() {
        for tool in definitions(false, SchemaMode::Full) {
            let text = serde_json::to_string(&tool).unwrap();
            for form in ["\"format\"", "\"type\":[", "\"items\":true", "\"default\":null"] {
                assert!(!text.contains(form), "{form} in {text}");
            }
        }
    }

    #[test]
    fn a_server_that_only_reads_offers_no_tool_that_writes() {
        assert!(
            definitions(true, SchemaMode::Full).iter().all(|tool| tool
                .annotations
                .as_ref()
                .and_then(|hints| hints.read_only_hint)
                == Some(true))
        );
    }

    #[test]
    fn tools_for_the_schema_are_offered_by_its_mode_and_say_that_they_destroy() {
        let offered = |mode| {
            let tools = definitions(false, mode);
            let schema = tools.into_iter().filter(|tool| ["create_table", "change_schema"].contains(&&*tool.name));
            schema.map(|tool| (tool.name.to_string(), tool.annotations.unwrap().destructive_hint)).collect::<Vec<_>>()
        };
        assert_eq!(offered(SchemaMode::None), []);
        assert_eq!(offered(SchemaMode::Add), [("create_table".to_owned(), Some(true))]);
        assert_eq!(offered(SchemaMode::Full).len(), 2);
        assert!(offered(SchemaMode::Full).iter().all(|(_, destroys)| *destroys == Some(true)));
    }

    #[test]
    fn arguments_are_read_alike_from_json_and_from_values() {
        for text in [
            r#"{"query": "x", "params": [1, -0, 1.5, 1e400000000, 18446744073709551616, "a\ud83d\ude00", null, {"$blob": "AA=="}]}"#,
            r#"{"query": "x", "params": {"a": 1, "a": 2}, "max_rows": 5}"#,
            r#"{"query": "x", "query": "y"}"#,
            r#"{"query": "x", "max_rows": 5.0}"#,
            r#"{"query": "x", "max_rows": null, "cursor": null, "params": null}"#,
            r#"{"query": "x", "sql": 1}"#,
            r#"{"query": 1}"#,
            r"{}",
            r#" {"query": "x"} "#,
        ] {
            let raw: Box<RawValue> = match serde_json::from_str(text) {
                Ok(raw) => raw,
                Err(_) => continue,
            };
            let from_values = serde_json::from_str(text).ok().map(|object| ToolCall::read("read_query", Some(object)));
            let from_json = ToolCall::read_json("read_query", Some(&raw));
            assert_eq!(format!("{from_json:?}"), format!("{from_values:?}"), "{text}");
        }
        let array: Box<RawValue> = serde_json::from_str(r#"["SELECT 1", null, null, null]"#).unwrap();
        assert!(
            ToolCall::read_json("read_query", Some(&array)).is_none(),
            "fields by their place are nothing that anybody means"
        );
        assert!(matches!(ToolCall::read_json("list_tables", None), Some(Ok(ToolCall::ListTables))));
    }

    #[test]
    fn arguments_that_do_not_fit_are_named() {
        let text = |arguments: &Value| match read("read_query", arguments) {
            Err(Unreadable::Arguments(text)) => text,
            other => format!("{other:?}"),
        };
        insta::assert_snapshot!(text(&json!({})), @"the arguments of read_query do not fit its schema: missing field `query`");
        insta::assert_snapshot!(text(&json!({"query": 1})), @"the arguments of read_query do not fit its schema: invalid type: integer `1`, expected a string");
        insta::assert_snapshot!(text(&json!({"query": "x", "sql": 1})), @"the arguments of read_query do not fit its schema: unknown field `sql`, expected one of `query`, `params`, `max_rows`, `cursor`");
        assert!(matches!(read("no_such_tool", &json!({})), Err(Unreadable::UnknownTool)));
    }
}

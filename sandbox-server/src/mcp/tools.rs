//! The tools: their names, schemas and hints, and how a call's arguments are read. Running them is mcp/mod.rs.

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::portable;
use super::types::{
    CreateArgs, DescribeArgs, Done, ExplainArgs, InsightArgs, NoArgs, QueryResult, ReadArgs, SearchArgs, SearchResult, TableList,
    WriteArgs, WriteResult,
};
use crate::db::query;
use crate::db::schema::TableDescription;

/// A call whose arguments have been read.
#[derive(Debug)]
pub enum ToolCall {
    /// `read_query`
    Read(ReadArgs),
    /// `write_query`
    Write(WriteArgs),
    /// `create_table`
    Create(CreateArgs),
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
            "create_table" => Self::Create(arguments_of(name, arguments)?),
            "list_tables" => arguments_of::<NoArgs>(name, arguments).map(|_| Self::ListTables)?,
            "describe_table" => Self::Describe(arguments_of(name, arguments)?),
            "append_insight" => Self::Insight(arguments_of(name, arguments)?),
            "explain_query" => Self::Explain(arguments_of(name, arguments)?),
            "search_schema" => Self::Search(arguments_of(name, arguments)?),
            "execute_sql_query" => Self::by_statement(arguments_of(name, arguments)?),
            _ => return Err(Unreadable::UnknownTool),
        })
    }

    /// `execute_sql_query` is an alias: the statement's first word says of which tool.
    fn by_statement(args: ReadArgs) -> Self {
        match query::keyword(&args.query).as_str() {
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" => Self::Write(WriteArgs { query: args.query, params: args.params }),
            "CREATE" => Self::Create(CreateArgs { query: args.query }),
            _ => Self::Read(args),
        }
    }

    /// The SQL, for error messages and the audit log.
    pub fn sql(&self) -> &str {
        match self {
            Self::Read(args) => &args.query,
            Self::Write(args) => &args.query,
            Self::Create(args) => &args.query,
            Self::Explain(args) => &args.query,
            Self::ListTables | Self::Describe(_) | Self::Insight(_) | Self::Search(_) => "",
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

const NAMES: [&str; 9] = [
    "read_query",
    "write_query",
    "create_table",
    "list_tables",
    "describe_table",
    "append_insight",
    "explain_query",
    "search_schema",
    "execute_sql_query",
];

/// Every tool that this server offers; with `read_only` those that write are left out.
pub fn definitions(read_only: bool) -> Vec<Tool> {
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
        tool::<CreateArgs>("create_table", "Create a table", "Run one CREATE TABLE, CREATE INDEX, CREATE VIEW or CREATE VIRTUAL TABLE (fts5, rtree).")
            .with_output_schema::<Done>()
            .with_annotations(hints("Create a table").destructive(false).idempotent(false)),
        tool::<InsightArgs>("append_insight", "Add an insight", "Add a line to the memo at memo://insights.")
            .with_output_schema::<Done>()
            .with_annotations(hints("Add an insight").destructive(false).idempotent(false)),
    ];
    // No output schema: its results have that of the tool it stands for.
    let alias = tool::<ReadArgs>(
        "execute_sql_query",
        "Run SQL",
        "Run one SQL statement: the same as read_query, write_query or create_table, whichever its first word asks for. Prefer those.",
    );
    let alias = if read_only {
        alias.with_annotations(hints("Run SQL").read_only(true))
    } else {
        alias.with_annotations(hints("Run SQL").destructive(true).idempotent(false))
    };
    let mut tools = Vec::from(reads);
    if !read_only {
        tools.extend(writes);
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
        let mut defined: Vec<_> = definitions(false).into_iter().map(|tool| tool.name.to_string()).collect();
        let mut names: Vec<_> = NAMES.iter().map(ToString::to_string).collect();
        defined.sort();
        names.sort();
        assert_eq!(defined, names);
    }

    #[test]
    fn no_schema_uses_what_some_clients_refuse() {
        for tool in definitions(false) {
            let text = serde_json::to_string(&tool).unwrap();
            for form in ["\"format\"", "\"type\":[", "\"items\":true", "\"default\":null"] {
                assert!(!text.contains(form), "{form} in {text}");
            }
        }
    }

    #[test]
    fn a_server_that_only_reads_offers_no_tool_that_writes() {
        assert!(
            definitions(true).iter().all(|tool| tool.annotations.as_ref().and_then(|hints| hints.read_only_hint) == Some(true))
        );
    }

    #[test]
    fn the_alias_follows_the_statement() {
        assert!(matches!(read("execute_sql_query", &json!({"query": "select 1"})), Ok(ToolCall::Read(_))));
        assert!(matches!(read("execute_sql_query", &json!({"query": "-- x\nDELETE FROM t"})), Ok(ToolCall::Write(_))));
        assert!(matches!(read("execute_sql_query", &json!({"query": "create table t(a)"})), Ok(ToolCall::Create(_))));
        assert!(matches!(read("execute_sql_query", &json!({"query": "DROP TABLE t"})), Ok(ToolCall::Read(_))));
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

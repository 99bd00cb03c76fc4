//! The tools: their names, schemas and hints, and how a call's arguments are read. Running them is mcp/mod.rs.

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;

use super::arguments::Arguments;
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
    /// Reads a call from the JSON text of its arguments; None: there are none.
    pub fn read(name: &str, arguments: Option<&str>) -> Result<Self, Unreadable> {
        let read = match name {
            "read_query" => Arguments::read(name, arguments).map(Self::Read),
            "write_query" => Arguments::read(name, arguments).map(Self::Write),
            "create_table" => Arguments::read(name, arguments).map(Self::Create),
            "list_tables" => Arguments::read::<NoArgs>(name, arguments).map(|_| Self::ListTables),
            "describe_table" => Arguments::read(name, arguments).map(Self::Describe),
            "append_insight" => Arguments::read(name, arguments).map(Self::Insight),
            "explain_query" => Arguments::read(name, arguments).map(Self::Explain),
            "search_schema" => Arguments::read(name, arguments).map(Self::Search),
            "execute_sql_query" => Arguments::read(name, arguments).map(Self::by_statement),
            _ => return Err(Unreadable::UnknownTool),
        };
        read.map_err(Unreadable::Arguments)
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
    use super::super::arguments::Args;
    use super::*;
    use serde_json::{Value, json};

    fn read(name: &str, arguments: &Value) -> Result<ToolCall, Unreadable> {
        ToolCall::read(name, Some(&arguments.to_string()))
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
    fn a_list_is_read_whatever_it_stands_in() {
        struct Item(String);
        struct Batch(Vec<Item>);
        impl Args for Item {
            const FIELDS: &'static [&'static str] = &["query"];
            fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
                arguments.text("query", "one SQL statement").map(Self)
            }
        }
        impl Args for Batch {
            const FIELDS: &'static [&'static str] = &["statements"];
            fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
                arguments.list("statements").map(Self)
            }
        }
        let read = |json: &str| {
            let batch = Arguments::read::<Batch>("write_batch", Some(json));
            batch.map(|Batch(items)| items.into_iter().map(|Item(query)| query).collect::<Vec<_>>().join("; "))
        };
        assert_eq!(read(r#"{"statements": [{"query": "a"}, {"query": "b", "x": 1}]}"#).unwrap(), "a; b");
        assert_eq!(read(r#"{"statements": "[{\"query\": \"a\"}]"}"#).unwrap(), "a");
        assert_eq!(read(r#"{"statements": []}"#).unwrap(), "");
        for (sent, sentence) in [
            ("{}", r#"write_batch needs "statements", an array of objects such as {"query": "…"}"#),
            (
                r#"{"statements": {"query": "a"}}"#,
                r#""statements" must be an array of objects such as {"query": "…"}, not an object"#,
            ),
            (r#"{"statements": "SELECT 1"}"#, r#""statements" must be an array of objects such as {"query": "…"}, not a string"#),
            (
                r#"{"statements": ["a"]}"#,
                r#"the arguments of statements[0] must be an object such as {"query": "…"}, not a string"#,
            ),
            (
                r#"{"statements": [{"query": "a"}, {"sql": "b"}]}"#,
                r#"statements[1] needs "query", a string with one SQL statement; it has no argument "sql""#,
            ),
        ] {
            assert_eq!(read(sent).unwrap_err(), sentence, "{sent}");
        }
    }
}

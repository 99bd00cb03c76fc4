//! The tools: their names, schemas and hints, and how a call's arguments are read. Running them is mcp/call.rs.

use std::borrow::Cow;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;

use super::arguments::Arguments;
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
    /// Reads a call from the JSON text of its arguments; None: there are none.
    pub fn read(name: &str, arguments: Option<&str>) -> Result<Self, Unreadable> {
        let read = match name {
            "read_query" => Arguments::read(name, arguments).map(Self::Read),
            "write_query" => Arguments::read(name, arguments).map(Self::Write),
            "write_batch" => Arguments::read(name, arguments).map(Self::Batch),
            "create_table" => Arguments::read(name, arguments).map(Self::Create),
            "change_schema" => Arguments::read(name, arguments).map(Self::ChangeSchema),
            "list_tables" => Arguments::read::<NoArgs>(name, arguments).map(|_| Self::ListTables),
            "describe_table" => Arguments::read(name, arguments).map(Self::Describe),
            "append_insight" => Arguments::read(name, arguments).map(Self::Insight),
            "explain_query" => Arguments::read(name, arguments).map(Self::Explain),
            "search_schema" => Arguments::read(name, arguments).map(Self::Search),
            "execute_sql_query" => Arguments::read(name, arguments).map(Self::Any),
            _ => return Err(Unreadable::UnknownTool),
        };
        read.map_err(Unreadable::Arguments)
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
    use super::super::arguments::Args;
    use super::*;

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
            const EXAMPLE: &'static str = r#"{"statements": [{"query": "…"}]}"#;
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
        let many = |count: usize| format!("{{\"statements\": [{}]}}", vec![r#"{"query":"a"}"#; count].join(","));
        assert!(read(&many(10_000)).is_ok());
        assert_eq!(read(&many(10_001)).unwrap_err(), "\"statements\" holds more than 10000 objects: send several calls");
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

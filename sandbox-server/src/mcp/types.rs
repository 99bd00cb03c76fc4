//! The arguments and results of the tools, as JSON schemas see them. What a tool does is mcp/tools.rs.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::arguments::{Args, Arguments};
use super::portable;
use crate::db::parameters::Parameters;
use crate::db::query::{ResultSet, integer_to_json};
use crate::db::schema::{SchemaMatch, TableSummary};
use crate::db::write::WriteOutcome;

/// What a query or statement argument holds, in sentences.
const STATEMENT: &str = "one SQL statement";

/// Arguments of `read_query`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReadArgs {
    /// One SELECT, VALUES, WITH … SELECT, EXPLAIN or reporting PRAGMA.
    pub query: String,
    /// Values for the placeholders in the query: an array for `?`, an object for `:name`. Always pass values here instead of writing them into the SQL. Bytes are {"$blob": base64}, integers beyond 2^53 {"$int": digits}.
    #[schemars(default, schema_with = "portable::params")]
    pub params: Parameters,
    /// At most so many rows; the server has its own maximum.
    #[schemars(range(min = 1))]
    pub max_rows: Option<u32>,
    /// `next_cursor` of the page before, with the same query and params.
    pub cursor: Option<String>,
}

impl Args for ReadArgs {
    const FIELDS: &'static [&'static str] = &["query", "params", "max_rows", "cursor"];

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self {
            query: arguments.text("query", STATEMENT)?,
            params: arguments.parameters("params")?,
            max_rows: arguments.count("max_rows")?,
            cursor: arguments.optional_text("cursor", "the next_cursor of the page before")?,
        })
    }
}

/// Arguments of `write_query`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WriteArgs {
    /// One INSERT, UPDATE, DELETE or REPLACE; it may have a RETURNING clause.
    pub query: String,
    /// Values for the placeholders in the query: an array for `?`, an object for `:name`. Always pass values here instead of writing them into the SQL. Bytes are {"$blob": base64}, integers beyond 2^53 {"$int": digits}.
    #[schemars(default, schema_with = "portable::params")]
    pub params: Parameters,
}

impl Args for WriteArgs {
    const FIELDS: &'static [&'static str] = &["query", "params"];

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { query: arguments.text("query", STATEMENT)?, params: arguments.parameters("params")? })
    }
}

/// Arguments of `write_batch`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BatchArgs {
    /// The statements, in order.
    #[schemars(length(min = 1))]
    pub statements: Vec<BatchStatement>,
}

impl Args for BatchArgs {
    const FIELDS: &'static [&'static str] = &["statements"];
    const EXAMPLE: &'static str = r#"{"statements": [{"query": "…"}]}"#;

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { statements: arguments.list("statements")? })
    }
}

/// One statement of a batch.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
pub struct BatchStatement {
    /// One INSERT, UPDATE, DELETE, REPLACE, CREATE or SELECT.
    pub query: String,
    /// Values for the placeholders in the query: an array for `?`, an object for `:name`. Always pass values here instead of writing them into the SQL. Bytes are {"$blob": base64}, integers beyond 2^53 {"$int": digits}.
    #[schemars(default, schema_with = "portable::params")]
    pub params: Parameters,
}

impl Args for BatchStatement {
    const FIELDS: &'static [&'static str] = &["query", "params"];

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { query: arguments.text("query", STATEMENT)?, params: arguments.parameters("params")? })
    }

    fn of_text(text: &str) -> Option<Self> {
        Some(Self { query: text.to_owned(), params: Parameters::None })
    }
}

/// Arguments of `change_schema`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SchemaArgs {
    /// One CREATE, ALTER, DROP, REINDEX, ANALYZE or VACUUM.
    pub query: String,
}

impl Args for SchemaArgs {
    const FIELDS: &'static [&'static str] = &["query"];

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { query: arguments.text("query", STATEMENT)? })
    }
}

/// Arguments of `create_table`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CreateArgs {
    /// One CREATE TABLE, CREATE INDEX, CREATE VIEW or CREATE VIRTUAL TABLE (fts5, rtree).
    pub query: String,
}

impl Args for CreateArgs {
    const FIELDS: &'static [&'static str] = &["query"];

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { query: arguments.text("query", STATEMENT)? })
    }
}

/// Arguments of `list_tables`: none.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NoArgs {}

impl Args for NoArgs {
    const FIELDS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = "";

    fn read(_: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self {})
    }
}

/// Arguments of `describe_table`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DescribeArgs {
    /// The table or view.
    pub table_name: String,
}

impl Args for DescribeArgs {
    const FIELDS: &'static [&'static str] = &["table_name"];
    const EXAMPLE: &'static str = r#"{"table_name": "…"}"#;

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { table_name: arguments.text("table_name", "the name of a table or view")? })
    }
}

/// Arguments of `append_insight`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct InsightArgs {
    /// What was found out from the data.
    #[schemars(length(min = 1))]
    pub insight: String,
}

impl Args for InsightArgs {
    const FIELDS: &'static [&'static str] = &["insight"];
    const EXAMPLE: &'static str = r#"{"insight": "…"}"#;

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { insight: arguments.text("insight", "what was found out")? })
    }
}

/// Arguments of `explain_query`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ExplainArgs {
    /// The statement, without EXPLAIN in front. It is not run.
    pub query: String,
}

impl Args for ExplainArgs {
    const FIELDS: &'static [&'static str] = &["query"];

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { query: arguments.text("query", STATEMENT)? })
    }
}

/// Arguments of `search_schema`.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SearchArgs {
    /// A part of a table's or column's name, in any case.
    #[schemars(length(min = 1))]
    pub text: String,
}

impl Args for SearchArgs {
    const FIELDS: &'static [&'static str] = &["text"];
    const EXAMPLE: &'static str = r#"{"text": "…"}"#;

    fn read(arguments: &Arguments<'_>) -> Result<Self, String> {
        Ok(Self { text: arguments.text("text", "a part of a name")? })
    }
}

/// Rows of a query.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QueryResult {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, each an array in the order of the columns. Bytes are {"$blob": base64}; integers beyond 2^53 are strings.
    #[schemars(schema_with = "portable::rows")]
    pub rows: Vec<Vec<Value>>,
    /// How many rows are in this result.
    pub row_count: usize,
    /// There are rows after these; ask for them with next_cursor, or narrow the query.
    pub truncated: bool,
    /// Send it back with the same query and params for the rows after these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Data has changed since the page before: rows may be missing or appear twice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub changed_between_pages: bool,
}

impl QueryResult {
    /// A result of rows that has no further pages.
    pub fn whole(set: ResultSet) -> Self {
        Self {
            row_count: set.rows.len(),
            columns: set.columns,
            rows: set.rows,
            truncated: set.more,
            next_cursor: None,
            changed_between_pages: false,
        }
    }

    /// The same as JSON, without copying the rows once more. The test below holds it to the derived form.
    pub fn into_value(self) -> Value {
        let Self { columns, rows, row_count, truncated, next_cursor, changed_between_pages } = self;
        let mut object = Map::new();
        object.insert("columns".into(), columns.into());
        object.insert("rows".into(), Value::Array(rows.into_iter().map(Value::Array).collect()));
        object.insert("row_count".into(), row_count.into());
        object.insert("truncated".into(), truncated.into());
        if let Some(cursor) = next_cursor {
            object.insert("next_cursor".into(), cursor.into());
        }
        if changed_between_pages {
            object.insert("changed_between_pages".into(), true.into());
        }
        Value::Object(object)
    }
}

/// An integer of the database outside of rows. Beyond 2^53 it is a string, as in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer(pub i64);

impl Serialize for Integer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        integer_to_json(self.0).serialize(serializer)
    }
}

/// What a write did.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct WriteResult {
    /// Rows inserted, updated or deleted.
    pub affected_rows: u64,
    /// The rowid of the last row that the statement inserted; absent where it inserted none. Beyond 2^53 it is a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "portable::integer")]
    pub last_insert_rowid: Option<Integer>,
    /// The rows of RETURNING.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned: Option<QueryResult>,
}

impl From<WriteOutcome> for WriteResult {
    fn from(outcome: WriteOutcome) -> Self {
        Self {
            affected_rows: outcome.rows_affected,
            last_insert_rowid: outcome.last_insert_rowid.map(Integer),
            returned: outcome.returned.map(QueryResult::whole),
        }
    }
}

/// What a batch did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BatchResult {
    /// One for each statement, in order.
    pub results: Vec<WriteResult>,
}

/// The result of a tool that has nothing to report but that it is done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Done {
    /// What was done.
    pub message: String,
}

/// Tables and views.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TableList {
    /// By name.
    pub tables: Vec<TableSummary>,
}

/// What a search of the schema found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchResult {
    /// Tables first, then columns.
    pub matches: Vec<SchemaMatch>,
    /// There are more than these; search for a longer part of the name.
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_quick_form_of_a_result_equals_the_derived_one() {
        for (next_cursor, changed_between_pages) in [(None, false), (Some("x".to_owned()), true)] {
            let result = || QueryResult {
                columns: vec!["a".into()],
                rows: vec![vec![json!(1)]],
                row_count: 1,
                truncated: next_cursor.is_some(),
                next_cursor: next_cursor.clone(),
                changed_between_pages,
            };
            assert_eq!(result().into_value(), serde_json::to_value(result()).unwrap());
        }
    }
}

//! Reads the schema: tables, columns, indexes, foreign keys. Only reads, and only names; the rows' content is db/query.rs.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _};
use schemars::JsonSchema;
use serde::Serialize;

use super::authorizer::INSIGHTS_TABLE;
use super::error::DbError;

/// A table or view.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// `table`, `view` or `virtual`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many columns it has.
    pub columns: i64,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Column {
    /// Position, from 0.
    pub cid: i64,
    /// Its name.
    pub name: String,
    /// The declared type; may be empty.
    #[serde(rename = "type")]
    pub declared_type: String,
    /// Whether NULL is refused.
    pub notnull: bool,
    /// The default, as SQL.
    pub dflt_value: Option<String>,
    /// Position in the primary key, from 1; 0: not part of it.
    pub pk: i64,
    /// Computed from other columns: it cannot be written.
    pub generated: bool,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Whether it refuses duplicates.
    pub unique: bool,
    /// The indexed columns in order; null stands for an expression.
    pub columns: Vec<Option<String>>,
}

/// A foreign key, one entry a column.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ForeignKey {
    /// The column here.
    pub from: String,
    /// The table there.
    pub table: String,
    /// The column there; null: its primary key.
    pub to: Option<String>,
    /// What a deletion there does here.
    pub on_delete: String,
}

/// Everything about one table.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TableDescription {
    /// Its name, as it was created.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// The statement that made it; null for SQLite's own.
    pub sql: Option<String>,
}

/// A place in the schema that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SchemaMatch {
    /// The table or view.
    pub table: String,
    /// The column, when it was a column that matched.
    pub column: Option<String>,
    /// The column's declared type.
    #[serde(rename = "type")]
    pub declared_type: Option<String>,
}

/// Tables and views that belong to the user, by name.
pub fn tables(conn: &Connection) -> Result<Vec<TableSummary>, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT name, type, ncol FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> ?1 ORDER BY name",
    )?;
    let rows = statement
        .query_map([INSIGHTS_TABLE], |row| Ok(TableSummary { name: row.get(0)?, kind: row.get(1)?, columns: row.get(2)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Describes a table or view, whatever the case its name is given in, also as it stands in SQL: `main."a b"`. Of one that SQLite cannot use,
/// because a module or function is missing, it tells no columns.
pub fn describe(conn: &Connection, table: &str) -> Result<TableDescription, DbError> {
    let mut find =
        conn.prepare_cached("SELECT name, sql FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')")?;
    let mut found =
        |name: &str| find.query_row([name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))).optional();
    let as_sent = found(table)?;
    let Some((name, sql)) = (if as_sent.is_some() { as_sent } else { found(&bare_name(table))? }) else {
        return Err(DbError::NoSuchTable(table.to_owned()));
    };
    Ok(TableDescription {
        columns: known_columns(conn, &name)?,
        indexes: indexes(conn, &name)?,
        foreign_keys: foreign_keys(conn, &name)?,
        name,
        sql,
    })
}

/// A name as it stands in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name out of SQL: without its schema and its quotes.
fn bare_name(name: &str) -> String {
    let name = name.trim();
    let name = match name.split_once('.') {
        Some((schema, rest)) if schema.trim().eq_ignore_ascii_case("main") => rest.trim(),
        _ => name,
    };
    for (open, close) in [('"', '"'), ('`', '`'), ('\'', '\''), ('[', ']')] {
        if let Some(inside) = name.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) {
            return inside.replace(&format!("{close}{close}"), &close.to_string());
        }
    }
    name.to_owned()
}

fn columns(conn: &Connection, table: &str) -> Result<Vec<Column>, DbError> {
    // hidden = 1 are the hidden columns of virtual tables; 2 and 3 are generated.
    let mut statement = conn.prepare_cached(
        "SELECT cid, name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(Column {
            cid: row.get(0)?,
            name: row.get(1)?,
            declared_type: row.get(2)?,
            notnull: row.get(3)?,
            dflt_value: row.get(4)?,
            pk: row.get(5)?,
            generated: row.get::<_, i64>(6)? != 0,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The columns, as far as SQLite can tell them: a view of itself, or of what is not there any more, has none, and must not hide the others.
pub fn known_columns(conn: &Connection, table: &str) -> Result<Vec<Column>, DbError> {
    match columns(conn, table) {
        Err(DbError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(Vec::new()),
        columns => columns,
    }
}

fn indexes(conn: &Connection, table: &str) -> Result<Vec<Index>, DbError> {
    let mut list = conn.prepare_cached("SELECT name, \"unique\" FROM pragma_index_list(?1) ORDER BY seq")?;
    let mut parts = conn.prepare_cached("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?;
    let heads =
        list.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?.collect::<Result<Vec<_>, _>>()?;
    heads
        .into_iter()
        .map(|(name, unique)| {
            let columns = parts.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(Index { name, unique, columns })
        })
        .collect()
}

fn foreign_keys(conn: &Connection, table: &str) -> Result<Vec<ForeignKey>, DbError> {
    let mut statement =
        conn.prepare_cached("SELECT \"from\", \"table\", \"to\", on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq")?;
    let rows = statement.query_map([table], |row| {
        Ok(ForeignKey { from: row.get(0)?, table: row.get(1)?, to: row.get(2)?, on_delete: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Tables and columns whose name contains `text`, at most `limit`; tables come first.
pub fn search(conn: &Connection, text: &str, limit: usize) -> Result<Vec<SchemaMatch>, DbError> {
    let text = text.to_lowercase();
    let contains = |name: &str| name.to_lowercase().contains(&text);
    let tables = tables(conn)?;
    let named = tables.iter().filter(|table| contains(&table.name));
    let mut found: Vec<_> =
        named.map(|table| SchemaMatch { table: table.name.clone(), column: None, declared_type: None }).collect();
    for TableSummary { name, .. } in &tables {
        if found.len() >= limit {
            break;
        }
        found.extend(known_columns(conn, name)?.into_iter().filter(|column| contains(&column.name)).map(|column| SchemaMatch {
            table: name.clone(),
            column: Some(column.name),
            declared_type: Some(column.declared_type),
        }));
    }
    found.truncate(limit);
    Ok(found)
}

/// The insights of the memo, oldest first.
pub fn insights(conn: &Connection) -> Result<Vec<String>, DbError> {
    let exists =
        conn.prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?.exists([INSIGHTS_TABLE])?;
    if !exists {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare_cached(&format!("SELECT insight FROM {INSIGHTS_TABLE} ORDER BY id"))?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The SQL that created a table and its indexes, or with None everything.
pub fn sql(conn: &Connection, table: Option<&str>) -> Result<String, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name <> ?2 AND (?1 IS NULL OR tbl_name = ?1 COLLATE NOCASE)
         AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow') ORDER BY tbl_name, type DESC, name",
    )?;
    let statements =
        statement.query_map((table, INSIGHTS_TABLE), |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    match table {
        Some(table) if statements.is_empty() => Err(DbError::NoSuchTable(table.to_owned())),
        _ => Ok(statements.join(";\n") + if statements.is_empty() { "" } else { ";\n" }),
    }
}

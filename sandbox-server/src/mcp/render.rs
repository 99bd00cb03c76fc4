//! Results as text that a person or a model reads. The structured form is mcp/types.rs. Clients cut long texts at the end: what is short and
//! must not be lost, such as the cursor of the next page, stands in front of what may be long.

use std::fmt::Write as _;

use serde_json::Value;

use super::types::{BatchResult, Integer, QueryResult, SearchResult, TableList, WriteResult};
use crate::db::schema::{TableDescription, TableSummary};

/// How many rows there are and how to go on, then the rows as a table with ` | ` between the columns.
pub fn query(result: &QueryResult) -> String {
    let mut text = counted(result.row_count, "row");
    text.push_str(if result.truncated { ", and there are more" } else { "" });
    if let Some(cursor) = &result.next_cursor {
        // Here and below: writing to a String cannot fail.
        let _ = write!(text, ": call again with the same query and cursor \"{cursor}\"");
    }
    if result.changed_between_pages {
        text.push_str("\nData has changed since the page before: rows may be missing or appear twice.");
    }
    if !result.columns.is_empty() && !result.rows.is_empty() {
        text.push('\n');
        text.push_str(&result.columns.join(" | "));
    }
    for row in &result.rows {
        text.push('\n');
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                text.push_str(" | ");
            }
            cell(&mut text, value);
        }
    }
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// NULL is told apart from the text "NULL" by its capitals and the missing quotes; line breaks would break the table.
fn cell(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("NULL"),
        Value::String(string) if string.contains(['\n', '\r']) => {
            text.push_str(&string.replace('\r', "\\r").replace('\n', "\\n"));
        }
        Value::String(string) => text.push_str(string),
        other => text.push_str(&other.to_string()),
    }
}

/// What a write did, in one line, and what it returned.
pub fn write(result: &WriteResult) -> String {
    let mut text = did(result);
    if let Some(returned) = &result.returned {
        text.push('\n');
        text.push_str(&query(returned));
    }
    text
}

fn did(result: &WriteResult) -> String {
    let mut text = match result.affected_rows {
        1 => "1 row affected".to_owned(),
        count => format!("{count} rows affected"),
    };
    if let Some(Integer(rowid)) = result.last_insert_rowid {
        let _ = write!(text, ", last rowid {rowid}");
    }
    text
}

/// What each statement of a batch did, one a line, then what they returned.
pub fn batch(result: &BatchResult) -> String {
    let numbered = || result.results.iter().enumerate();
    let mut parts: Vec<_> = numbered().map(|(index, done)| format!("{}: {}", index + 1, did(done))).collect();
    for (index, done) in numbered() {
        if let Some(returned) = &done.returned {
            parts.push(format!("\n{} returned {}", index + 1, query(returned)));
        }
    }
    parts.join("\n")
}

/// One table a line.
pub fn tables(list: &TableList) -> String {
    if list.tables.is_empty() {
        return "The database has no tables yet.".into();
    }
    let line = |table: &TableSummary| {
        let columns = counted(usize::try_from(table.columns).unwrap_or_default(), "column");
        format!("{} ({}, {columns})", table.name, table.kind)
    };
    let mut lines = vec![format!("{}:", counted(list.tables.len(), "table"))];
    lines.extend(list.tables.iter().map(line));
    lines.join("\n")
}

/// How much there is of it; indexes and foreign keys, one a line, then the columns. Where SQLite cannot tell the columns, the SQL says why.
pub fn description(table: &TableDescription) -> String {
    let mut lines = vec![format!(
        "{}: {}, {}, {}",
        table.name,
        counted(table.columns.len(), "column"),
        if table.indexes.len() == 1 { "1 index".into() } else { format!("{} indexes", table.indexes.len()) },
        counted(table.foreign_keys.len(), "foreign key column"),
    )];
    for index in &table.indexes {
        let columns: Vec<_> = index.columns.iter().map(|name| name.as_deref().unwrap_or("<expression>")).collect();
        lines.push(format!("  {}index {} ({})", if index.unique { "unique " } else { "" }, index.name, columns.join(", ")));
    }
    for key in &table.foreign_keys {
        lines.push(format!("  foreign key {} -> {}({})", key.from, key.table, key.to.as_deref().unwrap_or("primary key")));
    }
    for column in &table.columns {
        let mut line = format!("  {} {}", column.name, column.declared_type);
        if column.pk > 0 {
            line.push_str(" PRIMARY KEY");
        }
        if column.notnull {
            line.push_str(" NOT NULL");
        }
        if let Some(default) = &column.dflt_value {
            let _ = write!(line, " DEFAULT {default}");
        }
        if column.generated {
            line.push_str(" (generated)");
        }
        lines.push(line.trim_end().to_owned());
    }
    if table.columns.is_empty() {
        lines.extend(table.sql.clone());
    }
    lines.join("\n")
}

/// One match a line.
pub fn search(result: &SearchResult) -> String {
    if result.matches.is_empty() {
        return "No table or column has that in its name.".into();
    }
    let more = if result.truncated { ", and there are more: search for a longer part of the name" } else { "" };
    let mut lines = vec![format!("{} found{more}:", counted(result.matches.len(), "name"))];
    lines.extend(result.matches.iter().map(|found| match &found.column {
        Some(column) => {
            format!("{}.{column} {}", found.table, found.declared_type.as_deref().unwrap_or_default()).trim_end().to_owned()
        }
        None => format!("{} (table)", found.table),
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::schema::{Column, ForeignKey, Index, SchemaMatch};
    use serde_json::json;

    fn rows(next_cursor: Option<&str>) -> QueryResult {
        QueryResult {
            columns: vec!["id".into(), "note".into()],
            rows: vec![vec![json!(1), json!("a\nb")], vec![json!(2), json!(null)]],
            row_count: 2,
            truncated: next_cursor.is_some(),
            next_cursor: next_cursor.map(str::to_owned),
            changed_between_pages: next_cursor.is_some(),
        }
    }

    #[test]
    fn the_first_line_says_how_to_go_on_and_the_rows_are_a_table() {
        insta::assert_snapshot!(query(&rows(Some("abc"))), @r#"
        2 rows, and there are more: call again with the same query and cursor "abc"
        Data has changed since the page before: rows may be missing or appear twice.
        id | note
        1 | a\nb
        2 | NULL
        "#);
    }

    #[test]
    fn what_a_batch_did_stands_before_what_it_returned() {
        let wrote = |returned| WriteResult { affected_rows: 1, last_insert_rowid: Some(Integer(7)), returned };
        insta::assert_snapshot!(batch(&BatchResult { results: vec![wrote(Some(rows(None))), wrote(None)] }), @r"
        1: 1 row affected, last rowid 7
        2: 1 row affected, last rowid 7

        1 returned 2 rows
        id | note
        1 | a\nb
        2 | NULL
        ");
    }

    /// A client that cuts every text to its first 400 bytes.
    #[test]
    fn no_field_is_lost_when_a_text_is_cut_at_its_end() {
        let column = |cid: i64| Column {
            cid,
            name: format!("column_{cid}"),
            declared_type: "TEXT".into(),
            notnull: false,
            dflt_value: None,
            pk: 0,
            generated: false,
        };
        let table = TableDescription {
            name: "wide".into(),
            columns: (0..2000).map(column).collect(),
            indexes: vec![Index { name: "by_name".into(), unique: true, columns: vec![Some("column_7".into())] }],
            foreign_keys: vec![ForeignKey { from: "column_9".into(), table: "t".into(), to: None, on_delete: "CASCADE".into() }],
            sql: None,
        };
        let found = |table: &str| SchemaMatch { table: table.repeat(100), column: None, declared_type: None };
        let wide = QueryResult { rows: vec![vec![json!("x".repeat(1000))]], ..rows(Some("abc")) };
        let many = (0..10_000).map(|n| TableSummary { name: format!("t{n}"), kind: "table".into(), columns: 1 }).collect();
        for (text, words) in [
            (query(&wide), vec!["cursor \"abc\"", "has changed"]),
            (
                write(&WriteResult { affected_rows: 3, last_insert_rowid: Some(Integer(9)), returned: Some(wide) }),
                vec!["3 rows", "rowid 9", "there are more"],
            ),
            (description(&table), vec!["2000 columns", "unique index by_name (column_7)", "foreign key column_9 -> t"]),
            (search(&SearchResult { matches: vec![found("a"), found("b")], truncated: true }), vec!["2 names", "there are more"]),
            (tables(&TableList { tables: many }), vec!["10000 tables"]),
        ] {
            assert!(text.len() > 200, "{text}");
            let cut: String = text.chars().take(400).collect();
            assert!(words.iter().all(|word| cut.contains(word)), "{cut}");
        }
    }
}

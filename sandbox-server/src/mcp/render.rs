//! Results as text that a person or a model reads. The structured form is mcp/types.rs.

use std::fmt::Write as _;

use serde_json::Value;

use super::types::{BatchResult, Integer, QueryResult, SearchResult, TableList, WriteResult};
use crate::db::schema::TableDescription;

/// Rows as a table with ` | ` between the columns, and a last line that says how many there are and how to go on.
pub fn query(result: &QueryResult) -> String {
    let mut text = String::new();
    if !result.columns.is_empty() && !result.rows.is_empty() {
        text.push_str(&result.columns.join(" | "));
        text.push('\n');
    }
    for row in &result.rows {
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                text.push_str(" | ");
            }
            cell(&mut text, value);
        }
        text.push('\n');
    }
    // Here and below: writing to a String cannot fail.
    let _ = write!(text, "({} row{}", result.row_count, if result.row_count == 1 { "" } else { "s" });
    text.push_str(if result.truncated { ", and there are more" } else { "" });
    if let Some(cursor) = &result.next_cursor {
        let _ = write!(text, ": call again with the same query and cursor \"{cursor}\"");
    }
    text.push(')');
    if result.changed_between_pages {
        text.push_str("\nData has changed since the page before: rows may be missing or appear twice.");
    }
    text
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
    let mut text = match result.affected_rows {
        1 => "1 row affected".to_owned(),
        count => format!("{count} rows affected"),
    };
    if let Some(Integer(rowid)) = result.last_insert_rowid {
        let _ = write!(text, ", last rowid {rowid}");
    }
    if let Some(returned) = &result.returned {
        text.push('\n');
        text.push_str(&query(returned));
    }
    text
}

/// What each statement of a batch did.
pub fn batch(result: &BatchResult) -> String {
    let lines: Vec<_> =
        result.results.iter().enumerate().map(|(index, done)| format!("{}: {}", index + 1, write(done))).collect();
    lines.join("\n")
}

/// One table a line.
pub fn tables(list: &TableList) -> String {
    if list.tables.is_empty() {
        return "The database has no tables yet.".into();
    }
    let lines: Vec<_> =
        list.tables.iter().map(|table| format!("{} ({}, {} columns)", table.name, table.kind, table.columns)).collect();
    lines.join("\n")
}

/// One column a line, then indexes and foreign keys.
pub fn description(table: &TableDescription) -> String {
    let mut lines = vec![format!("{}:", table.name)];
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
    for index in &table.indexes {
        let columns: Vec<_> = index.columns.iter().map(|name| name.as_deref().unwrap_or("<expression>")).collect();
        lines.push(format!("  {}index {} ({})", if index.unique { "unique " } else { "" }, index.name, columns.join(", ")));
    }
    for key in &table.foreign_keys {
        lines.push(format!("  foreign key {} -> {}({})", key.from, key.table, key.to.as_deref().unwrap_or("primary key")));
    }
    lines.join("\n")
}

/// One match a line.
pub fn search(result: &SearchResult) -> String {
    if result.matches.is_empty() {
        return "No table or column has that in its name.".into();
    }
    let lines: Vec<_> = result
        .matches
        .iter()
        .map(|found| match &found.column {
            Some(column) => {
                format!("{}.{column} {}", found.table, found.declared_type.as_deref().unwrap_or_default()).trim_end().to_owned()
            }
            None => format!("{} (table)", found.table),
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_a_table_and_the_last_line_says_how_to_go_on() {
        let result = QueryResult {
            columns: vec!["id".into(), "note".into()],
            rows: vec![vec![json!(1), json!("a\nb")], vec![json!(2), json!(null)]],
            row_count: 2,
            truncated: true,
            next_cursor: Some("abc".into()),
            changed_between_pages: false,
        };
        insta::assert_snapshot!(query(&result), @r#"
        id | note
        1 | a\nb
        2 | NULL
        (2 rows, and there are more: call again with the same query and cursor "abc")
        "#);
    }
}

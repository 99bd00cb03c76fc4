//! The resources: the memo, and the schema as SQL. Reading the schema itself is db/schema.rs.

use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use rusqlite::Connection;

use crate::db::error::DbError;
use crate::db::schema;

/// The memo of append_insight.
pub const MEMO: &str = "memo://insights";

/// The whole schema.
pub const SCHEMA: &str = "schema://tables";

/// The template of one table's schema.
pub const TABLE_TEMPLATE: &str = "schema://tables/{table}";

const SQL: &str = "application/sql";

/// What a URI points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `memo://insights`
    Memo,
    /// `schema://tables`
    Schema,
    /// `schema://tables/NAME`
    Table(String),
}

impl Target {
    /// Reads a URI; None: not one of ours.
    pub fn parse(uri: &str) -> Option<Self> {
        match uri {
            MEMO => Some(Self::Memo),
            SCHEMA => Some(Self::Schema),
            _ => decode(uri.strip_prefix(SCHEMA)?.strip_prefix('/')?).filter(|name| !name.is_empty()).map(Self::Table),
        }
    }

    /// Its content.
    pub fn read(&self, conn: &Connection, uri: &str) -> Result<ResourceContents, DbError> {
        Ok(match self {
            Self::Memo => ResourceContents::text(memo(&schema::insights(conn)?), uri),
            Self::Schema => ResourceContents::text(schema::sql(conn, None)?, uri).with_mime_type(SQL),
            Self::Table(table) => ResourceContents::text(schema::sql(conn, Some(table))?, uri).with_mime_type(SQL),
        })
    }
}

/// All resources: the two fixed ones, then one a table.
pub fn list(conn: &Connection) -> Result<Vec<Resource>, DbError> {
    let mut resources = vec![
        Resource::new(MEMO, "insights")
            .with_title("Insights")
            .with_description("Findings noted with append_insight")
            .with_mime_type("text/plain"),
        Resource::new(SCHEMA, "schema")
            .with_title("Schema")
            .with_description("The SQL that created every table, index and view")
            .with_mime_type(SQL),
    ];
    for table in schema::tables(conn)? {
        let uri = format!("{SCHEMA}/{}", encode(&table.name));
        resources.push(
            Resource::new(uri, table.name.clone())
                .with_description(format!("Schema of the {} {}", table.kind, table.name))
                .with_mime_type(SQL),
        );
    }
    Ok(resources)
}

/// The one template.
pub fn template() -> ResourceTemplate {
    ResourceTemplate::new(TABLE_TEMPLATE, "table-schema")
        .with_title("Schema of a table")
        .with_description("The SQL that created a table and its indexes")
        .with_mime_type(SQL)
}

fn memo(insights: &[String]) -> String {
    if insights.is_empty() {
        return "No insights have been noted yet.".into();
    }
    let lines: Vec<_> = insights.iter().map(|insight| format!("- {}", insight.trim())).collect();
    format!("Insights\n\n{}\n", lines.join("\n"))
}

/// Percent-encodes all but the unreserved characters.
fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_through_a_uri() {
        for name in ["orders", "größe 2", "a/b%c?d#e", "'; DROP"] {
            assert_eq!(Target::parse(&format!("{SCHEMA}/{}", encode(name))), Some(Target::Table(name.into())));
        }
        assert_eq!(Target::parse("schema://tables/"), None);
        assert_eq!(Target::parse("schema://tables/%zz"), None);
        assert_eq!(Target::parse("file:///etc/passwd"), None);
    }
}

//! Which index would help a slow statement. SQLite's planner is asked, not guessed: the schema and the planner's numbers are copied into
//! memory, without rows; there an index is made on each column that the statement names, and the plan tells whether it would be used.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _};

use super::error::DbError;
use super::open;

/// Objects of a schema that are copied; a larger one takes longer than a caller waits for advice.
const MAX_OBJECTS: usize = 500;

/// Indexes that are tried, and that are named.
const MAX_TRIED: usize = 60;
const MAX_NAMED: usize = 3;

const CANDIDATE: &str = "_mcp_candidate";

/// The plan of a statement, a line a step, and the statements that would create indexes which it would use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// As EXPLAIN QUERY PLAN has it.
    pub plan: Vec<String>,
    /// `CREATE INDEX …`
    pub indexes: Vec<String>,
}

/// Reads the schema through `conn`, and plans `sql` on a copy of it.
pub fn advise(conn: &Connection, sql: &str) -> Result<Advice, DbError> {
    let Some(copy) = copy_of_schema(conn)? else { return Ok(Advice::default()) };
    let plan = plan(&copy, sql)?;
    if !plan.iter().any(|step| step.contains("SCAN ") || step.contains("AUTOMATIC")) {
        return Ok(Advice { plan, indexes: Vec::new() });
    }
    let mut indexes = Vec::new();
    for (table, column) in candidates(&copy, sql)?.into_iter().take(MAX_TRIED) {
        let place = format!("{} ({})", quoted(&copy, &table), quoted(&copy, &column));
        copy.execute_batch(&format!("CREATE INDEX {CANDIDATE} ON {place}"))?;
        let used = self::plan(&copy, sql)?.iter().any(|step| step.starts_with("SEARCH") && step.contains(CANDIDATE));
        copy.execute_batch(&format!("DROP INDEX {CANDIDATE}"))?;
        if used {
            indexes.push(format!("CREATE INDEX {} ON {place}", quoted(&copy, &format!("{table}_{column}"))));
        }
        if indexes.len() == MAX_NAMED {
            break;
        }
    }
    Ok(Advice { plan, indexes })
}

/// None: the schema is too large, or holds what cannot be made anew.
fn copy_of_schema(conn: &Connection) -> Result<Option<Connection>, DbError> {
    let mut ask = conn.prepare(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND type <> 'trigger' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY type <> 'table', rowid",
    )?;
    let objects = ask.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    if objects.len() > MAX_OBJECTS {
        return Ok(None);
    }
    let copy = open::scratch()?;
    for sql in objects {
        // What depends on what was not copied is not there either; a statement that needs it has no plan.
        let _ = copy.execute_batch(&sql);
    }
    let counted = conn.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'", [], |_| Ok(())).optional()?;
    if counted.is_some() {
        copy.execute_batch("ANALYZE")?;
        let mut numbers = conn.prepare("SELECT tbl, idx, stat FROM sqlite_stat1")?;
        let mut rows = numbers.query([])?;
        while let Some(row) = rows.next()? {
            let values: (Option<String>, Option<String>, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            copy.execute("INSERT INTO sqlite_stat1 VALUES (?1, ?2, ?3)", values)?;
        }
        copy.execute_batch("ANALYZE sqlite_schema")?;
    }
    Ok(Some(copy))
}

fn plan(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    // Placeholders without values are planned as NULL.
    let mut rows = explain.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(row.get(3)?);
    }
    Ok(steps)
}

/// Columns of ordinary tables of which the statement holds both names as words.
fn candidates(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let lower = sql.to_lowercase();
    let words: HashSet<&str> = lower.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut ask = conn.prepare(
        "SELECT s.name, c.name FROM sqlite_schema s, pragma_table_info(s.name) c WHERE s.type = 'table' AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let all =
        ask.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?.collect::<Result<Vec<_>, _>>()?;
    let named = |name: &str| words.contains(name.to_lowercase().as_str());
    Ok(all.into_iter().filter(|(table, column)| named(table) && named(column)).collect())
}

/// A name as it can stand in SQL: SQLite says of a plain one whether it is a keyword.
fn quoted(conn: &Connection, name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain && conn.prepare(&format!("SELECT 1 AS {name}")).is_ok() {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "
        CREATE TABLE customers (id INTEGER PRIMARY KEY, email TEXT, city TEXT);
        CREATE TABLE \"order\" (id INTEGER PRIMARY KEY, customer INTEGER, total REAL, day TEXT);
        CREATE INDEX order_day ON \"order\" (day);
        CREATE VIEW big AS SELECT * FROM \"order\" WHERE total > 100;";

    fn advice(sql: &str) -> Advice {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        advise(&conn, sql).unwrap()
    }

    #[test]
    fn an_index_is_named_where_the_planner_would_use_it() {
        let told = advice("SELECT id FROM customers WHERE email = ?");
        assert_eq!(told.plan, ["SCAN customers"]);
        assert_eq!(told.indexes, ["CREATE INDEX customers_email ON customers (email)"]);
        let joined =
            advice("SELECT c.city FROM customers c, \"order\" o WHERE o.customer = c.id AND c.city = 'x' AND o.total > 5");
        let useful = ["customer", "total"].map(|column| format!("CREATE INDEX order_{column} ON \"order\" ({column})"));
        // Not one on the city: the planner finds the customer by its key.
        assert_eq!(joined.indexes, useful, "{joined:?}");
    }

    #[test]
    fn none_is_named_where_none_would_help() {
        for sql in [
            "SELECT count(*) FROM customers",
            "SELECT email FROM customers WHERE id = 3",
            "SELECT 1 FROM \"order\" WHERE day = 'x'",
            "SELECT email FROM customers WHERE email LIKE '%x%'",
        ] {
            assert_eq!(advice(sql).indexes, Vec::<String>::new(), "{sql}");
        }
    }
}

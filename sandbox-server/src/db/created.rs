//! SQLite reads the statements of a view or trigger only when it is used. What nobody could ever use, because it does what is not allowed,
//! is refused when it is created: otherwise it would let the statements of others fail.

use rusqlite::Connection;

use super::authorizer::{Created, Permit};
use super::error::DbError;
use super::open::Session;
use super::schema;

/// Refuses what was just created when the gate, or SQLite, refuses a statement that uses it. Other faults are SQLite's to find: it takes a view of a
/// table that comes later.
pub fn check(session: &Session, created: &Created) -> Result<(), DbError> {
    let Session { conn, gate, .. } = session;
    let (permit, uses) = match created {
        Created::View(name) => (Permit::Read, vec![format!("SELECT * FROM main.{}", schema::quoted(name))]),
        Created::TriggerOn(table) => (Permit::Write, gate.with(Permit::Internal, || changes(conn, table))?),
    };
    for sql in uses {
        let prepared = gate.with(permit, || conn.prepare(&sql).map(drop));
        let Err(error) = prepared else { continue };
        if let Some(refusal @ DbError::Denied(_)) = gate.take_refusal() {
            return Err(refusal);
        }
        // What SQLite itself keeps from views and triggers, or from everybody.
        if let rusqlite::Error::SqliteFailure(_, Some(message)) | rusqlite::Error::SqlInputError { msg: message, .. } = error
            && (message.starts_with("unsafe use of ") || message.ends_with(" may not be modified"))
        {
            return Err(DbError::Denied(format!("not allowed: {message} in a view or trigger")));
        }
    }
    Ok(())
}

/// A statement for each event that a trigger can wait for. They are only prepared.
fn changes(conn: &Connection, table: &str) -> Result<Vec<String>, DbError> {
    // Generated columns cannot be set.
    let mut columns = conn.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
    let columns = columns.query_map([table], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let sets: Vec<_> = columns.iter().map(|column| format!("{0} = {0}", schema::quoted(column))).collect();
    let table = format!("main.{}", schema::quoted(table));
    Ok(vec![
        format!("INSERT INTO {table} DEFAULT VALUES"),
        format!("UPDATE {table} SET {}", sets.join(", ")),
        format!("DELETE FROM {table}"),
    ])
}

//! The values for a statement's placeholders: how they are bound, and what makes two sets of them the same. How they are read from what
//! clients send is mcp/values.rs.

use rusqlite::Statement;
use rusqlite::types::Value;
use sha2::{Digest as _, Sha256};

use super::error::DbError;

/// The values for a statement's placeholders.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Parameters {
    /// No placeholders.
    #[default]
    None,
    /// `?`, `?1` …, in order.
    Positional(Vec<Value>),
    /// `:name`, `@name`, `$name`; the mark in front may be left out. Of two of one name the last one counts.
    Named(Vec<(String, Value)>),
}

impl Parameters {
    /// Binds all of them; a value too many or too few is an error that says so.
    pub fn bind(&self, statement: &mut Statement<'_>) -> Result<(), DbError> {
        let wanted = statement.parameter_count();
        match self {
            Self::None if wanted == 0 => Ok(()),
            Self::None => Err(DbError::Parameters(format!("the SQL has {wanted} placeholder(s), but no params were given"))),
            Self::Positional(values) if values.len() != wanted => Err(DbError::Parameters(format!(
                "the SQL has {wanted} placeholder(s), but params holds {} value(s)",
                values.len()
            ))),
            Self::Positional(values) => {
                for (index, value) in values.iter().enumerate() {
                    statement.raw_bind_parameter(index + 1, value)?;
                }
                Ok(())
            }
            Self::Named(values) => bind_named(statement, values, wanted),
        }
    }

    /// Adds them to a fingerprint of a statement: with other values it gets another one.
    pub fn add_to(&self, hash: &mut Sha256) {
        match self {
            Self::None => {}
            Self::Positional(values) => values.iter().for_each(|value| add_value(hash, value)),
            Self::Named(values) => {
                let mut sorted: Vec<_> = values.iter().collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                for (name, value) in sorted {
                    add_part(hash, b'n', name.as_bytes());
                    add_value(hash, value);
                }
            }
        }
    }
}

fn bind_named(statement: &mut Statement<'_>, values: &[(String, Value)], wanted: usize) -> Result<(), DbError> {
    let mut used = vec![false; values.len()];
    for index in 1..=wanted {
        let Some(name) = statement.parameter_name(index).map(str::to_owned) else {
            return Err(DbError::Parameters(format!("placeholder {index} has no name: give params as an array")));
        };
        let found = |wanted: &str| values.iter().rposition(|(given, _)| given == wanted);
        let Some(at) = found(&name).or_else(|| found(&name[1..])) else {
            return Err(DbError::Parameters(format!("params has no value for {name}")));
        };
        statement.raw_bind_parameter(index, &values[at].1)?;
        // The same name given twice is one name.
        values.iter().zip(&mut used).filter(|((given, _), _)| *given == values[at].0).for_each(|(_, used)| *used = true);
    }
    if used.contains(&false) {
        let known: Vec<_> = (1..=wanted).filter_map(|index| statement.parameter_name(index)).collect();
        return Err(DbError::Parameters(format!(
            "params names values that the SQL has no placeholder for; its placeholders are: {}",
            known.join(", ")
        )));
    }
    Ok(())
}

fn add_value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => add_part(hash, b'0', &[]),
        Value::Integer(number) => add_part(hash, b'i', &number.to_le_bytes()),
        Value::Real(number) => add_part(hash, b'r', &number.to_bits().to_le_bytes()),
        Value::Text(text) => add_part(hash, b't', text.as_bytes()),
        Value::Blob(bytes) => add_part(hash, b'b', bytes),
    }
}

/// With its length, so that no two lists of parts look alike.
fn add_part(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

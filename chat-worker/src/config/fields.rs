//! The fields of one JSON object with comments: each is taken by its name and its shape, what is wrong is told by its path, and what
//! nobody took is left over. Pure.

use std::collections::BTreeMap;

use jsonc_parser::ast::{Object, Value};

/// The fields that were not taken yet, and what was wrong with those that were. A field that is `null` says nothing.
pub struct Fields<'a> {
    left: BTreeMap<&'a str, &'a Value<'a>>,
    pub problems: Vec<String>,
}

impl<'a> Fields<'a> {
    pub fn new(object: &'a Object<'a>) -> Self {
        let mut fields = Self { left: BTreeMap::new(), problems: Vec::new() };
        for property in &object.properties {
            let name = property.name.as_str();
            if fields.left.insert(name, &property.value).is_some() {
                fields.problem(name, "it occurs twice");
            }
        }
        fields
    }

    pub fn problem(&mut self, field: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{field}: {what}"));
    }

    /// The names of those that nobody took.
    pub fn left(&self) -> impl Iterator<Item = &'a str> {
        self.left.keys().copied()
    }

    /// One that is not taken by that.
    pub fn peek(&self, field: &str) -> Option<&'a Value<'a>> {
        self.left.get(field).copied()
    }

    pub fn take(&mut self, field: &str) -> Option<&'a Value<'a>> {
        self.left.remove(field).filter(|value| !matches!(value, Value::NullKeyword(_)))
    }

    fn shaped<T>(&mut self, field: &str, wanted: &str, read: impl FnOnce(&'a Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.take(field)?;
        let taken = read(value);
        if taken.is_none() {
            self.problem(field, format!("must be {wanted}, not {}", kind(value)));
        }
        taken
    }

    pub fn text(&mut self, field: &str) -> Option<&'a str> {
        self.shaped(field, "a string", string)
    }

    pub fn boolean(&mut self, field: &str) -> Option<bool> {
        self.shaped(field, "true or false", |value| Some(value.as_boolean_lit()?.value))
    }

    pub fn number(&mut self, field: &str, unit: &str) -> Option<f64> {
        self.shaped(field, unit, |value| value.as_number_lit()?.value.parse().ok())
    }

    pub fn object(&mut self, field: &str) -> Option<&'a Object<'a>> {
        self.shaped(field, "an object", Value::as_object)
    }

    pub fn array(&mut self, field: &str) -> Option<&'a [Value<'a>]> {
        self.shaped(field, "an array", |value| Some(value.as_array()?.elements.as_slice()))
    }

    /// An array of strings; numbers and truth values are taken as they are written.
    pub fn texts(&mut self, field: &str) -> Option<Vec<&'a str>> {
        let array = self.shaped(field, "an array of strings", Value::as_array)?;
        let texts = array.elements.iter().enumerate().filter_map(|(index, value)| {
            let text = word(value);
            if text.is_none() {
                self.problem(&format!("{field}[{index}]"), format!("must be a string, not {}", kind(value)));
            }
            text
        });
        Some(texts.collect())
    }

    /// An object whose values are strings, numbers or truth values (as they are written), or null.
    pub fn words(&mut self, field: &str) -> Vec<(&'a str, Option<&'a str>)> {
        let Some(object) = self.shaped(field, "an object of strings", Value::as_object) else { return Vec::new() };
        let mut inner = Self::new(object);
        self.problems.extend(inner.problems.drain(..).map(|problem| format!("{field}.{problem}")));
        let mut words = Vec::new();
        for (name, value) in inner.left {
            match (word(value), value) {
                (Some(text), _) => words.push((name, Some(text))),
                (None, Value::NullKeyword(_)) => words.push((name, None)),
                (None, _) => self.problem(&format!("{field}.{name}"), format!("must be a string, not {}", kind(value))),
            }
        }
        words
    }
}

fn string<'a>(value: &'a Value<'a>) -> Option<&'a str> {
    Some(&value.as_string_lit()?.value)
}

fn word<'a>(value: &'a Value<'a>) -> Option<&'a str> {
    match value {
        Value::StringLit(text) => Some(&text.value),
        Value::NumberLit(number) => Some(number.value),
        Value::BooleanLit(truth) => Some(if truth.value { "true" } else { "false" }),
        _ => None,
    }
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::StringLit(_) => "a string",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "a truth value",
        Value::Object(_) => "an object",
        Value::Array(_) => "an array",
        Value::NullKeyword(_) => "null",
    }
}

//! The tool calls of an answer, put together from their pieces. Servers differ in how they tell pieces of one call from another
//! call: by `index`, as the API says, or by a new `id` at the same index.

use serde_json::{Value, json};

use crate::llm::{ModelError, assemble::arguments};

/// The calls so far, in the order in which they began.
#[derive(Debug, Default)]
pub struct Calls(Vec<Call>);

#[derive(Debug)]
struct Call {
    index: u64,
    /// As the server has it: there are servers that give all their calls the same one.
    given: String,
    /// No other call of the answer has it.
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    /// Whether a piece with its index and its id continues it. What begins an object after a whole one begins another call.
    fn goes_on_with(&self, piece: &Value) -> bool {
        let begins = match &piece["function"]["arguments"] {
            Value::String(json) => json.trim_start().starts_with('{'),
            arguments => arguments.is_object(),
        };
        let is_named = piece["function"]["name"].as_str().is_some_and(|name| !name.is_empty());
        !(is_named && begins && !self.arguments.is_empty() && arguments(&self.arguments).is_ok())
    }

    /// Few servers send a name in pieces; some send it with each piece.
    fn is_named(&mut self, more: &str) {
        if more.starts_with(&self.name) {
            more.clone_into(&mut self.name);
        } else if self.arguments.is_empty() {
            self.name.push_str(more);
        }
    }
}

impl Calls {
    /// Takes a piece. The id and the name of a call that begins with it.
    pub fn take(&mut self, piece: &Value) -> Result<Option<(String, String)>, ModelError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, name) = (text(&piece["id"]), text(&piece["function"]["name"]));
        // Servers that send whole calls leave the index out.
        let index = piece["index"].as_u64();
        let open = match index {
            Some(index) => self.0.iter().rposition(|call| {
                call.index == index && (id.is_empty() || call.given == id) && call.goes_on_with(piece)
            }),
            None if name.is_empty() => self.0.iter().rposition(|call| id.is_empty() || call.given == id),
            None => None,
        };
        let (position, began) = match open {
            Some(position) => {
                self.0[position].is_named(&name);
                (position, None)
            }
            None if name.is_empty() => return Err(ModelError::Stream("a piece belongs to no tool call".into())),
            None => {
                // Each call needs an id, for its result to name.
                let (given, place) = (id, self.0.len());
                let own = if given.is_empty() { "call" } else { &given };
                let is_another = given.is_empty() || self.0.iter().any(|call| call.id == given);
                let id = if is_another { format!("{own}_{place}") } else { given.clone() };
                let index = index.unwrap_or(place as u64);
                self.0.push(Call { index, given, id: id.clone(), name: name.clone(), arguments: String::new() });
                (self.0.len() - 1, Some((id, name)))
            }
        };
        match &piece["function"]["arguments"] {
            Value::String(json) => self.0[position].arguments.push_str(json),
            // Against the API's rules, but there is only one thing that it can mean.
            whole @ Value::Object(_) => self.0[position].arguments = whole.to_string(),
            Value::Null => {}
            _ => return Err(ModelError::Stream("a tool call's arguments are no text".into())),
        }
        Ok(began)
    }

    /// The calls as blocks. Where the answer was `cut_off`, those that are not whole are left out.
    pub fn blocks(self, cut_off: bool) -> Result<Vec<Value>, ModelError> {
        let mut blocks = Vec::new();
        for call in self.0 {
            match arguments(&call.arguments) {
                Ok(input) => blocks.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})),
                Err(_) if cut_off => {}
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }
}

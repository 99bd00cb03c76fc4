//! The tool calls of an answer, put together from their pieces. Servers differ in how they tell pieces of one call from another
//! call: by `index`, as the API says, or by a new `id` at the same index.

use serde_json::{Value, json};

use crate::llm::{
    ModelError,
    assemble::{Size, arguments},
};

/// The calls so far, in the order in which they began.
#[derive(Debug, Default)]
pub struct Calls(Vec<Call>);

#[derive(Debug)]
struct Call {
    index: u64,
    /// As the server has it.
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
        // Read only where it may be whole: it may be long.
        let is_whole = || self.arguments.trim_end().ends_with('}') && arguments(&self.arguments).is_ok();
        !(is_named && begins && is_whole())
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
    /// Takes a piece, and counts it. The id and the name of a call that begins with it.
    pub fn take(&mut self, piece: &Value, size: &mut Size) -> Result<Option<(String, String)>, ModelError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, name) = (text(&piece["id"]), text(&piece["function"]["name"]));
        size.writes(name.len())?;
        // Servers that send whole calls leave the index out.
        let index = piece["index"].as_u64();
        let open = match index {
            Some(index) => self
                .0
                .iter()
                .rposition(|call| call.index == index && (id.is_empty() || call.id == id) && call.goes_on_with(piece)),
            None if name.is_empty() => self.0.iter().rposition(|call| id.is_empty() || call.id == id),
            None => None,
        };
        let (position, began) = match open {
            Some(position) => {
                self.0[position].is_named(&name);
                (position, None)
            }
            None if name.is_empty() => return Err(ModelError::Stream("a piece belongs to no tool call".into())),
            None => {
                let place = self.0.len();
                // Each call needs an id, for its result to name.
                let id = if id.is_empty() { format!("call_{place}") } else { id };
                let index = index.unwrap_or(place as u64);
                size.begins()?;
                self.0.push(Call { index, id: id.clone(), name: name.clone(), arguments: String::new() });
                (self.0.len() - 1, Some((id, name)))
            }
        };
        match &piece["function"]["arguments"] {
            Value::String(json) => {
                size.writes(json.len())?;
                self.0[position].arguments.push_str(json);
            }
            // Against the API's rules, but there is only one thing that it can mean.
            whole @ Value::Object(_) => {
                let json = whole.to_string();
                size.writes(json.len())?;
                self.0[position].arguments = json;
            }
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

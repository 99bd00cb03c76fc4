//! One content block of a stream.

use serde_json::{Value, json};

use crate::llm::{
    ModelError,
    assemble::{arguments, check_call},
};

/// A block as it opened, with what its deltas add.
#[derive(Debug)]
pub struct Block {
    pub value: Value,
    pub text: String,
    pub json: String,
    pub closed: bool,
}

impl Block {
    pub fn open(value: Value) -> Self {
        Self { value, text: String::new(), json: String::new(), closed: false }
    }

    /// The whole block; `None` for an empty text, which the API would refuse when it is sent back.
    pub fn complete(mut self) -> Result<Option<Value>, ModelError> {
        match self.value["type"].as_str() {
            Some("text") => {
                let text = self.value["text"].as_str().unwrap_or_default().to_owned() + &self.text;
                if text.trim().is_empty() {
                    return Ok(None);
                }
                self.value["text"] = json!(text);
            }
            Some("thinking") => {
                let text = self.value["thinking"].as_str().unwrap_or_default().to_owned() + &self.text;
                self.value["thinking"] = json!(text);
            }
            _ if !self.json.trim().is_empty() => self.value["input"] = arguments(&self.json)?,
            // What speaks this API, too, may leave out what is empty.
            Some("tool_use") if self.value["input"].is_null() => self.value["input"] = json!({}),
            _ => {}
        }
        check_call(&self.value)?;
        Ok(Some(self.value))
    }
}

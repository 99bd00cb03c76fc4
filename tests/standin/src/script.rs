//! What the stand-in says: the script's types, how it is read, and which step answers a conversation.
//! Pure; how an answer is put into bytes is `answer` and `stream`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The script that is used when no other is given.
pub const DEFAULT: &str = include_str!("../scripts/default.yaml");

/// Why a script could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the script is not what the stand-in understands: {0}")]
pub struct ScriptError(#[from] serde_yaml::Error);

/// Rules, tried in order, and what is said when none matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The context window: longer prompts are refused. Without it, every prompt fits.
    pub context_tokens: Option<usize>,
    #[serde(default)]
    pub rules: Vec<Rule>,
    pub otherwise: Step,
}

/// One rule: the words that the last question must hold, and the answers, one a round.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names the rule in the log, and counts its faults.
    pub name: String,
    /// All of these must occur in the question, in any case of letters. Empty: always.
    #[serde(default)]
    pub when: Vec<String>,
    pub steps: Vec<Step>,
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `{{name}}` becomes the first value of that name in the tools' results, `{{last}}` the whole last result.
    #[serde(default)]
    pub text: String,
    /// Said instead of everything else, and ending the rule, when a result of the round before is an error.
    pub on_error: Option<String>,
    /// A thinking block with a signature before the text; the next request must bring it back unchanged.
    pub thinking: Option<String>,
    #[serde(default)]
    pub tools: Vec<ToolUse>,
    /// The stop reason, where it is not what the content implies.
    pub stop: Option<String>,
    /// What goes wrong before the step answers.
    pub fault: Option<Fault>,
    /// How long the first byte takes.
    #[serde(default)]
    pub delay_ms: u64,
    /// How long each piece of text takes.
    #[serde(default)]
    pub chunk_delay_ms: u64,
}

/// A call of the tool of this name, whichever server's it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolUse {
    pub tool: String,
    #[serde(default = "empty_object")]
    pub input: Value,
}

/// A fault on demand: either an HTTP status with an error body, or a stream that goes wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub status: Option<u16>,
    /// The error's type, for instance `overloaded_error`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Seconds for the `retry-after` header.
    pub retry_after: Option<u64>,
    /// Further headers, for instance `x-should-retry`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub stream: Option<StreamFault>,
    /// How often it happens before the step answers properly; 0: always.
    #[serde(default)]
    pub times: usize,
}

/// The ways in which a stream goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFault {
    /// Ends half-way, without an error.
    Truncated,
    /// Says everything but `message_stop`.
    NoStop,
    /// Sends an event that is no JSON.
    Malformed,
    /// Sends an `error` event (its type is the fault's `type`).
    Error,
    /// Sends half and then nothing more, without closing.
    Hang,
    /// Answers 200 with an HTML page.
    Html,
}

/// The step that answers a conversation, and where in the script it stands.
#[derive(Debug)]
pub struct Chosen<'a> {
    pub rule: &'a str,
    pub index: usize,
    pub step: &'a Step,
}

impl Script {
    /// Reads a script from YAML or JSON (which is YAML).
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        Ok(serde_yaml::from_str(text)?)
    }

    /// Chooses the step for the last question, after `rounds` answers have been given to it.
    pub fn choose(&self, question: &str, rounds: usize) -> Chosen<'_> {
        let question = question.to_lowercase();
        let matching = self.rules.iter().find(|rule| rule.when.iter().all(|word| question.contains(&word.to_lowercase())));
        match matching {
            Some(rule) if !rule.steps.is_empty() => {
                // A client may ask for more rounds than the script has: the last step is said again.
                let index = rounds.min(rule.steps.len() - 1);
                Chosen { rule: &rule.name, index, step: &rule.steps[index] }
            }
            _ => Chosen { rule: "otherwise", index: 0, step: &self.otherwise },
        }
    }
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_script_is_valid_and_knows_the_demo_question() {
        let script = Script::parse(DEFAULT).expect("the embedded script parses");
        let chosen = script.choose("How many customers do we have, and which city has the most?", 1);
        assert_eq!((chosen.rule, chosen.index), ("customers", 1));
        assert_eq!(chosen.step.tools.len(), 2);
        assert_eq!(script.choose("What is the weather?", 0).rule, "otherwise");
    }

    #[test]
    fn a_misspelt_field_is_named() {
        let error = Script::parse("otherwise: {txt: hi}").expect_err("txt is no field");
        assert!(error.to_string().contains("txt"), "{error}");
    }
}

//! Two tools in the place of many: one finds tools by what is asked for, the other calls one that was found. Pure; a call of the
//! second is judged, shown and run as a call of the tool that it names.

use std::sync::{Arc, LazyLock};

use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::Projected;
use crate::{
    message::ToolCall,
    numbers,
    tools::{
        answer::MAX_TOLD,
        sanitize::{cap, clean},
        spec::ToolSpec,
    },
};

/// How many tools searching takes.
pub const TOOLS: usize = 2;
/// Finds. Tools of servers have a server's name before theirs, so that none is called like this.
pub const FIND: &str = "find_tools";
/// Calls what was found.
pub const CALL: &str = "call_tool";

/// Tools that are told of at a time.
const FOUND: usize = 8;
const MOST_FOUND: u64 = 50;
const MAX_DESCRIPTION: usize = 1_000;

/// Name, description and schema of both.
pub static DEFINITIONS: LazyLock<[(&str, &str, Value); TOOLS]> = LazyLock::new(|| {
    [
        (
            FIND,
            "Finds tools among those of all servers, by words that their names or descriptions hold. Gives each tool's name, what it \
             does and which arguments it takes. Without a query it tells the names of all tools.",
            json!({"type": "object", "properties": {
                "query": {"type": "string", "description": "Words, such as: create issue"},
                "limit": {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "description": "How many to tell of (8)"}}}),
        ),
        (
            CALL,
            "Calls a tool that find_tools has told of.",
            json!({"type": "object", "properties": {
                "name": {"type": "string", "description": "The tool's name, as find_tools tells it"},
                "arguments": {"type": "object", "properties": {}, "additionalProperties": true, "description": "By the tool's input schema"}},
                "required": ["name"]}),
        ),
    ]
});

static PROJECTED: LazyLock<Vec<Arc<Projected>>> = LazyLock::new(|| {
    let projected = |(name, description, schema): &(&str, &str, Value)| {
        let schema: Box<RawValue> = to_raw_value(schema).ok()?;
        let (name, description) = ((*name).to_owned(), (*description).to_owned());
        Some(Arc::new(Projected { name, description, schema, renamed: super::Renamed::new() }))
    };
    DEFINITIONS.iter().filter_map(projected).collect()
});

/// Both, for a model.
pub fn definitions() -> impl Iterator<Item = Arc<Projected>> {
    PROJECTED.iter().cloned()
}

/// The call that a call of `call_tool` stands for; any other stands for itself.
pub fn meant(call: ToolCall) -> ToolCall {
    let name = (call.name == CALL).then(|| call.input["name"].as_str()).flatten();
    let Some(name) = name else { return call };
    let input = match &call.input["arguments"] {
        Value::Null => json!({}),
        // Models write an object into a string, now and then.
        Value::String(text) => serde_json::from_str(&numbers::guard(text)).unwrap_or_else(|_| json!(text)),
        other => other.clone(),
    };
    ToolCall { name: name.to_owned(), input, id: call.id }
}

/// What `find_tools` answers.
pub fn find<'a>(tools: impl Iterator<Item = &'a Arc<ToolSpec>>, input: &Value) -> Value {
    let query = input["query"].as_str().unwrap_or_default().to_lowercase();
    let words: Vec<&str> = query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut room = MAX_TOLD;
    if words.is_empty() {
        let all: Vec<&str> = tools.map(|spec| spec.name.as_str()).collect();
        // With the marks around it.
        let names: Vec<&&str> = all.iter().take_while(|name| spend(&mut room, name.len() + 3)).collect();
        return json!({"names": names, "more": all.len() - names.len()});
    }
    let mut found: Vec<(usize, &Arc<ToolSpec>)> =
        tools.map(|spec| (likeness(spec, &words), spec)).filter(|(likeness, _)| *likeness > 0).collect();
    // The catalogue is in the order of names, which a stable sort keeps among equals.
    found.sort_by_key(|(likeness, _)| std::cmp::Reverse(*likeness));
    let limit = input["limit"].as_u64().map_or(FOUND, |limit| usize::try_from(limit.clamp(1, MOST_FOUND)).unwrap_or(FOUND));
    let told = found.iter().take(limit).map(|(_, spec)| told(spec)).take_while(|told| spend(&mut room, told.to_string().len()));
    let told: Vec<Value> = told.collect();
    let more = found.len() - told.len();
    json!({"tools": told, "more": more})
}

/// Takes what something needs of what is left; false where that does not suffice.
fn spend(room: &mut usize, needs: usize) -> bool {
    let left = room.checked_sub(needs);
    *room = left.unwrap_or_default();
    left.is_some()
}

/// A tool whose schema is most of what can be told at all, or nested deeper than parsers read, is told without it.
fn told(spec: &ToolSpec) -> Value {
    let description = cap(spec.description.clone(), MAX_DESCRIPTION).0;
    // As the words of the tool itself: what hides in them is for nobody.
    let is_small = spec.input_schema.get().len() <= MAX_TOLD / 2;
    let schema = is_small.then(|| serde_json::from_str(&clean(spec.input_schema.get())).ok()).flatten();
    let too_large = || json!({"type": "object", "description": "too large to be told; call it, and it says what is missing"});
    let schema: Value = schema.unwrap_or_else(too_large);
    json!({"name": spec.name, "description": description, "input_schema": schema})
}

/// A word in the name says more than one in the description, and that more than one in the arguments.
fn likeness(spec: &ToolSpec, words: &[&str]) -> usize {
    let (name, description) = (spec.name.to_lowercase(), spec.description.to_lowercase());
    let arguments = spec.input_schema.get().to_lowercase();
    let weight = |word: &&str| {
        // Of many things, the name is in the singular.
        let stem = if word.len() > 3 { word.trim_end_matches('s') } else { word };
        if name.contains(stem) {
            8
        } else if description.contains(stem) {
            3
        } else {
            usize::from(arguments.contains(stem))
        }
    };
    words.iter().map(weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, description: &str) -> Arc<ToolSpec> {
        let tool = json!({"name": name, "description": description, "inputSchema": {"type": "object"}});
        Arc::new(ToolSpec::new("s", &serde_json::from_value(tool).expect("a tool")).expect("fits"))
    }

    #[test]
    fn what_is_named_comes_before_what_is_described() {
        let tools = [spec("a", "lists the issues"), spec("create_issue", "new"), spec("weather", "rain")];
        let found = find(tools.iter(), &json!({"query": "Issues"}));
        let names: Vec<&str> =
            found["tools"].as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
        assert_eq!((names, &found["more"]), (vec!["s__create_issue", "s__a"], &json!(0)));
        assert_eq!(find(tools.iter(), &json!({"query": "issue", "limit": 1}))["more"], 1);
        let all = find(tools.iter(), &json!({}));
        assert_eq!((all["names"].as_array().map(Vec::len), &all["more"]), (Some(3), &json!(0)));
    }

    #[test]
    fn however_many_tools_there_are_and_however_long_not_more_is_told_than_of_a_result() {
        let many: Vec<_> = (0..5_000).map(|number| spec(&format!("tool_{number}"), &"words ".repeat(200))).collect();
        for input in [json!({}), json!({"query": "words", "limit": 50})] {
            let found = find(many.iter(), &input);
            let told = found["names"].as_array().or_else(|| found["tools"].as_array()).map_or(0, Vec::len);
            assert!(found.to_string().len() < MAX_TOLD + 100 && told > 20, "{told}");
            assert_eq!(found["more"], 5_000 - told);
        }
        let properties: serde_json::Map<_, _> =
            (0..2_000).map(|n| (format!("argument_{n}"), json!({"type": "string"}))).collect();
        let wide = json!({"name": "wide", "inputSchema": {"type": "object", "properties": properties}});
        let wide = Arc::new(ToolSpec::new("s", &serde_json::from_value(wide).expect("a tool")).expect("fits"));
        let found = find([&wide].into_iter(), &json!({"query": "wide"}));
        assert_eq!((&found["tools"][0]["name"], &found["more"]), (&json!("s__wide"), &json!(0)));
        assert!(found.to_string().len() < 1_000);
    }

    #[test]
    fn what_is_found_hides_nothing() {
        let schema = json!({"type": "object", "properties": {"id": {"description": "which\u{E0069}\u{202E} one"}}});
        let tool = json!({"name": "a", "inputSchema": schema});
        let tool = Arc::new(ToolSpec::new("s", &serde_json::from_value(tool).expect("a tool")).expect("fits"));
        let found = find([&tool].into_iter(), &json!({"query": "which"}));
        assert_eq!(found["tools"][0]["input_schema"]["properties"]["id"]["description"], "which one");
    }

    #[test]
    fn a_call_of_a_call_is_the_call_that_it_names() {
        let call = |name: &str, input: Value| ToolCall { id: "1".into(), name: name.into(), input };
        let wrapped = call(CALL, json!({"name": "s__a", "arguments": {"x": 1}}));
        assert_eq!(meant(wrapped), call("s__a", json!({"x": 1})));
        assert_eq!(meant(call("s__a", json!({"name": "s__b"}))).name, "s__a");
        assert_eq!(meant(call(CALL, json!({"name": "s__a"}))).input, json!({}));
        let written = r#"{"id":12345678901234567890123}"#;
        let meant = meant(call(CALL, json!({"name": "s__a", "arguments": written})));
        assert_eq!(numbers::release(&meant.input.to_string()), written, "an object in a string, with all its digits");
    }
}

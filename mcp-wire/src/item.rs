//! Whether what a server lists can be used at all: a tool, a resource, a template of resources, a prompt. One that can be has no odd field
//! any more: what only describes it costs itself.

use serde_json::Value;

use crate::shape::{ANNOTATIONS, ICONS, Shape};

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Tool,
    Resource,
    Template,
    Prompt,
}

impl Item {
    /// The field of a page that holds them.
    pub fn field(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
            Self::Prompt => "prompts",
        }
    }

    /// One that can be used, without the fields that nobody can; the error says what makes it unusable.
    pub fn usable(self, mut item: Value) -> Result<Value, String> {
        if let Some(fault) = self.fault(&item) {
            return Err(fault);
        }
        self.shape().fit(&mut item);
        Ok(item)
    }

    /// How one is called in a message: by its name, else by its address, else by its place in the list.
    pub fn known_as(self, item: &Value, place: usize) -> String {
        let named = ["name", "uri", "uriTemplate"].iter().filter_map(|field| item.get(*field).and_then(Value::as_str));
        match named.into_iter().find(|name| !name.is_empty()) {
            Some(name) => name.chars().take(128).collect(),
            None => format!("{}[{place}]", self.field()),
        }
    }

    /// It has nothing to ask for it by, or does not say what it takes.
    fn fault(self, item: &Value) -> Option<String> {
        if !item.is_object() {
            return Some(format!("it is {}, not an object", kind(item)));
        }
        match self {
            Self::Tool => text(item, "name", true).or_else(|| schema(item)).or_else(|| task(item)),
            Self::Resource => text(item, "uri", true).or_else(|| text(item, "name", false)),
            Self::Template => text(item, "uriTemplate", true).or_else(|| text(item, "name", false)),
            Self::Prompt => text(item, "name", true).or_else(|| arguments(item)),
        }
    }

    fn shape(self) -> Shape {
        let all: &'static [(&'static str, Shape)] = match self {
            Self::Tool => &[
                ("title", Shape::Text),
                ("description", Shape::Text),
                ("outputSchema", Shape::Object),
                ("annotations", HINTS),
                ("icons", ICONS),
                ("_meta", Shape::Object),
            ],
            Self::Resource | Self::Template => &[
                ("title", Shape::Text),
                ("description", Shape::Text),
                ("mimeType", Shape::Text),
                ("size", Shape::Whole),
                ("annotations", ANNOTATIONS),
                ("icons", ICONS),
                ("_meta", Shape::Object),
            ],
            Self::Prompt => &[
                ("title", Shape::Text),
                ("description", Shape::Text),
                ("arguments", Shape::List(&ARGUMENT)),
                ("icons", ICONS),
                ("_meta", Shape::Object),
            ],
        };
        Shape::Fields { needs: &[], all }
    }
}

/// What a tool says of its doing. A hint that is none says nothing: it is not read as the one that it resembles.
const HINTS: Shape = Shape::Fields {
    needs: &[],
    all: &[
        ("title", Shape::Text),
        ("readOnlyHint", Shape::Flag),
        ("destructiveHint", Shape::Flag),
        ("idempotentHint", Shape::Flag),
        ("openWorldHint", Shape::Flag),
    ],
};

const ARGUMENT: Shape =
    Shape::Fields { needs: &["name"], all: &[("title", Shape::Text), ("description", Shape::Text), ("required", Shape::Flag)] };

fn text(item: &Value, field: &str, filled: bool) -> Option<String> {
    match item.get(field) {
        Some(Value::String(text)) if filled && text.is_empty() => Some(format!("its {field} is empty")),
        Some(Value::String(_)) => None,
        Some(other) => Some(format!("its {field} is {}, not a string", kind(other))),
        None => Some(format!("it has no {field}")),
    }
}

/// Neither clients of `/mcp` nor models have tasks here.
fn task(tool: &Value) -> Option<String> {
    let required = tool.pointer("/execution/taskSupport").is_some_and(|support| support == "required");
    required
        .then(|| "it can be called only as a task (execution.taskSupport is \"required\"), and tasks are not supported".into())
}

fn schema(tool: &Value) -> Option<String> {
    match tool.get("inputSchema") {
        Some(Value::Object(_)) => None,
        Some(other) => Some(format!("its inputSchema is {}, not an object", kind(other))),
        None => Some("it has no inputSchema".into()),
    }
}

fn arguments(prompt: &Value) -> Option<String> {
    match prompt.get("arguments") {
        None | Some(Value::Null) => None,
        Some(Value::Array(arguments)) => {
            let odd = arguments.iter().find_map(|argument| text(argument, "name", false));
            odd.map(|odd| format!("of one of its arguments, {odd}"))
        }
        Some(other) => Some(format!("its arguments are {}, not an array", kind(other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_needs_a_name_and_a_schema() {
        let fault = |tool: Value| Item::Tool.usable(tool).err().unwrap_or_default();
        assert_eq!(fault(json!({"name": "a", "inputSchema": {}, "description": null, "execution": 5})), "");
        for (schema, told) in
            [(json!(null), "null"), (json!("x"), "a string"), (json!([]), "an array"), (json!(true), "a truth value")]
        {
            assert_eq!(fault(json!({"name": "a", "inputSchema": schema})), format!("its inputSchema is {told}, not an object"));
        }
        assert_eq!(fault(json!({"name": "a"})), "it has no inputSchema");
        assert_eq!(fault(json!({"inputSchema": {}})), "it has no name");
        assert_eq!(fault(json!({"name": "", "inputSchema": {}})), "its name is empty");
        assert_eq!(fault(json!({"name": 5, "inputSchema": {}})), "its name is a number, not a string");
        assert_eq!(fault(json!("bare")), "it is a string, not an object");
    }

    #[test]
    fn a_tool_that_is_called_as_a_task_only_is_of_no_use() {
        let tool = |execution: Value| json!({"name": "a", "inputSchema": {}, "execution": execution});
        let fault = |execution: Value| Item::Tool.usable(tool(execution)).err();
        assert!(fault(json!({"taskSupport": "required"})).is_some_and(|told| told.contains("tasks are not supported")));
        for execution in [json!({"taskSupport": "optional"}), json!({"taskSupport": "forbidden"}), json!({}), json!("required")] {
            assert_eq!(fault(execution), None);
        }
    }

    #[test]
    fn what_only_describes_a_tool_costs_itself() {
        let usable = |odd: Value| {
            let mut tool = json!({"name": "a", "inputSchema": {"own": null}, "x-own": 1});
            tool.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
            let mut left = Item::Tool.usable(tool).unwrap();
            left.as_object_mut().unwrap().retain(|name, _| odd.get(name).is_some());
            left
        };
        for odd in [
            json!({"annotations": []}),
            json!({"_meta": []}),
            json!({"_meta": "x"}),
            json!({"description": 5}),
            json!({"description": ["a"]}),
            json!({"title": 5}),
            json!({"outputSchema": true}),
            json!({"icons": "a.png"}),
        ] {
            assert_eq!(usable(odd.clone()), json!({}), "{odd}");
        }
        assert_eq!(
            usable(json!({"annotations": {"readOnlyHint": "true", "destructiveHint": 0, "idempotentHint": true, "own": 1}})),
            json!({"annotations": {"idempotentHint": true, "own": 1}})
        );
        let sizes = |sizes: Value| json!({"icons": [{"src": "a.png", "sizes": sizes}]});
        assert_eq!(usable(sizes(json!("48x48"))), sizes(json!(["48x48"])));
        assert_eq!(usable(json!({"icons": [{"mimeType": "a/b"}]})), json!({"icons": []}));
        let good = json!({"title": "A", "annotations": {"title": null}, "outputSchema": {"type": "object"}, "_meta": {"a": 1}});
        assert_eq!(usable(good.clone()), good);
    }

    #[test]
    fn a_resource_and_a_prompt_need_what_they_are_asked_for_by() {
        let fault = |item: Item, value: Value| item.usable(value).err().unwrap_or_default();
        assert_eq!(fault(Item::Resource, json!({"name": "a"})), "it has no uri");
        assert_eq!(fault(Item::Resource, json!({"uri": "a:b"})), "it has no name");
        assert_eq!(fault(Item::Template, json!({"uriTemplate": 5, "name": "a"})), "its uriTemplate is a number, not a string");
        assert_eq!(fault(Item::Prompt, json!({"name": "a", "arguments": "x"})), "its arguments are a string, not an array");
        assert_eq!(fault(Item::Prompt, json!({"name": "a", "arguments": [{}]})), "of one of its arguments, it has no name");
        let odd = json!({"uri": "a:b", "name": "a", "size": 12.0, "_meta": [], "annotations": [], "mimeType": 5});
        assert_eq!(Item::Resource.usable(odd).unwrap(), json!({"uri": "a:b", "name": "a", "size": 12}));
        let odd = json!({"name": "a", "arguments": [{"name": "x", "required": "yes"}], "description": 5});
        assert_eq!(Item::Prompt.usable(odd).unwrap(), json!({"name": "a", "arguments": [{"name": "x"}]}));
    }

    #[test]
    fn whatever_is_listed_has_something_to_be_called() {
        assert_eq!(Item::Tool.known_as(&json!({"name": 5}), 3), "tools[3]");
        assert_eq!(Item::Tool.known_as(&json!({"name": "a"}), 3), "a");
        assert_eq!(Item::Resource.known_as(&json!({"uri": "a:b"}), 3), "a:b");
        assert_eq!(Item::Template.known_as(&json!("x"), 3), "resourceTemplates[3]");
    }
}

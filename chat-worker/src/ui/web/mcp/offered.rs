//! In which form /mcp passes on what servers have: as it is. Only what would break a client, or is too large, is not. Pure.

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, InputRequiredResult, ServerResult, ToolAnnotations},
};
use serde::de::DeserializeOwned;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    llm::offer::{Dialect, projected, search},
    numbers,
    tools::{
        answer::{Told, ToolOutput, Whole},
        asked::Given,
        live::Listed,
        sanitize::{cap, clean, clean_line},
        spec::{MAX_DESCRIPTION, ToolSpec},
    },
    written::Fields,
};

/// Bytes of a tool's description that are passed on.
const MAX_PASSED: usize = 64 * 1024;
/// Of resources, templates and prompts.
const A_PAGE: usize = 200;

/// A tool as its server wrote it, under the name that is offered, for a client of this era.
pub fn tool(spec: &ToolSpec, is_modern: bool) -> Box<RawValue> {
    let definition = &*spec.definition;
    let own = spec.written.clone().or_else(|| to_raw_value(definition).ok()).unwrap_or_default();
    // It was an object when it was read.
    let Ok(mut fields) = Fields::read(own.get()) else { return own };
    fields.set("name", &spec.name);
    // A client shows it to people, and tells it to a model.
    if let Some(title) = &definition.title {
        fields.set("title", &clean_line(title));
    }
    if let Some(description) = &definition.description {
        let whole = if description.len() < MAX_DESCRIPTION { None } else { fields.get("description").and_then(whole) };
        fields.set("description", &whole.as_deref().unwrap_or(description));
    }
    if !is_plain(&definition.input_schema) {
        // Official clients refuse the whole list because of one such schema.
        match projected(spec, Dialect::Completions) {
            Ok(mended) => fields.set("inputSchema", &mended.schema),
            Err(_) => fields.set("inputSchema", &json!({"type": "object"})),
        }
    }
    if !is_modern && definition.output_schema.as_ref().is_some_and(|schema| !is_plain(schema)) {
        // In earlier eras, what comes is an object.
        fields.remove("outputSchema");
    }
    if definition.annotations.is_none() {
        // It said nothing, or is not believed.
        fields.remove("annotations");
    }
    if spec.changed {
        // It is no longer what it was: what it says of itself is not passed on, so that the client asks.
        let title = definition.annotations.as_ref().and_then(|annotations| annotations.title.clone());
        let mut annotations = ToolAnnotations::default();
        annotations.title = title;
        annotations.read_only_hint = Some(false);
        annotations.destructive_hint = Some(true);
        fields.set("annotations", &annotations);
    }
    fields.spare();
    fields.written()
}

/// A description that is longer than what the model of the chat is told: clients have limits of their own.
fn whole(written: &str) -> Option<String> {
    let whole = serde_json::from_str(written).ok()?;
    Some(cap(clean(&cap(whole, 2 * MAX_PASSED).0), MAX_PASSED).0)
}

/// What the specification promises of a schema: an object, whose properties are schemas, and names that are required.
fn is_plain(schema: &Map<String, Value>) -> bool {
    let properties =
        schema.get("properties").is_none_or(|all| all.as_object().is_some_and(|all| all.values().all(Value::is_object)));
    let required = schema.get("required").is_none_or(|all| all.as_array().is_some_and(|all| all.iter().all(Value::is_string)));
    schema.get("type").is_some_and(|kind| kind == "object") && properties && required
}

/// The two tools by which all others are found and called.
pub fn search_tools() -> Vec<Box<RawValue>> {
    let tool = |(name, description, schema): &(&'static str, &'static str, Value)| {
        let mut tool = json!({"name": name, "description": description, "inputSchema": schema});
        // What the other one does depends on what it calls.
        if *name == search::FIND {
            tool["annotations"] = json!({"readOnlyHint": true, "openWorldHint": false});
        }
        to_raw_value(&tool).ok()
    };
    search::DEFINITIONS.iter().filter_map(tool).collect()
}

/// A list of what servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tools,
    Resources,
    Templates,
    Prompts,
}

impl Kind {
    /// What the list is called in the result.
    pub fn field(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }

    /// Where a list goes on: behind this.
    fn cursor(self, place: &str) -> String {
        format!("{}:{place}", self.field())
    }

    /// The place that a cursor of ours says. Clients send an empty one where they have none.
    pub fn place(self, cursor: Option<&str>) -> Result<Option<&str>, ErrorData> {
        let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
        let place = cursor.strip_prefix(self.field()).and_then(|rest| rest.strip_prefix(':'));
        place.map(Some).ok_or_else(no_cursor)
    }
}

/// The error of a cursor that is none of ours, or leads behind the end of a list that is shorter now.
pub fn no_cursor() -> ErrorData {
    ErrorData::invalid_params("there is no such cursor; ask for the list from its beginning", None)
}

/// A page of a list, as a result; `next` is where it goes on.
pub fn list(kind: Kind, items: &[Box<RawValue>], next: Option<&str>, ttl_ms: u64) -> Answer {
    let mut result = json!({"ttlMs": ttl_ms, "cacheScope": "private"});
    if let Some(next) = next {
        result["nextCursor"] = kind.cursor(next).into();
    }
    // Texts and raw JSON can be written.
    let items = serde_json::to_string(items).unwrap_or_default();
    let rest = result.to_string();
    let text = format!(r#"{{"{}":{items},{}"#, kind.field(), &rest[1..]);
    Answer::Written(RawValue::from_string(text).unwrap_or_default())
}

/// What a client is answered.
#[derive(Debug)]
pub enum Answer {
    /// The result of a call, as its server wrote it.
    Whole(Arc<Whole>),
    /// Another result, as it is written.
    Written(Box<RawValue>),
    /// What is said in the place of a call's result.
    Words(Box<CallToolResult>),
}

impl Answer {
    /// For the SDK to write, which knows less than what may be written.
    pub fn typed<T: DeserializeOwned, R: From<T> + From<InputRequiredResult>>(self) -> Result<R, ErrorData> {
        self.typed_as(|result| match result["resultType"].as_str() {
            Some("input_required") => serde_json::from_value::<InputRequiredResult>(result).map(R::from),
            _ => serde_json::from_value::<T>(result).map(R::from),
        })
    }

    /// The same, of what asks nothing back.
    pub fn typed_as<R>(self, read: impl FnOnce(Value) -> serde_json::Result<R>) -> Result<R, ErrorData> {
        let typed =
            self.written(true).and_then(|written| serde_json::from_str(&numbers::guard(&written))).and_then(|mut result| {
                if let Value::Object(fields) = &mut result
                    && fields.get("structuredContent").is_some_and(Value::is_null)
                {
                    // The SDK would make a text of it.
                    fields.remove("structuredContent");
                }
                read(result)
            });
        typed.map_err(|error| ErrorData::internal_error(format!("the result cannot be read: {error}"), None))
    }

    /// With what the modern era wants to be said of what is read, how long it may be kept and by whom: not at all, and by the client alone,
    /// where its server did not say so.
    pub fn cacheable(self) -> Self {
        let Self::Written(written) = &self else { return self };
        let Ok(mut fields) = Fields::read(written.get()) else { return self };
        if fields.get("resultType").is_some_and(|kind| kind != r#""complete""#) {
            return self;
        }
        if fields.get("ttlMs").is_none_or(|ttl| ttl.parse::<u64>().is_err()) {
            fields.set("ttlMs", &0);
        }
        if !fields.get("cacheScope").is_some_and(|scope| [r#""public""#, r#""private""#].contains(&scope)) {
            fields.set("cacheScope", "private");
        }
        Self::Written(fields.written())
    }

    /// As JSON, for a client of this era, by the SDK's rules.
    pub fn written(&self, is_modern: bool) -> serde_json::Result<String> {
        match self {
            Self::Whole(whole) if is_modern || !fits_only_the_modern_era(whole) => {
                for_era(whole.written.get(), whole.result.result_type.is_some(), is_modern)
            }
            Self::Whole(whole) => {
                let mut result = ServerResult::CallToolResult(whole.result.clone());
                result.strip_result_type_for_legacy_peer();
                result.strip_non_object_output_for_legacy_peer();
                Ok(numbers::release(&serde_json::to_string(&result)?).into_owned())
            }
            Self::Written(written) => {
                let has_type = Fields::read(written.get())?.get("resultType").is_some();
                for_era(written.get(), has_type, is_modern)
            }
            Self::Words(result) => {
                let written = serde_json::to_string(result)?;
                for_era(&written, result.result_type.is_some(), is_modern)
            }
        }
    }
}

/// Structured content that is no object: the SDK makes a text of it for earlier eras. Null is none.
fn fits_only_the_modern_era(whole: &Whole) -> bool {
    whole.result.structured_content.as_ref().is_some_and(|content| !content.is_object() && !content.is_null())
}

/// The modern era wants a result's type, and earlier ones do not know it.
fn for_era(written: &str, has_type: bool, is_modern: bool) -> serde_json::Result<String> {
    match (is_modern, has_type) {
        (true, false) => {
            let rest = written.strip_prefix('{').unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            Ok(format!(r#"{{"resultType":"complete"{comma}{rest}"#))
        }
        (false, true) => {
            let mut fields = Fields::read(written)?;
            fields.remove("resultType");
            Ok(fields.written().get().to_owned())
        }
        _ => Ok(written.to_owned()),
    }
}

/// What a call came to: the server's result, or its own error, or what is said in their place. What is more than `max` bytes is an error that
/// tells its size: a part of it would look like the whole.
pub fn result(output: ToolOutput, max: usize) -> Result<Answer, ErrorData> {
    let told = |text: String, is_error: bool| {
        let told = vec![ContentBlock::text(text)];
        Answer::Words(Box::new(if is_error { CallToolResult::error(told) } else { CallToolResult::success(told) }))
    };
    Ok(match output.told {
        Told::Words(text) => told(text, output.is_error),
        Told::Whole(whole) => match beyond(whole.written.get().len(), max) {
            Some(text) => told(text, true),
            None => Answer::Whole(whole),
        },
        Told::Error(_, error) => {
            let size = error.message.len() + error.data.as_ref().map_or(0, |data| data.to_string().len());
            match beyond(size, max) {
                Some(text) => told(text, true),
                None => return Err(*error),
            }
        }
    })
}

/// What a server answered to something else than a call, unless it is more than `max` bytes.
pub fn within(given: Given, max: usize) -> Result<Answer, ErrorData> {
    let written = given.written.or_else(|| to_raw_value(&given.result).ok()).unwrap_or_default();
    match beyond(written.get().len(), max) {
        Some(told) => Err(ErrorData::internal_error(told, None)),
        None => Ok(Answer::Written(written)),
    }
}

fn beyond(size: usize, max: usize) -> Option<String> {
    (size > max).then(|| format!("the result is {size} bytes, and {max} are passed on at most; ask for less at a time"))
}

/// A page of a list that is counted: its cursor is how many were told before.
pub fn page<T>(kind: Kind, all: Vec<Listed<T>>, cursor: Option<&str>, ttl_ms: u64) -> Result<Answer, ErrorData> {
    let start = match kind.place(cursor)? {
        Some(place) => place.parse::<usize>().ok().filter(|start| *start < all.len()).ok_or_else(no_cursor)?,
        None => 0,
    };
    let end = start.saturating_add(A_PAGE);
    let next = (all.len() > end).then(|| end.to_string());
    let page: Vec<_> = all.into_iter().skip(start).take(A_PAGE).map(|listed| listed.written).collect();
    Ok(list(kind, &page, next.as_deref(), ttl_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_passes_as_it_was_written_but_for_what_an_era_does_not_know() {
        let told = |written: &str, is_modern: bool| {
            let result = serde_json::from_str(&numbers::guard(written)).expect("a result");
            let whole = Whole::new(result, RawValue::from_string(written.to_owned()).ok(), None);
            Answer::Whole(Arc::new(whole)).written(is_modern).expect("JSON")
        };
        let own = r#"{"own": {"b":1,"a":12345678901234567890123}, "content":[{"type":"text","text":"x","mine":1}]}"#;
        assert_eq!(told(own, false), own);
        assert_eq!(told(own, true), own.replacen('{', r#"{"resultType":"complete","#, 1));
        assert_eq!(told(r#"{"content":[]}"#, true), r#"{"resultType":"complete","content":[]}"#);
        let complete = r#"{"content":[],"resultType":"complete","z":1,"a":"é"}"#;
        assert_eq!(told(complete, true), complete);
        assert_eq!(told(complete, false), r#"{"content":[],"z":1,"a":"é"}"#);
        let odd = r#"{"content":[],"structuredContent":[1]}"#;
        assert_eq!(told(odd, true), odd.replacen('{', r#"{"resultType":"complete","#, 1));
        assert_eq!(told(odd, false), r#"{"content":[{"type":"text","text":"[1]"}]}"#);
        let none = r#"{"content":[],"structuredContent":null}"#;
        assert_eq!(told(none, false), none, "null is nothing that a text could be made of");
    }

    #[test]
    fn of_what_is_read_the_modern_era_is_told_how_long_it_holds() {
        let told = |written: &str| {
            let answer = Answer::Written(RawValue::from_string(written.to_owned()).expect("JSON"));
            answer.cacheable().written(true).expect("JSON")
        };
        let bare = r#"{"contents":[],"own":1.50}"#;
        assert_eq!(told(bare), r#"{"resultType":"complete","contents":[],"own":1.50,"ttlMs":0,"cacheScope":"private"}"#);
        assert_eq!(
            told(r#"{"resultType":"complete","ttlMs":1.5,"cacheScope":"shared","contents":[]}"#),
            r#"{"resultType":"complete","ttlMs":0,"cacheScope":"private","contents":[]}"#
        );
        for own in [
            r#"{"resultType":"complete","contents":[],"ttlMs":5,"cacheScope":"public"}"#,
            r#"{"resultType":"input_required","requestState":"s"}"#,
        ] {
            assert_eq!(told(own), own);
        }
    }
}

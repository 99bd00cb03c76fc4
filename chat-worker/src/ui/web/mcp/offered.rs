//! In which form /mcp passes on what servers have: as it is. Only what would break a client, or is too large, is not. Pure.

use std::{borrow::Cow, fmt, sync::Arc};

use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, PaginatedRequestParams, ResultType, ServerResult, Tool, ToolAnnotations},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    llm::offer::{Dialect, projected, search},
    numbers,
    tools::{
        answer::{Told, ToolOutput, Whole},
        sanitize::clean_line,
        spec::ToolSpec,
    },
};

/// Of resources, templates and prompts.
const A_PAGE: usize = 200;

/// A tool as its server describes it, under the name that is offered.
pub fn tool(spec: &ToolSpec) -> Tool {
    let mut tool = (*spec.definition).clone();
    tool.name = spec.name.clone().into();
    // A client shows it to people, and tells it to a model.
    tool.title = tool.title.map(|title| clean_line(&title));
    if !is_plain(&tool.input_schema) {
        // Official clients refuse the whole list because of one such schema.
        let mended = projected(spec, Dialect::Completions).ok();
        let schema = mended.and_then(|mended| serde_json::from_str(mended.schema.get()).ok());
        tool.input_schema = Arc::new(schema.unwrap_or_else(|| Map::from_iter([("type".to_owned(), Value::from("object"))])));
    }
    if tool.output_schema.as_ref().is_some_and(|schema| !is_plain(schema)) {
        tool.output_schema = None;
    }
    if spec.changed {
        // It is no longer what it was: what it says of itself is not passed on, so that the client asks.
        let title = tool.annotations.take().and_then(|annotations| annotations.title);
        let mut annotations = ToolAnnotations::default();
        annotations.title = title;
        annotations.read_only_hint = Some(false);
        annotations.destructive_hint = Some(true);
        tool.annotations = Some(annotations);
    }
    tool
}

/// What the specification promises of a schema: an object, whose properties are schemas, and names that are required.
fn is_plain(schema: &Map<String, Value>) -> bool {
    let properties =
        schema.get("properties").is_none_or(|all| all.as_object().is_some_and(|all| all.values().all(Value::is_object)));
    let required = schema.get("required").is_none_or(|all| all.as_array().is_some_and(|all| all.iter().all(Value::is_string)));
    schema.get("type").is_some_and(|kind| kind == "object") && properties && required
}

/// The two tools by which all others are found and called.
pub fn search_tools() -> Vec<Tool> {
    let tool = |(name, description, schema): &(&'static str, &'static str, Value)| {
        Tool::new(*name, *description, Arc::new(schema.as_object().cloned().unwrap_or_default()))
    };
    search::DEFINITIONS.iter().map(tool).collect()
}

/// What a client is answered.
#[derive(Debug)]
pub enum Answer {
    /// The result of a call, as its server wrote it.
    Whole(Arc<Whole>),
    Typed(Box<ServerResult>),
}

impl Answer {
    /// For the SDK to write.
    pub fn typed(self) -> ServerResult {
        match self {
            Self::Typed(result) => *result,
            Self::Whole(whole) => {
                let mut result = whole.into_result();
                // Servers of earlier eras do not say so, and clients of the modern one want to read it; the SDK takes it away for others.
                result.result_type.get_or_insert(ResultType::COMPLETE);
                ServerResult::CallToolResult(result)
            }
        }
    }

    /// As JSON, for a client of this era, by the SDK's rules.
    pub fn written(self, is_modern: bool) -> serde_json::Result<String> {
        match self {
            Self::Whole(whole) if !fits_only_the_modern_era(&whole) || is_modern => for_era(&whole, is_modern),
            other => {
                let mut result = other.typed();
                if !is_modern {
                    result.strip_result_type_for_legacy_peer();
                    result.strip_non_object_output_for_legacy_peer();
                }
                let text = serde_json::to_string(&result)?;
                Ok(numbers::release(&text).into_owned())
            }
        }
    }
}

/// Structured content that is no object: the SDK makes a text of it for earlier eras.
fn fits_only_the_modern_era(whole: &Whole) -> bool {
    whole.result.structured_content.as_ref().is_some_and(|content| !content.is_object())
}

/// The modern era wants a result's type, and earlier ones do not know it.
fn for_era(whole: &Whole, is_modern: bool) -> serde_json::Result<String> {
    let written = whole.written.get();
    match (is_modern, &whole.result.result_type) {
        (true, None) => {
            let rest = written.strip_prefix('{').unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            Ok(format!(r#"{{"resultType":"complete"{comma}{rest}"#))
        }
        (false, Some(_)) => {
            let mut fields: Fields = serde_json::from_str(written)?;
            fields.0.retain(|(name, _)| *name != "resultType");
            serde_json::to_string(&fields)
        }
        _ => Ok(written.to_owned()),
    }
}

/// The fields of an object, in their order.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// What a call came to: the server's result, or what is said in its place. A result of more than `max` bytes is an error that tells
/// its size: a part of it would look like the whole.
pub fn result(output: ToolOutput, max: usize) -> Answer {
    let told = |text: String, is_error: bool| {
        let told = vec![ContentBlock::text(text)];
        let result = if is_error { CallToolResult::error(told) } else { CallToolResult::success(told) };
        Answer::Typed(Box::new(ServerResult::CallToolResult(result)))
    };
    match output.told {
        Told::Words(text) => told(text, output.is_error),
        Told::Whole(whole) => match beyond(whole.written.get().len(), max) {
            Some(text) => told(text, true),
            None => Answer::Whole(whole),
        },
    }
}

/// What a server answered to something else than a call, unless it is more than `max` bytes.
pub fn within(result: ServerResult, max: usize) -> Result<ServerResult, ErrorData> {
    // A result cannot fail to be written.
    let size = serde_json::to_vec(&result).map_or(0, |bytes| bytes.len());
    beyond(size, max).map_or(Ok(result), |told| Err(ErrorData::internal_error(told, None)))
}

fn beyond(size: usize, max: usize) -> Option<String> {
    (size > max).then(|| format!("the result is {size} bytes, and {max} are passed on at most; ask for less at a time"))
}

/// A page of a list. Its cursor is how many were told before.
pub fn page<T>(all: Vec<T>, request: Option<PaginatedRequestParams>) -> Result<(Vec<T>, Option<String>), ErrorData> {
    let cursor = request.and_then(|request| request.cursor);
    let start = cursor.map_or(Ok(0), |cursor| cursor.parse::<usize>());
    let start = start.map_err(|_| ErrorData::invalid_params("there is no such cursor", None))?;
    let more = all.len() > start.saturating_add(A_PAGE);
    let page = all.into_iter().skip(start).take(A_PAGE).collect();
    Ok((page, more.then(|| (start + A_PAGE).to_string())))
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
    }
}

//! In which form /mcp passes on what servers have: as it is. Only what would break a client, or is too large, is not. Pure.

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, PaginatedRequestParams, ResultType, ServerResult, Tool, ToolAnnotations},
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    llm::offer::{Dialect, projected, search},
    tools::{answer::ToolOutput, sanitize::clean_line, spec::ToolSpec},
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

/// What a call came to: the server's result, or what is said in its place. A result of more than `max` bytes is an error that tells
/// its size: a part of it would look like the whole.
pub fn result(output: ToolOutput, max: usize) -> CallToolResult {
    let Some(whole) = output.whole else {
        let told = vec![ContentBlock::text(output.text)];
        return if output.is_error { CallToolResult::error(told) } else { CallToolResult::success(told) };
    };
    if let Some(told) = too_large(&whole.result, max) {
        return CallToolResult::error(vec![ContentBlock::text(told)]);
    }
    let mut whole = whole.into_result();
    // Servers of earlier eras do not say so, and clients of the modern one want to read it; the SDK takes it away for others.
    whole.result_type.get_or_insert(ResultType::COMPLETE);
    whole
}

/// What a server answered to something else than a call, unless it is more than `max` bytes.
pub fn within(result: ServerResult, max: usize) -> Result<ServerResult, ErrorData> {
    too_large(&result, max).map_or(Ok(result), |told| Err(ErrorData::internal_error(told, None)))
}

fn too_large(result: &impl Serialize, max: usize) -> Option<String> {
    // A result cannot fail to be written.
    let size = serde_json::to_vec(result).map_or(0, |bytes| bytes.len());
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

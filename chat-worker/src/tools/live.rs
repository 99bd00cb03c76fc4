//! What one server offers beside tools, while it is up: its lists of resources, of templates and of prompts, and what it answers.

use std::{collections::HashSet, future::Future, time::Duration};

use rmcp::{
    ErrorData,
    model::{
        ClientRequest, MetaObject, PaginatedRequestParams, Prompt, Resource, ResourceTemplate, ResultType, ServerCapabilities,
        ServerResult,
    },
    service::ServiceError,
};
use serde_json::{Value, value::RawValue};
use tokio::time::timeout;

use super::{
    asked::{Given, LEFT_OUT, SIZE, WRITTEN},
    connection::tells_of_resources,
    failure,
    relay::Relay,
    request::{Failed, Line, Request},
    sanitize::clean_line,
};
use crate::{redact::redact, written::Fields};

/// A list is asked for so long; a server that needs longer is left out of it.
const LIST: Duration = Duration::from_secs(10);
const MAX_PAGES: usize = 64;
/// Of each kind and each server, and what their list may have in bytes.
const MAX_LISTED: usize = 2_000;
const MAX_LIST_BYTES: usize = 8 * 1024 * 1024;
/// So many items that are left out are named.
pub const LEFT_OUT_TOLD: usize = 100;

/// The items of a page, where the list goes on, and what more is told of it.
type Page<T> = (Vec<T>, Option<String>, Option<MetaObject>);

/// An item of a list, and the same as its server wrote it.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    pub item: T,
    pub written: Box<RawValue>,
}

impl<T> Listed<T> {
    /// Makes fields of it others, in both.
    pub fn with(mut self, edit: impl FnOnce(&mut T, &mut Fields<'_>)) -> Self {
        // It was an object when it was read.
        let Ok(mut fields) = Fields::read(self.written.get()) else { return self };
        edit(&mut self.item, &mut fields);
        let written = fields.written();
        self.written = written;
        self
    }
}

/// A server that is up.
#[derive(Debug, Clone)]
pub struct Live {
    pub line: Line,
    /// Whether what it says of itself is believed.
    pub trusted: bool,
}

impl Live {
    pub fn name(&self) -> &str {
        &self.line.server
    }

    /// Whether it tells that a single resource changed.
    pub fn tells_of_resources(&self) -> bool {
        self.can(tells_of_resources)
    }

    pub fn can(&self, what: impl Fn(&ServerCapabilities) -> bool) -> bool {
        self.line.peer.peer_info().is_some_and(|info| what(&info.capabilities))
    }

    async fn all<T, P, F>(&self, page: impl Fn(PaginatedRequestParams) -> F, items: impl Fn(P) -> Page<T>) -> Vec<Listed<T>>
    where
        F: Future<Output = Result<P, ServiceError>>,
    {
        let listing = async {
            let (mut all, mut left_out, mut size, mut cursor, mut seen) = (Vec::new(), Vec::new(), 0, None, HashSet::new());
            for _ in 0..MAX_PAGES {
                let (found, next, mut meta) = items(page(PaginatedRequestParams::default().with_cursor(cursor.clone())).await?);
                let written = meta.as_mut().and_then(|meta| meta.0.remove(WRITTEN));
                let told = |name| meta.as_ref().and_then(|meta| meta.get(name));
                for odd in told(LEFT_OUT).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
                    left_out.push(clean_line(odd));
                }
                size += told(SIZE).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
                let Some(Value::Array(written)) = written else { break };
                let raw = written.into_iter().filter_map(|text| RawValue::from_string(text.as_str()?.to_owned()).ok());
                all.extend(found.into_iter().zip(raw).map(|(item, written)| Listed { item, written }));
                // There is nothing new behind a cursor that comes twice.
                if next.as_ref().is_none_or(|next| !seen.insert(next.clone())) {
                    break;
                }
                if all.len() > MAX_LISTED || size > MAX_LIST_BYTES {
                    tracing::warn!(server = self.name(), "a list is too long, and its end is left out");
                    break;
                }
                cursor = next;
            }
            all.truncate(MAX_LISTED);
            tell_left_out(self.name(), &left_out);
            Ok::<_, ServiceError>(all)
        };
        match timeout(LIST.min(self.line.limit), listing).await {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => {
                tracing::warn!(server = &*self.line.server, "a list is left out: {}", redact(&clean_line(&error.to_string())));
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(server = &*self.line.server, "a list is left out: no answer in time");
                Vec::new()
            }
        }
    }

    pub async fn resources(&self) -> Vec<Listed<Resource>> {
        if !self.can(|capabilities| capabilities.resources.is_some()) {
            return Vec::new();
        }
        self.all(|params| self.line.peer.list_resources(Some(params)), |page| (page.resources, page.next_cursor, page.meta)).await
    }

    pub async fn templates(&self) -> Vec<Listed<ResourceTemplate>> {
        if !self.can(|capabilities| capabilities.resources.is_some()) {
            return Vec::new();
        }
        self.all(
            |params| self.line.peer.list_resource_templates(Some(params)),
            |page| (page.resource_templates, page.next_cursor, page.meta),
        )
        .await
    }

    pub async fn prompts(&self) -> Vec<Listed<Prompt>> {
        if !self.can(|capabilities| capabilities.prompts.is_some()) {
            return Vec::new();
        }
        self.all(|params| self.line.peer.list_prompts(Some(params)), |page| (page.prompts, page.next_cursor, page.meta)).await
    }

    /// The answer to a request, with an error that a client understands. Servers of earlier eras do not say that it is complete, which
    /// clients of the modern one want to read.
    pub async fn asked(&self, request: ClientRequest, relay: Option<Relay>) -> Result<Given, ErrorData> {
        let answer = self.line.result(Request::Other(Box::new(request)), relay).await;
        let mut given = answer.map_err(|error| self.in_words(error))?.0;
        let kind = match &mut given.result {
            ServerResult::ReadResourceResult(result) => &mut result.result_type,
            ServerResult::GetPromptResult(result) => &mut result.result_type,
            ServerResult::CompleteResult(result) => &mut result.result_type,
            ServerResult::InputRequiredResult(_) => return Ok(given),
            _ => return Err(self.in_words(ServiceError::UnexpectedResponse.into())),
        };
        kind.get_or_insert(ResultType::COMPLETE);
        Ok(given)
    }

    /// What became of a request, for whoever made it: the server's own error as it is.
    fn in_words(&self, failed: Failed) -> ErrorData {
        let server = self.name();
        let told = match failed {
            Failed::Own(error) | Failed::Otherwise(ServiceError::McpError(error)) => return error,
            Failed::Otherwise(ServiceError::Timeout { .. }) => {
                format!("the server {server} did not answer within {} s", self.line.limit.as_secs_f64())
            }
            Failed::Otherwise(error) => format!("the server {server} did not answer: {}", failure::of(&error, self.line.limit)),
        };
        ErrorData::internal_error(told, None)
    }
}

/// Names what of a list nobody can use. In one line: a list is asked for again and again.
fn tell_left_out(server: &str, left_out: &[String]) {
    if !left_out.is_empty() {
        tracing::warn!(server, "of a list, what nobody can use is left out: {}", named(left_out));
    }
}

fn named(left_out: &[String]) -> String {
    let named = left_out.iter().take(LEFT_OUT_TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    match left_out.len().saturating_sub(LEFT_OUT_TOLD) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_that_is_left_out_is_named_within_bounds() {
        let items = |count: usize| (0..count).map(|number| format!("r{number}: it has no uri")).collect::<Vec<_>>();
        assert_eq!(named(&items(2)), "r0: it has no uri; r1: it has no uri");
        let many = named(&items(LEFT_OUT_TOLD + 3));
        assert!(many.contains("r99: it has no uri; and 3 more") && !many.contains("r100"), "{many}");
    }
}

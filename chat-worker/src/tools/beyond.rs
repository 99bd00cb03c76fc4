//! What servers offer beside tools: resources, templates of resources, prompts and the completion of their arguments. All servers are
//! one here: names have their server's before them, URIs stay as they are, and a request finds its server by either.

#![allow(deprecated, reason = "sampling and messages for a log, which earlier eras have")]

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures::future::join_all;
use rmcp::{
    ErrorData, RoleClient,
    model::{
        ClientRequest, CompleteRequest, CompleteRequestParams, CompleteResult, GetExtensions as _, GetPromptRequest,
        GetPromptRequestParams, GetPromptResponse, PaginatedRequestParams, Prompt, ReadResourceRequest,
        ReadResourceRequestParams, ReadResourceResponse, Reference, Resource, ResourceTemplate, ResultType, ServerCapabilities,
        ServerResult, SetLevelRequestParams,
    },
    service::{Peer, ServiceError},
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    catalogue::exposed_name,
    hub::Hub,
    remote::CalledFor,
    sanitize::{cap, clean, clean_line},
};
use crate::{logging, redact::redact};

/// A list is asked for so long; a server that needs longer is left out of it.
const LIST: Duration = Duration::from_secs(10);
const MAX_PAGES: usize = 64;
/// Of each kind and each server.
const MAX_LISTED: usize = 2_000;
/// What a server's instructions may take of each prompt, in bytes.
const MAX_INSTRUCTIONS: usize = 4 * 1024;

/// Where the servers are told that hold the same URI.
const ALSO_AT: &str = "mcpfleet.dev/alsoAt";

/// A server that is up.
#[derive(Debug, Clone)]
pub struct Live {
    pub name: String,
    pub peer: Peer<RoleClient>,
    /// For one call.
    pub timeout: Duration,
    /// Whether what it says of itself is believed.
    pub trusted: bool,
}

impl Live {
    fn can(&self, what: impl Fn(&ServerCapabilities) -> bool) -> bool {
        self.peer.peer_info().is_some_and(|info| what(&info.capabilities))
    }

    async fn all<T, P, F>(
        &self,
        page: impl Fn(PaginatedRequestParams) -> F,
        items: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Vec<T>
    where
        F: Future<Output = Result<P, ServiceError>>,
    {
        let listing = async {
            let (mut all, mut cursor) = (Vec::new(), None);
            for _ in 0..MAX_PAGES {
                let (found, next) = items(page(PaginatedRequestParams::default().with_cursor(cursor.clone())).await?);
                all.extend(found);
                if all.len() > MAX_LISTED || next.is_none() || next == cursor {
                    break;
                }
                cursor = next;
            }
            all.truncate(MAX_LISTED);
            Ok::<_, ServiceError>(all)
        };
        match timeout(LIST.min(self.timeout), listing).await {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => {
                tracing::warn!(server = self.name, "a list is left out: {}", redact(&clean_line(&error.to_string())));
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(server = self.name, "a list is left out: no answer in time");
                Vec::new()
            }
        }
    }

    async fn resources(&self) -> Vec<Resource> {
        if !self.can(|capabilities| capabilities.resources.is_some()) {
            return Vec::new();
        }
        self.all(|params| self.peer.list_resources(Some(params)), |page| (page.resources, page.next_cursor)).await
    }

    async fn templates(&self) -> Vec<ResourceTemplate> {
        if !self.can(|capabilities| capabilities.resources.is_some()) {
            return Vec::new();
        }
        self.all(|params| self.peer.list_resource_templates(Some(params)), |page| (page.resource_templates, page.next_cursor))
            .await
    }

    async fn prompts(&self) -> Vec<Prompt> {
        if !self.can(|capabilities| capabilities.prompts.is_some()) {
            return Vec::new();
        }
        self.all(|params| self.peer.list_prompts(Some(params)), |page| (page.prompts, page.next_cursor)).await
    }

    /// The answer to a request, which says which request of ours it belongs to. Servers of earlier eras do not say that it is complete, which
    /// clients of the modern one want to read.
    async fn answer(&self, mut request: ClientRequest) -> Result<ServerResult, ServiceError> {
        if let Some(id) = logging::request_id() {
            request.extensions_mut().insert(CalledFor(id));
        }
        self.peer.send_request(request).await
    }

    async fn read(&self, params: ReadResourceRequestParams) -> Result<ReadResourceResponse, ServiceError> {
        match self.answer(ClientRequest::ReadResourceRequest(ReadResourceRequest::new(params))).await? {
            ServerResult::ReadResourceResult(mut result) => {
                result.result_type.get_or_insert(ResultType::COMPLETE);
                Ok(ReadResourceResponse::Complete(result))
            }
            ServerResult::InputRequiredResult(result) => Ok(ReadResourceResponse::InputRequired(result)),
            _ => Err(ServiceError::UnexpectedResponse),
        }
    }

    async fn prompt(&self, params: GetPromptRequestParams) -> Result<GetPromptResponse, ServiceError> {
        match self.answer(ClientRequest::GetPromptRequest(GetPromptRequest::new(params))).await? {
            ServerResult::GetPromptResult(mut result) => {
                result.result_type.get_or_insert(ResultType::COMPLETE);
                Ok(GetPromptResponse::Complete(result))
            }
            ServerResult::InputRequiredResult(result) => Ok(GetPromptResponse::InputRequired(result)),
            _ => Err(ServiceError::UnexpectedResponse),
        }
    }

    async fn complete(&self, params: CompleteRequestParams) -> Result<CompleteResult, ServiceError> {
        match self.answer(ClientRequest::CompleteRequest(CompleteRequest::new(params))).await? {
            ServerResult::CompleteResult(mut result) => {
                result.result_type.get_or_insert(ResultType::COMPLETE);
                Ok(result)
            }
            _ => Err(ServiceError::UnexpectedResponse),
        }
    }

    /// A request, within its time, with an error that a client understands.
    async fn asked<T>(&self, request: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ErrorData> {
        match timeout(self.timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ServiceError::McpError(error))) => Err(error),
            Ok(Err(error)) => {
                let text = redact(&clean_line(&error.to_string())).into_owned();
                Err(ErrorData::internal_error(format!("the server {} did not answer: {text}", self.name), None))
            }
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                Err(ErrorData::internal_error(format!("the server {} did not answer within {seconds} s", self.name), None))
            }
        }
    }
}

impl Hub {
    /// The resources of all servers. A URI that two servers have is the first one's, and says so.
    pub async fn resources(&self) -> Vec<Resource> {
        let servers = self.live();
        let lists = join_all(servers.iter().map(Live::resources)).await;
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        let mut all: Vec<Resource> = Vec::new();
        for (server, mut resource) in
            servers.iter().zip(lists).flat_map(|(server, list)| list.into_iter().map(move |one| (server, one)))
        {
            if let Some(known) = first.get(&resource.uri) {
                let mut also = all[*known].meta.clone().unwrap_or_default();
                let mut names = also.0.get(ALSO_AT).and_then(|names| names.as_array().cloned()).unwrap_or_default();
                names.push(json!(server.name));
                also.0.insert(ALSO_AT.to_owned(), names.into());
                all[*known].meta = Some(also);
                tracing::warn!(
                    server = server.name,
                    "its resource {} is hidden by that of another server",
                    clean_line(&resource.uri)
                );
                continue;
            }
            first.insert(resource.uri.clone(), all.len());
            resource.name = format!("{}__{}", server.name, resource.name);
            all.push(resource);
        }
        all
    }

    /// The templates of all servers.
    pub async fn templates(&self) -> Vec<ResourceTemplate> {
        let servers = self.live();
        let lists = join_all(servers.iter().map(Live::templates)).await;
        let all = servers.iter().zip(lists).flat_map(|(server, list)| {
            list.into_iter().map(|mut template| {
                template.name = format!("{}__{}", server.name, template.name);
                template
            })
        });
        all.collect()
    }

    /// The prompts of all servers, by names that are made as those of tools.
    pub async fn prompts(&self) -> Vec<Prompt> {
        let servers = self.live();
        let lists = join_all(servers.iter().map(Live::prompts)).await;
        let all = servers.iter().zip(lists).flat_map(|(server, list)| {
            list.into_iter().map(|mut prompt| {
                prompt.name = exposed_name(&server.name, &prompt.name);
                prompt
            })
        });
        all.collect()
    }

    /// Reads a resource from the server that lists it, or that has a template for it, or else from the first that has it.
    pub async fn read(&self, params: ReadResourceRequestParams) -> Result<ReadResourceResponse, ErrorData> {
        let mut missing = ErrorData::resource_not_found(format!("no server has the resource {}", params.uri), None);
        for server in self.holders(&params.uri).await {
            match server.asked(server.read(params.clone())).await {
                Err(error) => missing = error,
                found => return found,
            }
        }
        Err(missing)
    }

    /// The servers that may have a resource; the likeliest first, and only that one where it is certain.
    async fn holders(&self, uri: &str) -> Vec<Live> {
        let servers: Vec<Live> = self.live().into_iter().filter(|server| server.can(|it| it.resources.is_some())).collect();
        if servers.len() < 2 {
            return servers;
        }
        let lists = join_all(servers.iter().map(Live::resources)).await;
        if let Some(at) = lists.iter().position(|list| list.iter().any(|resource| resource.uri == uri)) {
            return servers.into_iter().skip(at).take(1).collect();
        }
        let templates = join_all(servers.iter().map(Live::templates)).await;
        let fits =
            |list: &[ResourceTemplate]| list.iter().map(|template| likeness(&template.uri_template, uri)).max().unwrap_or(0);
        let mut likely: Vec<(usize, Live)> = templates.iter().map(|list| fits(list)).zip(servers).collect();
        likely.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
        likely.into_iter().map(|(_, server)| server).collect()
    }

    /// One prompt, filled in.
    pub async fn prompt(&self, mut params: GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
        let (server, name) = self.prompt_of(&params.name).await?;
        params.name = name;
        server.asked(server.prompt(params)).await
    }

    async fn prompt_of(&self, name: &str) -> Result<(Live, String), ErrorData> {
        for server in self.live() {
            let own = name.strip_prefix(&server.name).and_then(|rest| rest.strip_prefix("__"));
            if let Some(own) = own.filter(|own| exposed_name(&server.name, own) == name) {
                return Ok((server.clone(), own.to_owned()));
            }
            if let Some(prompt) =
                server.prompts().await.into_iter().find(|prompt| exposed_name(&server.name, &prompt.name) == name)
            {
                return Ok((server, prompt.name));
            }
        }
        Err(ErrorData::invalid_params(format!("there is no prompt {name}"), None))
    }

    /// What may stand for an argument.
    pub async fn complete(&self, mut params: CompleteRequestParams) -> Result<CompleteResult, ErrorData> {
        let server = match &mut params.r#ref {
            Reference::Prompt(prompt) => {
                let (server, name) = self.prompt_of(&prompt.name).await?;
                prompt.name = name;
                Some(server)
            }
            Reference::Resource(resource) => {
                let servers = self.live();
                let templates = join_all(servers.iter().map(Live::templates)).await;
                let at = templates.iter().position(|list| list.iter().any(|template| template.uri_template == resource.uri));
                match at {
                    Some(at) => servers.into_iter().nth(at),
                    None => self.holders(&resource.uri).await.into_iter().next(),
                }
            }
            _ => None,
        };
        match server {
            Some(server) if server.can(|it| it.completions.is_some()) => server.asked(server.complete(params)).await,
            _ => Ok(CompleteResult::default()),
        }
    }

    /// Tells every server that has messages for a log from which level on to send them.
    pub async fn set_log_level(&self, params: SetLevelRequestParams) {
        let servers: Vec<Live> = self.live().into_iter().filter(|server| server.can(|it| it.logging.is_some())).collect();
        join_all(servers.iter().map(async |server| {
            // In the modern era each request says it.
            let is_modern = server.peer.peer_info().is_some_and(|info| !info.protocol_version.has_initialize());
            if !is_modern && let Err(error) = server.asked(server.peer.set_level(params.clone())).await {
                tracing::warn!(server = server.name, "the level of its messages is not set: {}", error.message);
            }
        }))
        .await;
    }

    /// What each server says of its use, for a model: cleaned, and not longer than is good.
    pub fn instructions(&self) -> Vec<(String, String)> {
        let told = |server: Live| {
            let text = server.peer.peer_info()?.instructions.clone().filter(|text| !text.trim().is_empty())?;
            Some((server.name, cap(clean(text.trim()), MAX_INSTRUCTIONS).0))
        };
        self.live().into_iter().filter(|server| server.trusted).filter_map(told).collect()
    }
}

/// How much of a URI a template fixes: its letters before the first variable, if the URI begins with them.
fn likeness(template: &str, uri: &str) -> usize {
    let fixed = template.split('{').next().unwrap_or_default();
    if uri.starts_with(fixed) { fixed.len() } else { 0 }
}

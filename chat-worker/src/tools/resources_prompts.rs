//! What servers offer beside tools: resources, templates of resources, prompts and the completion of their arguments. All servers are
//! one here: names have their server's before them, URIs stay as they are, and a request finds its server by either.

#![allow(deprecated, reason = "sampling and messages for a log, which earlier eras have")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use rmcp::{
    ErrorData,
    model::{
        ClientRequest, CompleteRequest, CompleteRequestParams, CompleteResult, GetPromptRequest, GetPromptRequestParams,
        LoggingLevel, Prompt, ReadResourceRequest, ReadResourceRequestParams, Reference, Resource, ResourceTemplate,
        ServerResult,
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    asked::Given,
    failure,
    hub::Hub,
    live::{Listed, Live},
    quoted::{self, Source},
    relay::Relay,
    sanitize::{cap, clean, clean_line},
    spec::{ends_as_made, exposed_name, prefix_of},
};
use crate::{message::Message, written::Fields};

/// What a server's instructions may take of each prompt, in bytes, and what those of all servers may.
const MAX_INSTRUCTIONS: usize = 4 * 1024;
const ALL_INSTRUCTIONS: usize = 32 * 1024;

/// How long servers are waited for that might list the same before the one that does.
const SOON: Duration = Duration::from_secs(1);

/// Where the servers are told that hold the same URI.
const ALSO_AT: &str = "mcpfleet.dev/alsoAt";

impl Hub {
    /// The resources of all servers. A URI that two servers have is the first one's, and says so.
    pub async fn resources(&self) -> Vec<Listed<Resource>> {
        let servers = self.live();
        let lists = join_all(servers.iter().map(Live::resources)).await;
        let mut first: BTreeMap<String, (usize, &str)> = BTreeMap::new();
        let mut all: Vec<Listed<Resource>> = Vec::new();
        for (server, resource) in
            servers.iter().zip(lists).flat_map(|(server, list)| list.into_iter().map(move |one| (server, one)))
        {
            if let Some((known, of)) = first.get(&resource.item.uri) {
                // Twice of one server is once.
                if *of == server.name() {
                    continue;
                }
                let mut also = all[*known].item.meta.clone().unwrap_or_default();
                let mut names = also.0.get(ALSO_AT).and_then(|names| names.as_array().cloned()).unwrap_or_default();
                names.push(json!(server.name()));
                let names = Value::from(names);
                also.0.insert(ALSO_AT.to_owned(), names.clone());
                all[*known] = all[*known].clone().with(|item, fields| {
                    item.meta = Some(also);
                    let meta = fields.get("_meta").filter(|meta| meta.starts_with('{')).unwrap_or("{}").to_owned();
                    if let Ok(mut meta) = Fields::read(&meta) {
                        meta.set(ALSO_AT, &names);
                        fields.set("_meta", &meta);
                    }
                });
                tracing::warn!(
                    server = server.name(),
                    "its resource {} is hidden by that of another server",
                    clean_line(&resource.item.uri)
                );
                continue;
            }
            first.insert(resource.item.uri.clone(), (all.len(), server.name()));
            all.push(resource.with(|item, fields| {
                item.name = format!("{}__{}", server.name(), item.name);
                fields.set("name", &item.name);
                fields.spare();
            }));
        }
        all
    }

    /// The templates of all servers.
    pub async fn templates(&self) -> Vec<Listed<ResourceTemplate>> {
        let servers = self.live();
        let lists = join_all(servers.iter().map(Live::templates)).await;
        let all = servers.iter().zip(lists).flat_map(|(server, list)| {
            list.into_iter().map(|template| {
                template.with(|item, fields| {
                    item.name = format!("{}__{}", server.name(), item.name);
                    fields.set("name", &item.name);
                    fields.spare();
                })
            })
        });
        all.collect()
    }

    /// The prompts of all servers, by names that are made as those of tools.
    pub async fn prompts(&self) -> Vec<Listed<Prompt>> {
        let servers = self.live();
        let lists = join_all(servers.iter().map(Live::prompts)).await;
        let all = servers.iter().zip(lists).flat_map(|(server, list)| {
            list.into_iter().map(|prompt| {
                prompt.with(|item, fields| {
                    item.name = exposed_name(server.name(), &item.name);
                    fields.set("name", &item.name);
                    fields.spare();
                })
            })
        });
        all.collect()
    }

    /// Reads a resource from the server that lists it, or that has a template for it, or else from the first that has it. Where none has, the
    /// likeliest one says why.
    pub async fn read(&self, params: ReadResourceRequestParams, relay: Option<Relay>) -> Result<Given, ErrorData> {
        let mut why = None;
        for server in self.holders(&params.uri).await {
            let request = ClientRequest::ReadResourceRequest(ReadResourceRequest::new(params.clone()));
            match server.asked(request, relay.clone()).await {
                Err(error) => why = why.or(Some(error)),
                found => return found,
            }
        }
        Err(why.unwrap_or_else(|| ErrorData::resource_not_found(format!("no server has the resource {}", params.uri), None)))
    }

    /// Tells a watcher from now on when a resource changes: its server, which has to tell of such things, is asked to.
    pub async fn watch(&self, watcher: &str, caller: &str, uri: &str) -> Result<(), ErrorData> {
        if self.watches.has(watcher, uri) {
            return Ok(());
        }
        let mut why = None;
        for server in self.holders(uri).await.into_iter().filter(Live::tells_of_resources) {
            // It may be asked for others just now.
            let limit = server.line.limit.saturating_mul(2);
            match self.watches.watch(watcher, caller, uri, server.name(), limit).await {
                Err(error) => why = why.or(Some(error)),
                Ok(()) => return Ok(()),
            }
        }
        let nobody = || ErrorData::invalid_params(format!("no server tells of changes of the resource {uri}"), None);
        Err(why.unwrap_or_else(nobody))
    }

    /// Whether any server tells that a single resource changed.
    pub fn tells_of_resources(&self) -> bool {
        self.live().iter().any(Live::tells_of_resources)
    }

    /// The servers that may have a resource; the likeliest first, and only that one where it is certain.
    async fn holders(&self, uri: &str) -> Vec<Live> {
        let servers: Vec<Live> = self.live().into_iter().filter(|server| server.can(|it| it.resources.is_some())).collect();
        if servers.len() < 2 {
            return servers;
        }
        if let Some(at) = lister(&servers, uri).await {
            return servers.into_iter().skip(at).take(1).collect();
        }
        let templates = join_all(servers.iter().map(Live::templates)).await;
        let fits =
            |list: &[Listed<ResourceTemplate>]| list.iter().map(|one| likeness(&one.item.uri_template, uri)).max().unwrap_or(0);
        let mut likely: Vec<(usize, Live)> = templates.iter().map(|list| fits(list)).zip(servers).collect();
        likely.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
        likely.into_iter().map(|(_, server)| server).collect()
    }

    /// One prompt, filled in.
    pub async fn prompt(&self, mut params: GetPromptRequestParams, relay: Option<Relay>) -> Result<Given, ErrorData> {
        let (server, name) = self.prompt_of(&params.name).await?;
        params.name = name;
        server.asked(ClientRequest::GetPromptRequest(GetPromptRequest::new(params)), relay).await
    }

    async fn prompt_of(&self, name: &str) -> Result<(Live, String), ErrorData> {
        // A client would take the answer of one that has none for ours.
        for server in self.live().into_iter().filter(|server| server.can(|it| it.prompts.is_some())) {
            let own = name.strip_prefix(server.name()).and_then(|rest| rest.strip_prefix("__"));
            let own = own.filter(|own| exposed_name(server.name(), own) == name);
            if let Some(own) = own.filter(|own| !ends_as_made(own)) {
                return Ok((server.clone(), own.to_owned()));
            }
            // Only a server whose prompts may be called so has to say which it has.
            if !name.starts_with(&prefix_of(server.name())) {
                continue;
            }
            let listed = server.prompts().await.into_iter().find(|prompt| exposed_name(server.name(), &prompt.item.name) == name);
            if let Some(own) = listed.map(|prompt| prompt.item.name).or_else(|| own.map(str::to_owned)) {
                return Ok((server, own));
            }
        }
        Err(ErrorData::invalid_params(format!("there is no prompt {name}"), None))
    }

    /// What a user asks with, as messages; or why there is none, for a person.
    pub async fn quoted(&self, source: Source, relay: Relay) -> Result<Vec<Message>, ErrorData> {
        let told = |error: ErrorData| ErrorData::new(error.code, failure::own(&error), None);
        match source {
            Source::Prompt(params) => {
                if let ServerResult::GetPromptResult(result) = self.prompt(params, Some(relay)).await.map_err(told)?.result {
                    return Ok(quoted::prompt(&result.messages));
                }
            }
            Source::Resource(params) => {
                let uri = params.uri.clone();
                if let ServerResult::ReadResourceResult(result) = self.read(params, Some(relay)).await.map_err(told)?.result {
                    return Ok(quoted::resource(&uri, &result.contents));
                }
            }
        }
        Err(ErrorData::internal_error("the server answered something else", None))
    }

    /// What may stand for an argument.
    pub async fn complete(&self, mut params: CompleteRequestParams, relay: Option<Relay>) -> Result<Given, ErrorData> {
        let server = match &mut params.r#ref {
            Reference::Prompt(prompt) => {
                let (server, name) = self.prompt_of(&prompt.name).await?;
                prompt.name = name;
                Some(server)
            }
            Reference::Resource(resource) => {
                let servers = self.live();
                let templates = join_all(servers.iter().map(Live::templates)).await;
                let at = templates.iter().position(|list| list.iter().any(|one| one.item.uri_template == resource.uri));
                match at {
                    Some(at) => servers.into_iter().nth(at),
                    None => self.holders(&resource.uri).await.into_iter().next(),
                }
            }
            _ => None,
        };
        match server {
            Some(server) if server.can(|it| it.completions.is_some()) => {
                server.asked(ClientRequest::CompleteRequest(CompleteRequest::new(params)), relay).await
            }
            _ => Ok(ServerResult::CompleteResult(CompleteResult::default()).into()),
        }
    }

    /// From which level on somebody wants messages for a log: every server that has some is told.
    pub async fn want_messages(&self, level: Option<LoggingLevel>) {
        self.log_level.set(level);
        join_all(self.live().iter().map(|server| server.line.tell_level())).await;
    }

    /// What each server says of its use, for a model: cleaned, and not longer than is good.
    pub fn instructions(&self) -> Vec<(String, String)> {
        let told = |server: &Live| {
            let text = server.line.peer.peer_info()?.instructions.clone().filter(|text| !text.trim().is_empty())?;
            Some((server.name().to_owned(), text))
        };
        let all: Vec<_> = self.live().iter().filter(|server| server.trusted).filter_map(told).collect();
        let most = MAX_INSTRUCTIONS.min(ALL_INSTRUCTIONS / all.len().max(1));
        all.into_iter().map(|(server, text)| (server, cap(clean(text.trim()), most).0)).collect()
    }
}

/// The place of the first of these servers that lists a resource. One before it that does not say so soon does not hold it up.
async fn lister(servers: &[Live], uri: &str) -> Option<usize> {
    let listing = |(place, server): (usize, &Live)| {
        let list = server.clone();
        async move { (place, list.resources().await.iter().any(|resource| resource.item.uri == uri)) }
    };
    let mut lists: FuturesUnordered<_> = servers.iter().enumerate().map(listing).collect();
    let mut silent: BTreeSet<usize> = (0..servers.len()).collect();
    let mut found = None::<(usize, Instant)>;
    loop {
        let next = match found {
            Some((_, until)) => timeout_at(until, lists.next()).await.ok().flatten(),
            None => lists.next().await,
        };
        let Some((place, has_it)) = next else { return found.map(|(place, _)| place) };
        silent.remove(&place);
        if has_it {
            let until = found.map_or_else(|| Instant::now() + SOON, |(_, until)| until);
            found = Some((found.map_or(place, |(before, _)| before.min(place)), until));
        }
        if let Some((place, _)) = found.filter(|(place, _)| silent.first().is_none_or(|silent| silent > place)) {
            return Some(place);
        }
    }
}

/// How much of a URI a template fixes: its letters before the first variable, if the URI begins with them.
fn likeness(template: &str, uri: &str) -> usize {
    let fixed = template.split('{').next().unwrap_or_default();
    if uri.starts_with(fixed) { fixed.len() } else { 0 }
}

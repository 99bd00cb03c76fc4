//! Modern clients that listen to a legacy child: what the child tells everybody reaches them as what they subscribed to.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::era::Offers;
use crate::outbox::Outbox;
use crate::session::{MAX_RESOURCES, MAX_URI};
use crate::told::Notification;
use crate::translate;
use crate::wire;

/// What a client wants to hear.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_excessive_bools, reason = "the protocol's own names")]
pub struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    /// Uris.
    pub resource_subscriptions: Vec<String>,
}

impl Filter {
    /// Of the params of `subscriptions/listen`.
    pub fn of(params: Option<&str>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Listen {
            notifications: Filter,
        }
        serde_json::from_str::<Listen>(params?).ok().map(|listen| listen.notifications)
    }

    /// What of it the child can tell.
    pub fn offered(mut self, offers: Offers) -> Self {
        self.tools_list_changed &= offers.tools;
        self.prompts_list_changed &= offers.prompts;
        self.resources_list_changed &= offers.resources;
        if !offers.subscribe {
            self.resource_subscriptions.clear();
        }
        self.resource_subscriptions.retain(|uri| uri.len() <= MAX_URI);
        self.resource_subscriptions.truncate(MAX_RESOURCES);
        self
    }

    /// As it is acknowledged: what is not there was not accepted.
    pub fn accepted(&self) -> Value {
        let flags = [
            ("toolsListChanged", self.tools_list_changed),
            ("promptsListChanged", self.prompts_list_changed),
            ("resourcesListChanged", self.resources_list_changed),
        ];
        let mut accepted: Map<String, Value> =
            flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_owned(), true.into())).collect();
        if !self.resource_subscriptions.is_empty() {
            accepted.insert("resourceSubscriptions".to_owned(), json!(self.resource_subscriptions));
        }
        Value::Object(accepted)
    }

    fn wants(&self, told: &Notification) -> bool {
        match &*told.method {
            "notifications/tools/list_changed" => self.tools_list_changed,
            "notifications/prompts/list_changed" => self.prompts_list_changed,
            "notifications/resources/list_changed" => self.resources_list_changed,
            "notifications/resources/updated" => {
                told.uri.as_deref().is_some_and(|uri| self.resource_subscriptions.iter().any(|wanted| wanted == uri))
            }
            _ => false,
        }
    }
}

/// One subscription.
#[derive(Debug)]
pub struct Listener {
    /// The id of the client's `subscriptions/listen`, as JSON.
    pub id: String,
    /// What was accepted.
    pub filter: Filter,
    /// Where it goes.
    pub out: Outbox,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<Vec<Listener>>);

impl Listeners {
    /// One more: it is acknowledged first.
    pub fn add(&self, listener: Listener) {
        let params = json!({"_meta": {}, "notifications": listener.filter.accepted()}).to_string();
        let acknowledged = wire::notification("notifications/subscriptions/acknowledged", &params);
        listener.out.tell(translate::with_subscription(&acknowledged, &listener.id).into());
        let mut all = self.all();
        all.retain(|listener| !listener.out.has_ended());
        all.push(listener);
    }

    /// To those who want it.
    pub fn deliver(&self, told: &Notification) {
        let mut all = self.all();
        all.retain(|listener| !listener.out.has_ended());
        for listener in all.iter().filter(|listener| listener.filter.wants(told)) {
            listener.out.tell(translate::with_subscription(&told.line, &listener.id).into());
        }
    }

    /// The resources that somebody wants to hear of.
    pub fn resources(&self) -> HashSet<String> {
        let mut all = self.all();
        all.retain(|listener| !listener.out.has_ended());
        all.iter().flat_map(|listener| listener.filter.resource_subscriptions.iter().cloned()).collect()
    }

    /// All end.
    pub fn end(&self) {
        for listener in self.all().drain(..) {
            listener.out.end();
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::outbox::Event;

    fn told(method: &str, uri: Option<&str>) -> Notification {
        Notification {
            method: method.into(),
            uri: uri.map(Into::into),
            level: None,
            only: None,
            line: Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)),
        }
    }

    #[tokio::test]
    async fn a_listener_hears_what_it_subscribed_to_under_its_own_id() {
        let filter = Filter::of(Some(
            r#"{"notifications": {"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a"]}}"#,
        ));
        let filter = filter.unwrap().offered(Offers { tools: true, subscribe: true, ..Offers::default() });
        let out = Outbox::default();
        let listeners = Listeners::default();
        listeners.add(Listener { id: "\"mine\"".into(), filter, out: out.clone() });
        for (method, uri) in [
            ("notifications/prompts/list_changed", None),
            ("notifications/resources/updated", Some("b")),
            ("notifications/resources/updated", Some("a")),
            ("notifications/tools/list_changed", None),
        ] {
            listeners.deliver(&told(method, uri));
        }
        listeners.end();
        let mut heard = Vec::new();
        while let Some(Event::Message(message)) = out.next().await {
            let message: Value = serde_json::from_slice(&message).unwrap();
            assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "mine", "{message}");
            heard.push(message["method"].as_str().unwrap().trim_start_matches("notifications/").to_owned());
        }
        assert_eq!(heard, ["subscriptions/acknowledged", "resources/updated", "tools/list_changed"]);
    }
}

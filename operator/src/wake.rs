//! Which change wakes which CR, and who uses what. Pure.
//!
//! A reverse index: from Secrets and ConfigMaps to the CRs that point at them, and from servers to the apps that name them. It is kept
//! by the watches of the CRs, so that a change costs what it concerns and not what the cluster holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube::ResourceExt;

use crate::{
    crd::{McpApp, McpAppSpec, McpServer},
    inputs::{Kind, Reference},
    mcp_app, mcp_server,
    names::Component,
    who::Who,
};

/// An object that specs point at.
type Pointed = (Kind, String, String);

/// Who uses what.
#[derive(Debug, Default)]
pub struct Index {
    /// Who points at a Secret or ConfigMap.
    pointing: HashMap<Pointed, BTreeSet<Who>>,
    /// What each points at, to be taken out of `pointing` again.
    points: HashMap<Who, BTreeSet<Pointed>>,
    /// The apps of a namespace, by name, with the servers that they list now.
    apps: HashMap<String, BTreeMap<String, (McpAppSpec, BTreeSet<String>)>>,
}

impl Index {
    /// A server is new or differs. Gives who is to be woken.
    pub fn server(&mut self, server: &McpServer) -> BTreeSet<Who> {
        let who = Who::new(Component::Server, server);
        let (spec, pointed) = (&server.spec, mcp_server::observe::references(&server.spec));
        self.point(&who, pointed.into_iter().chain(mcp_server::observe::backup_references(spec)).collect());
        let mut woken = self.apps_of(server);
        woken.insert(who);
        woken
    }

    /// A server is gone.
    pub fn server_gone(&mut self, server: &McpServer) -> BTreeSet<Who> {
        let who = Who::new(Component::Server, server);
        self.point(&who, BTreeSet::new());
        self.apps_of(server)
    }

    /// An app is new or differs.
    pub fn app(&mut self, app: &McpApp) -> BTreeSet<Who> {
        let who = Who::new(Component::App, app);
        self.point(&who, mcp_app::observe::references(&app.spec));
        let listed = app.status.iter().flat_map(|status| &status.servers).map(|server| server.name.clone()).collect();
        self.apps.entry(who.namespace.clone()).or_default().insert(who.name.clone(), (app.spec.clone(), listed));
        BTreeSet::from([who])
    }

    /// An app is gone.
    pub fn app_gone(&mut self, app: &McpApp) {
        let who = Who::new(Component::App, app);
        self.point(&who, BTreeSet::new());
        if let Some(apps) = self.apps.get_mut(&who.namespace) {
            apps.remove(&who.name);
            if apps.is_empty() {
                self.apps.remove(&who.namespace);
            }
        }
    }

    /// A Secret or ConfigMap is new, differs or is gone.
    pub fn pointed_at(&self, kind: Kind, namespace: &str, name: &str) -> BTreeSet<Who> {
        self.pointing.get(&(kind, namespace.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    /// The apps that name the server, or did until its label was taken away: their status still lists it then.
    fn apps_of(&self, server: &McpServer) -> BTreeSet<Who> {
        let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
        let apps = self.apps.get(&namespace).into_iter().flatten();
        let using = apps.filter(|(_, (spec, listed))| listed.contains(&name) || mcp_app::validate::names_server(spec, server));
        using.map(|(app, _)| Who { component: Component::App, namespace: namespace.clone(), name: app.clone() }).collect()
    }

    fn point(&mut self, who: &Who, references: BTreeSet<Reference>) {
        for pointed in self.points.remove(who).into_iter().flatten() {
            if let Some(pointing) = self.pointing.get_mut(&pointed) {
                pointing.remove(who);
                if pointing.is_empty() {
                    self.pointing.remove(&pointed);
                }
            }
        }
        let points: BTreeSet<Pointed> =
            references.into_iter().map(|reference| (reference.kind, who.namespace.clone(), reference.name)).collect();
        for pointed in &points {
            self.pointing.entry(pointed.clone()).or_default().insert(who.clone());
        }
        if !points.is_empty() {
            self.points.insert(who.clone(), points);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        crd::mcp_app::{AppServer, AppServerState},
        fixtures,
    };

    fn who(component: Component, name: &str) -> Who {
        Who { component, namespace: "team".into(), name: name.into() }
    }

    fn reading(secret: &str) -> McpServer {
        fixtures::server(|server| {
            server.spec.pod.env_from = serde_json::from_value(json!([{"secretRef": {"name": secret}}])).expect("a reference");
        })
    }

    #[test]
    fn a_secret_wakes_who_points_at_it_and_nobody_who_did() {
        let mut index = Index::default();
        index.server(&reading("a"));
        index.app(&fixtures::app(|_| {}));
        assert_eq!(index.pointed_at(Kind::Secret, "team", "a"), BTreeSet::from([who(Component::Server, "db")]));
        assert_eq!(index.pointed_at(Kind::Secret, "team", "anthropic"), BTreeSet::from([who(Component::App, "chat")]));
        assert!(index.pointed_at(Kind::ConfigMap, "team", "a").is_empty(), "another kind");
        assert!(index.pointed_at(Kind::Secret, "other", "a").is_empty(), "another namespace");

        index.server(&reading("b"));
        assert!(index.pointed_at(Kind::Secret, "team", "a").is_empty());
        index.server_gone(&reading("b"));
        index.app_gone(&fixtures::app(|_| {}));
        assert!(index.pointing.is_empty() && index.points.is_empty() && index.apps.is_empty());
    }

    #[test]
    fn a_server_wakes_itself_and_the_apps_that_name_it_or_still_list_it() {
        let mut index = Index::default();
        index.app(&fixtures::app(|_| {}));
        index.app(&fixtures::app(|app| {
            app.metadata.name = Some("other".into());
            app.spec.servers = serde_json::from_value(json!([{"name": "elsewhere"}])).expect("servers");
        }));
        index.app(&fixtures::app(|app| {
            app.metadata.name = Some("by-label".into());
            app.spec.servers = serde_json::from_value(json!([{"selector": {"matchLabels": {"team": "data"}}}])).expect("servers");
            let servers = vec![AppServer { name: "db".into(), state: AppServerState::Offered }];
            app.status = Some(crate::crd::McpAppStatus { servers, ..Default::default() });
        }));
        let apps = [who(Component::App, "by-label"), who(Component::App, "chat")];
        let woken = index.server(&fixtures::server(|_| {}));
        assert_eq!(woken, apps.iter().cloned().chain([who(Component::Server, "db")]).collect());
        assert_eq!(index.server_gone(&fixtures::server(|_| {})), apps.into_iter().collect());
    }
}

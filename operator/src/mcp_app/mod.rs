//! What is particular to McpApps in a pass (`pass` drives it): the files are its steps, in their order, and `remount`, by which what they write
//! reaches the pods.

pub mod build;
pub mod observe;
mod remount;
pub mod status;
pub mod validate;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;
use rand::Rng;

use self::{observe::Observed, validate::ValidatedApp};
use mcp_wire::mask::Mask;

use crate::{
    app_pods::AppPods,
    app_reports::AppReports,
    cache::Cache,
    child::Child,
    children::Live,
    claims, conditions,
    crd::{McpApp, McpAppStatus, McpServer},
    digest,
    inputs::{self, Reference},
    names::Component,
    network::Surroundings,
    pass::{Context, Outcome, Subject, Told},
    problem::Problem,
};

/// What passes over apps need beside what all passes do.
pub struct World {
    /// All McpServers, with what we wrote last in front.
    pub servers: Arc<Cache<McpServer>>,
    /// What keeps pods from running.
    pub pods: Arc<AppPods>,
    /// What they say of their model and their budget.
    pub reports: Arc<AppReports>,
    /// The chat worker of this operator's version.
    pub default_image: String,
}

impl Subject for McpApp {
    const COMPONENT: Component = Component::App;
    type Facts = Observed;
    type Valid = ValidatedApp;
    type Status = McpAppStatus;
    type World = World;

    fn told(&self) -> Option<&McpAppStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &McpAppStatus) -> &[Condition] {
        &status.conditions
    }

    fn masked(status: McpAppStatus, mask: &Mask) -> McpAppStatus {
        McpAppStatus { conditions: conditions::masked(status.conditions, mask), ..status }
    }

    fn given(&self) -> BTreeSet<Reference> {
        observe::references(&self.spec)
    }

    /// Nobody probes apps.
    fn switch(&self, _: &Context<Self>) {}

    fn claims(&self) -> Vec<String> {
        claims::of_pods(&self.spec.pod).map(str::to_owned).collect()
    }

    async fn observe(&self, context: &Context<Self>) -> Result<Observed, inputs::Error> {
        observe::observe(self, &context.reader, &context.writer.children, &context.world).await
    }

    fn most_pods(&self) -> u32 {
        self.spec.replicas
    }

    fn validate(&self, facts: &Observed, world: &World) -> Result<ValidatedApp, Vec<Problem>> {
        let mut app = validate::validate(self, facts, &world.default_image, new_token())?;
        app.lacks.extend(build::too_large(&app));
        Ok(app)
    }

    fn lacks(valid: &ValidatedApp) -> &[Problem] {
        &valid.lacks
    }

    fn notes(valid: &ValidatedApp) -> &[Problem] {
        &valid.notes
    }

    fn children(valid: &ValidatedApp, around: &Surroundings) -> Vec<Child> {
        build::children(valid, around)
    }

    async fn reconfigured(&self, live: &Live, context: &Context<Self>) {
        let pods = context.world.pods.names(&self.namespace().unwrap_or_default(), &self.name_any());
        remount::hurry(&context.writer.client, &live.key.namespace, pods, live.version).await;
    }

    fn found(&self, _: &ValidatedApp, _: &Arc<Mask>, _: &Context<Self>) {}

    fn look(&self, context: &Context<Self>, now: Timestamp) -> Option<Duration> {
        context.world.pods.due(&self.namespace().unwrap_or_default(), &self.name_any(), now)
    }

    fn status(&self, outcome: &Outcome<ValidatedApp>, context: &Context<Self>, now: Timestamp) -> Told<McpAppStatus> {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let mut held_up = context.world.pods.held_up(&namespace, &name, outcome.deployment.as_ref(), &context.warnings, now);
        let quotes = outcome.may_quote();
        held_up.trouble = held_up.trouble.map(|trouble| claims::named(trouble.quoted(quotes), &outcome.claims));
        let report = context.world.reports.of(&namespace, &name).unwrap_or_default();
        Told::Now(status::compute(self, outcome, &held_up, &report, now))
    }
}

/// A token that nobody guesses: 192 bits from the operating system's generator.
fn new_token() -> String {
    let mut bytes = [0_u8; 24];
    rand::rng().fill(&mut bytes);
    digest::hex(&bytes)
}

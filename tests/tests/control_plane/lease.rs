//! The Lease: whoever has lost it ends, and writes nothing more.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease},
    jiff::Timestamp,
};
use kube::{Client, Config};
use mcpfleet_tests::{
    audit,
    cluster::{Space, is_told, with_space},
};
use operator::{
    config::RunConfig,
    crd::{McpServer, reason},
    run::Error,
};
use reqwest::header::{HeaderValue, USER_AGENT};
use serde_json::{Value, json};

use crate::reconcile::ready_is;

const LEASE: &str = "mcpfleet-operator";
/// Two seconds between two looks at the Lease, and five at most for giving back what it no longer has.
const SECONDS: Duration = Duration::from_secs(10);

fn config(space: &Space, identity: &str) -> anyhow::Result<RunConfig> {
    Ok(RunConfig { no_leader_election: false, identity: Some(identity.into()), lease_name: LEASE.into(), ..space.config()? })
}

/// A client whose writes are known in the audit log.
async fn client_named(agent: &str) -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    config.headers.push((USER_AGENT, HeaderValue::from_str(agent)?));
    Ok(Client::try_from(config)?)
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

fn server(colour: &str) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {
        "container": {"image": "a/b:1"}, "env": [{"name": "COLOUR", "value": colour}],
    }})
}

fn has_colour(deployment: &Deployment, colour: &str) -> bool {
    json!(deployment.spec)["template"]["spec"]["containers"][0]["env"].to_string().contains(colour)
}

#[tokio::test]
async fn a_leader_whose_lease_is_taken_ends_within_seconds_and_writes_nothing_after() {
    with_space(|space| async move {
        let agent = format!("robbed-{}", space.name);
        let leader = space.start(client_named(&agent).await?, config(&space, "robbed")?);
        leader.ready().await?;
        space.create::<McpServer>(server("green")).await?;
        space
            .until::<McpServer>("s", "Starting", |server| is_told(server) && ready_is(server, "False", reason::STARTING))
            .await?;
        space.until::<Lease>(LEASE, "its Lease", |lease| holder(lease) == Some("robbed")).await?;
        assert!(!audit::writes_by(&agent, Timestamp::UNIX_EPOCH)?.is_empty(), "its writes are known");

        let taken = json!({"spec": {"holderIdentity": "robber", "renewTime": format!("{:.6}", Timestamp::now())}});
        space.edit::<Lease>(LEASE, taken).await?;
        let began = Instant::now();
        let ended = leader.ended().await?;
        assert!(matches!(ended, Err(Error::LeadLost)), "{ended:?}");
        assert!(began.elapsed() < SECONDS, "it ended after {:?}", began.elapsed());
        assert_eq!(holder(&space.api::<Lease>().get(LEASE).await?), Some("robber"), "it was not given away");

        // What there is to write is another's.
        let since = Timestamp::now();
        space.create::<McpServer>(server("blue")).await?;
        let next = space.start(space.client.clone(), config(&space, "robber")?);
        space.until::<Deployment>("s-mcp", "the edit", |deployment| has_colour(deployment, "blue")).await?;
        space.until::<McpServer>("s", "a status", is_told).await?;
        assert_eq!(audit::writes_by(&agent, since)?, []);
        next.stop().await
    })
    .await;
}

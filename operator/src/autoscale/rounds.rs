//! Asks the pods of servers with `spec.autoscaling` for their calls in flight, again and again, and has a change carried out. I/O.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use http::StatusCode;
use kube::Client;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    autoscaler::{Answer, Asked, Autoscaler, Heard},
    load,
};
use crate::{
    http_get,
    names::ANNOTATION_DELETION_COST,
    pod_annotation,
    probe::{HealthEngine, ServerKey, ServingPod},
};

/// How often every pod is asked.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long one has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pods asked at once.
const AT_ONCE: usize = 64;
/// The most of an answer that is read: of a server with many tools.
const MOST: usize = 1024 * 1024;

/// Asks all pods every few seconds, and tells `changed` of whom something else was decided. Never ends.
pub async fn watch(autoscaler: Arc<Autoscaler>, engine: HealthEngine, client: Client, changed: mpsc::UnboundedSender<ServerKey>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        round(&autoscaler, &engine, &client, &changed).await;
    }
}

async fn round(autoscaler: &Autoscaler, engine: &HealthEngine, client: &Client, changed: &mpsc::UnboundedSender<ServerKey>) {
    let mut servers = HashMap::new();
    let mut questions = Vec::new();
    for (key, asked) in autoscaler.all() {
        let serving = engine.serving(&key);
        let in_service = serving.iter().flat_map(|serving| serving.in_service.clone());
        questions.extend(in_service.map(|pod| (key.clone(), pod, asked.clone())));
        let (pods, panic) = serving.map_or((0, false), |serving| (serving.pods, serving.panic));
        servers.insert(key, (pods, panic, Vec::new()));
    }
    let asked = stream::iter(questions).map(|(key, pod, asked)| async move {
        let answer = ask(&pod, &asked).await;
        (key, Heard { uid: pod.uid, name: pod.name, answer })
    });
    for (key, heard) in asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        if let Some((_, _, all)) = servers.get_mut(&key) {
            all.push(heard);
        }
    }
    for (key, (pods, panic, heard)) in servers {
        let news = autoscaler.heard(&key, heard, pods, panic, Instant::now());
        // Before the Deployment hears of it: by then it is known who goes first.
        if let Some(costs) = news.costs {
            tell_costs(client, &key.namespace, costs).await;
        }
        if news.changed {
            // The other end is gone only at the end of the process.
            let _ending = changed.send(key);
        }
    }
}

async fn ask(pod: &ServingPod, asked: &Asked) -> Answer {
    let path = asked.metrics;
    let answer = timeout(PATIENCE, http_get::get(pod.address, path, &pod.host, MOST)).await.ok().flatten();
    let (status, body) = answer.ok_or_else(|| format!("its {path} does not answer"))?;
    if status != StatusCode::OK {
        return Err(format!("its {path} answers {}", status.as_u16()));
    }
    load::read(&String::from_utf8_lossy(&body), asked.probed.as_deref())
        .ok_or_else(|| format!("its {path} has none of the metrics that are known"))
}

/// Kubernetes takes away the pod first that costs least. A pod that cannot be told of is taken like one without calls.
async fn tell_costs(client: &Client, namespace: &str, costs: Vec<(String, u32)>) {
    for (pod, cost) in costs {
        pod_annotation::set(client, namespace, &pod, ANNOTATION_DELETION_COST, &cost.to_string()).await;
    }
}

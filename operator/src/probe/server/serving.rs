//! Where a server's pods are that clients are sent to, for whoever asks them something else than MCP. Pure.

use std::net::SocketAddr;

use super::Server;
use crate::probe::{
    target::Target,
    types::{Endpoint, Serving, ServingPod},
};

impl Server {
    /// The pods that clients are sent to, and those that may be. None: it has none of ours, or nothing is known of it.
    pub fn serving(&self, panic: bool) -> Option<Serving> {
        let Endpoint::Pods { port, host, .. } = &self.spec.as_deref()?.endpoint else { return None };
        let there = || self.targets.values().filter(|target| target.pod.as_ref().is_some_and(|pod| !pod.deleting));
        let at = |target: &Target| {
            let pod = target.pod.as_ref().filter(|_| target.gate.holds())?;
            Some(SocketAddr::new(pod.address?, pod.asked.as_ref().map_or(*port, |asked| asked.port)))
        };
        let in_service = |target: &Target| {
            let pod = target.pod.as_ref().filter(|pod| pod.ready)?;
            Some(ServingPod { name: pod.name.clone(), uid: pod.uid.clone(), address: at(target)?, host: host.clone() })
        };
        let pods = u32::try_from(there().count()).unwrap_or(u32::MAX);
        Some(Serving {
            panic,
            pods,
            in_service: there().filter_map(in_service).collect(),
            answering: there().filter_map(at).collect(),
        })
    }
}

//! What the operator asked of the API server, counted by the API server's audit log.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
};

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// Requests by verb and resource.
#[derive(Debug, Default)]
pub struct Requests(BTreeMap<(String, String), u64>);

/// Those of the operator since then.
pub fn of_operator(since: Timestamp) -> Result<Requests> {
    let path = std::env::var("MCPFLEET_AUDIT_LOG").context("MCPFLEET_AUDIT_LOG is not set")?;
    let mut requests = Requests::default();
    for line in BufReader::new(std::fs::File::open(path)?).lines() {
        let line = line?;
        if !line.contains("\"username\":\"operator\"") || !line.contains("ResponseComplete") {
            continue;
        }
        let entry: Value = serde_json::from_str(&line)?;
        let received: Timestamp = entry["requestReceivedTimestamp"].as_str().context("no time")?.parse()?;
        if received < since {
            continue;
        }
        let object = &entry["objectRef"];
        let mut resource = object["resource"].as_str().unwrap_or("none").to_owned();
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        *requests.0.entry((entry["verb"].as_str().unwrap_or_default().to_owned(), resource)).or_default() += 1;
    }
    Ok(requests)
}

const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];

impl Requests {
    /// Writes, but for those of a Lease.
    pub fn writes(&self) -> u64 {
        let writes = self.0.iter().filter(|((verb, resource), _)| WRITES.contains(&&**verb) && resource != "leases");
        writes.map(|(_, count)| count).sum()
    }

    /// Writes and reads a server, and what they are.
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    pub fn told(&self, servers: u32) -> String {
        let sum = |verbs: &[&str]| -> f64 {
            let counts = self.0.iter().filter(|((verb, resource), _)| verbs.contains(&&**verb) && resource != "leases");
            counts.map(|(_, count)| *count).sum::<u64>() as f64 / f64::from(servers)
        };
        let all: Vec<String> = self
            .0
            .iter()
            .filter(|((verb, resource), _)| !matches!(&**verb, "list" | "watch") && resource != "leases")
            .map(|((verb, resource), count)| format!("{:.2} {verb} {resource}", *count as f64 / f64::from(servers)))
            .collect();
        let (writes, reads) = (sum(&WRITES), sum(&["get"]));
        format!("{writes:.2} | {reads:.2} | {}", all.join(", "))
    }
}

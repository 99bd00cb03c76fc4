//! Probes one URL again and again, as the operator would, and prints what came of it:
//! `cargo run -p operator --example probe -- http://127.0.0.1:3001/mcp 1000`

use std::{collections::BTreeMap, time::Instant};

use operator::{
    crd::{CircuitBreaker, Health},
    probe::{Attempt as _, Endpoint, Known, McpProber, Prober as _, Route, ServerSpec, TargetId, ToolsContract},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url: url::Url = args.next().ok_or_else(|| anyhow::anyhow!("give a URL, and how many probes"))?.parse()?;
    let count: usize = args.next().map_or(Ok(1), |count| count.parse())?;
    let spec = ServerSpec {
        object: k8s_openapi::api::core::v1::ObjectReference::default(),
        endpoint: Endpoint::Remote { url },
        credentials: Vec::new(),
        ca: None,
        lacks_credentials: false,
        enabled: true,
        paused: false,
        recheck: None,
        health: Health::default(),
        breaker: CircuitBreaker::default(),
        tools: ToolsContract::default(),
        may_sleep: false,
        mask: std::sync::Arc::default(),
        reach: None,
    };
    let route = std::sync::Arc::new(Route::new(&spec));
    let prober = McpProber::default();
    let (mut known, mut outcomes, mut took) = (Known::default(), BTreeMap::<String, usize>::new(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        let mut attempt = prober.attempt(TargetId(1), &route, None, known.clone(), false);
        let outcome = match tokio::time::timeout(route.timeout, attempt.ask()).await {
            Ok(Ok(found)) => {
                let tools = found.tools.as_ref().map_or(0, |tools| tools.count());
                format!(
                    "Healthy: {:?} {} {} {}, {tools} tools",
                    found.hello.era, found.hello.version, found.hello.server_info.name, found.hello.server_info.version
                )
            }
            Ok(Err(problem)) => format!("{problem:?}"),
            Err(_) => format!("no answer to {}", attempt.step()),
        };
        took.push(began.elapsed());
        known = attempt.known();
        attempt.finish().await;
        *outcomes.entry(outcome).or_default() += 1;
    }
    took.sort_unstable();
    for (outcome, count) in outcomes {
        println!("{count:>6}  {outcome}");
    }
    println!("median {:?}, slowest {:?}", took[took.len() / 2], took[took.len() - 1]);
    Ok(())
}

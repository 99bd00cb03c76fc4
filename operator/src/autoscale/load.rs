//! What a pod tells of its calls, out of the metrics that the programs of ours have: the bridge, and sandbox-server. Pure.

/// What a pod told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Calls under way.
    pub in_flight: u32,
    /// Calls of clients that have ended since its start: what probes ask is left out.
    pub calls: u64,
    /// Sessions that are open.
    pub sessions: u32,
}

/// Calls under way, in the bridge's words and in sandbox-server's.
const IN_FLIGHT: [&str; 2] = ["bridge_calls_in_flight", "sandbox_tool_calls_in_flight"];
/// Calls that have ended.
const CALLS: [&str; 2] = ["bridge_calls_total", "sandbox_tool_calls_total"];
/// Open sessions.
const SESSIONS: [&str; 2] = ["bridge_sessions", "sandbox_sessions"];
/// What every probe asks, and what keeps a connection open.
const OF_PROBES: [&str; 5] = ["server/discover", "initialize", "tools/list", "ping", "notifications/initialized"];

/// Reads metrics in Prometheus' text format. `probed`: the tool that probes call. None: it does not tell its calls in flight.
pub fn read(text: &str, probed: Option<&str>) -> Option<Told> {
    let mut in_flight = None;
    let mut told = Told::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let Some(value) = value.parse::<f64>().ok().filter(|value| *value >= 0.0) else { continue };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count: whole, not below 0, and far below 2^53"
        )]
        let count = value as u64;
        let small = u32::try_from(count).unwrap_or(u32::MAX);
        if IN_FLIGHT.contains(&name) {
            in_flight = Some(small.saturating_add(in_flight.unwrap_or(0)));
        } else if SESSIONS.contains(&name) {
            told.sessions = told.sessions.saturating_add(small);
        } else if CALLS.contains(&name) && !of_probes(labels, probed) {
            told.calls += count;
        }
    }
    in_flight.map(|in_flight| Told { in_flight, ..told })
}

fn of_probes(labels: &str, probed: Option<&str>) -> bool {
    let has = |label: &str, value: &str| labels.contains(&format!("{label}=\"{value}\""));
    OF_PROBES.iter().any(|method| has("method", method)) || probed.is_some_and(|tool| has("tool", tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = r#"# HELP bridge_calls_in_flight Requests that wait for their answers.
# TYPE bridge_calls_in_flight gauge
bridge_calls_in_flight 3
bridge_sessions 2
bridge_calls_total{method="tools/call",outcome="ok",tool="add"} 5
bridge_calls_total{method="tools/call",outcome="ok",tool="up"} 100
bridge_calls_total{method="tools/list",outcome="ok",tool=""} 40
bridge_calls_total{method="resources/read",outcome="error",tool=""} 1
bridge_call_seconds_sum{method="tools/call",tool="add"} 5.5
"#;

    #[test]
    fn a_bridge_tells_calls_and_sessions_and_what_probes_ask_is_left_out() {
        assert_eq!(read(BRIDGE, Some("up")), Some(Told { in_flight: 3, calls: 6, sessions: 2 }));
        assert_eq!(read(BRIDGE, None), Some(Told { in_flight: 3, calls: 106, sessions: 2 }));
    }

    #[test]
    fn sandbox_server_tells_its_calls() {
        let text =
            "sandbox_sessions 3\nsandbox_tool_calls_in_flight 12\nsandbox_tool_calls_total{outcome=\"ok\",tool=\"query\"} 7\n";
        assert_eq!(read(text, None), Some(Told { in_flight: 12, calls: 7, sessions: 3 }));
    }

    #[test]
    fn who_does_not_tell_is_not_taken_for_idle() {
        for text in
            ["", "not found\n", "process_cpu_seconds_total 1\n", "bridge_calls_in_flight -1\n", "bridge_calls_in_flight x\n"]
        {
            assert_eq!(read(text, None), None, "{text}");
        }
    }
}

//! What processes have used, as /proc tells: the operator's, and those of Kubernetes' own parts, which its work costs more than itself.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

/// What a process has used.
pub struct Usage {
    cpu: f64,
    rss: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Self> {
        let cpu = Stat::of(&pid.to_string()).context("the operator is gone")?.cpu;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
        let rss = line.split_whitespace().nth(1).context("no number")?.parse::<u64>()? / 1_024;
        Ok(Self { cpu, rss })
    }

    pub fn since(&self, before: &Self) -> String {
        format!("{:.1} | {}", self.cpu - before.cpu, self.rss)
    }

    pub fn told(&self) -> String {
        format!("{:.1} | {}", self.cpu, self.rss)
    }
}

/// Seconds of CPU of each part of the cluster, by name.
pub struct Parts(BTreeMap<String, f64>);

impl Parts {
    /// Up to now. The parts are what runs in the process namespace of the cluster's first process.
    pub fn now() -> Result<Self> {
        let state = std::env::var("MCPFLEET_STATE").context("MCPFLEET_STATE is not set")?;
        let file = fs::read_to_string(Path::new(&state).join("init.pid")).context("no pid of the cluster")?;
        let init = file.split_whitespace().next().context("no pid of the cluster")?;
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let ours = namespace(init).context("the cluster is gone")?;
        let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // One that has ended meanwhile is none of them.
        let parts = pids.filter(|pid| namespace(pid).is_ok_and(|found| found == ours)).filter_map(|pid| Stat::of(&pid).ok());
        Ok(Self(parts.map(|stat| (stat.name, stat.cpu)).collect()))
    }

    /// `apiserver 61, etcd 7, …`: milliseconds a server.
    pub fn since(&self, before: &Self, servers: u32) -> String {
        let used = |(name, cpu): (&String, &f64)| {
            let milliseconds = (cpu - before.0.get(name).copied().unwrap_or_default()) * 1_000.0 / f64::from(servers);
            (milliseconds >= 0.5).then(|| format!("{} {milliseconds:.0}", name.trim_start_matches("kube-")))
        };
        self.0.iter().filter_map(used).collect::<Vec<_>>().join(", ")
    }
}

/// What /proc/PID/stat tells, as proc(5) has it.
struct Stat {
    name: String,
    cpu: f64,
}

impl Stat {
    fn of(pid: &str) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (head, tail) = stat.rsplit_once(')').context("not a stat")?;
        let name = head.split_once('(').context("not a stat")?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
        Ok(Self { name, cpu: f64::from(ticks) / 100.0 })
    }
}

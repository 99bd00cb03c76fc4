//! The processes of the node, as this machine's /proc shows them: which pod they are of, what they run, and signals to them.

use std::{fs, path::PathBuf};

use crate::setup::run;

/// A process of this machine.
#[derive(Clone, Debug)]
pub struct Process {
    folder: PathBuf,
    pid: String,
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> &str {
        &self.pid
    }

    /// The file that it runs, as itself sees it. Nothing: it has ended.
    pub fn program(&self) -> PathBuf {
        fs::read_link(self.folder.join("exe")).unwrap_or_default()
    }

    /// Its command line. Nothing: it has ended.
    pub fn words(&self) -> Vec<String> {
        let line = fs::read_to_string(self.folder.join("cmdline")).unwrap_or_default();
        line.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Whether its control group has this in its path: the cluster's name, a pod's uid. Control groups may have uids with underscores.
    pub fn is_of(&self, group: &str) -> bool {
        fs::read_to_string(self.folder.join("cgroup")).is_ok_and(|path| path.replace('_', "-").contains(group))
    }

    /// Whether it has the network of this test, which is the node's.
    pub fn has_our_network(&self) -> bool {
        let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        network(&self.pid).is_some_and(|of_process| Some(of_process) == network("self"))
    }

    /// The files as it sees them.
    pub fn files(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        self.program().as_os_str().is_empty()
    }
}

/// Those of which this holds.
pub fn processes(holds: impl Fn(&Process) -> bool) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let Some(pid) = folder.file_name().and_then(|name| name.to_str()).filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let process = Process { pid: pid.to_owned(), folder: folder.clone() };
        if holds(&process) {
            found.push(process);
        }
    }
    Ok(found)
}

/// Those of a pod that run this program.
pub fn of_pod(uid: &str, program: &str) -> anyhow::Result<Vec<Process>> {
    processes(|process| process.program().ends_with(program) && process.is_of(uid))
}

/// Sends them a signal. All of them must be there.
pub fn send(processes: &[Process], signal: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!processes.is_empty(), "there is no process to be sent {signal}");
    let pids = processes.iter().map(Process::pid);
    run("kill", &["-s", signal].into_iter().chain(pids).collect::<Vec<_>>()).map(drop)
}

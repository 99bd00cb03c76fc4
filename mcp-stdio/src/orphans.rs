//! What children leave behind comes to us, as the first process (PID 1) of a container or as a subreaper: the dead are reaped, the living are
//! killed when the child that started them has ended. Only processes that are not children of our own are touched.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// The children that somebody waits for.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// How often the dead are looked for beside the kernel's word, which tells of several at once only once.
const LOOK: Duration = Duration::from_secs(5);

pub(crate) fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process whose parent has ended, and that is ours now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orphan {
    pid: Pid,
    dead: bool,
}

/// From now on what descendants leave behind comes to this process.
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Reaps what has died, for as long as it is polled.
pub async fn keep_reaping() -> io::Result<()> {
    let mut died = signal(SignalKind::child())?;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = died.recv() => {}
            _ = look.tick() => {}
        }
        reap();
    }
}

/// Reaps the dead.
pub fn reap() {
    for orphan in orphans().into_iter().filter(|orphan| orphan.dead) {
        // It may have been somebody else's to reap.
        let _ = waitpid(Some(orphan.pid), WaitOptions::NOHANG);
    }
}

/// Kills those whose environment has this entry (`NAME=value`), or all of them.
pub fn kill(mark: Option<&str>) {
    for orphan in orphans().into_iter().filter(|orphan| !orphan.dead) {
        if mark.is_none_or(|mark| has(orphan.pid, mark)) {
            let _ = kill_process(orphan.pid, Signal::KILL);
        }
    }
}

fn has(pid: Pid, mark: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
}

fn orphans() -> Vec<Orphan> {
    let own = own();
    let us = getpid().as_raw_pid();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| !own.contains(pid))
        .filter_map(|pid| {
            let (state, parent) = state_and_parent(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
            (parent == us).then_some(Orphan { pid: Pid::from_raw(pid)?, dead: state == 'Z' })
        })
        .collect()
}

/// Of a line of `/proc/PID/stat`. The name before them is in parentheses, and may hold any character.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_misleads_nobody() {
        assert_eq!(state_and_parent("12 (a) Z 99 (b)) S 34 5 6"), Some(('S', 34)));
        assert_eq!(state_and_parent("12"), None);
    }
}

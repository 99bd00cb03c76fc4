//! What children leave behind comes to us, as the first process (PID 1) of a container or as a subreaper: the dead are reaped, the living are
//! killed when the child that started them has ended, and all that they started with them.
//!
//! Whose an orphan is, a mark in its environment says, which whoever starts a process hands on as a rule. One without it may be any child's
//! that lived when it began: it is left alone for as long as one of these lives.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// The variable that marks what a child starts.
pub(crate) const MARK: &str = "MCPFLEET_CHILD";

/// The mark of a process of ours that starts nothing: no orphan can be its.
pub(crate) const NOBODYS: &str = "";

/// The children that somebody waits for, each with its mark.
type Own = BTreeMap<i32, String>;

static OWN: Mutex<Own> = Mutex::new(Own::new());

/// How often the dead are looked for beside the kernel's word, which tells of several at once only once.
const LOOK: Duration = Duration::from_secs(5);

/// Nobody who was stopped starts another one: more rounds than a few would be of a machine that stops nobody.
const ROUNDS: usize = 100;

pub(crate) fn own() -> MutexGuard<'static, Own> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    dead: bool,
    /// In ticks of the kernel's.
    began: u64,
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
    let (own, us) = (own(), getpid().as_raw_pid());
    let waited_for = |process: &Process| own.get(&process.pid).is_some_and(|mark| mark != NOBODYS);
    let orphans = processes().into_iter().filter(|process| process.parent == us && !waited_for(process));
    for pid in orphans.filter(|orphan| orphan.dead).filter_map(|orphan| Pid::from_raw(orphan.pid)) {
        // It may have been somebody else's to reap.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Kills what no living child can have started.
pub fn kill_left() {
    kill(|processes, us, own| left(processes, us, own, mark_of));
}

/// Kills every process that descends from this one.
pub fn kill_all() {
    kill(|processes, us, _| with_descendants(processes, |process| process.parent == us));
}

/// Kills what has a mark that begins like this, and what descends from it.
pub(crate) fn kill_marked(begin: &str) {
    let is_marked = |process: &Process| mark_of(process.pid).is_some_and(|mark| mark.starts_with(begin));
    kill(|processes, _, _| with_descendants(processes, is_marked));
}

/// Stops them until no more are found, and kills them then: what a process started comes to us when it dies, and would not be known any more;
/// and what it starts meanwhile would not be seen.
fn kill(who: impl Fn(&[Process], i32, &Own) -> BTreeSet<i32>) {
    let (own, us) = (own(), getpid().as_raw_pid());
    let mut stopped = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found = who(&processes(), us, &own);
        let more: Vec<_> = found.difference(&stopped).copied().collect();
        if more.is_empty() {
            break;
        }
        send(&more, Signal::STOP);
        stopped.extend(more);
    }
    send(&stopped, Signal::KILL);
}

fn send<'a>(to: impl IntoIterator<Item = &'a i32>, signal: Signal) {
    for pid in to.into_iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// The orphans that no living child can have started, and what descends from them.
fn left(processes: &[Process], us: i32, own: &Own, mark_of: impl Fn(i32) -> Option<String>) -> BTreeSet<i32> {
    let is_ours = |child: &Process| own.get(&child.pid).filter(|mark| *mark != NOBODYS);
    let children = || processes.iter().filter(|process| !process.dead).filter_map(|child| Some((child, is_ours(child)?)));
    let is_of_a_child = |orphan: &Process| match mark_of(orphan.pid) {
        Some(mark) => children().any(|(_, childs)| *childs == mark),
        None => children().any(|(child, _)| child.began <= orphan.began),
    };
    with_descendants(processes, |process| process.parent == us && !own.contains_key(&process.pid) && !is_of_a_child(process))
}

/// The living among these, and all that descend from them.
fn with_descendants(processes: &[Process], is_one: impl Fn(&Process) -> bool) -> BTreeSet<i32> {
    let living = || processes.iter().filter(|process| !process.dead);
    let mut found = BTreeSet::new();
    let mut next: Vec<i32> = living().filter(|process| is_one(process)).map(|process| process.pid).collect();
    while let Some(pid) = next.pop() {
        if found.insert(pid) {
            next.extend(living().filter(|process| process.parent == pid).map(|process| process.pid));
        }
    }
    found
}

fn mark_of(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut values = environment.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(MARK.as_bytes()));
    String::from_utf8(values.find_map(|value| value.strip_prefix(b"="))?.to_owned()).ok()
}

fn processes() -> Vec<Process> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            read(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        })
        .collect()
}

/// A line of `/proc/PID/stat`. The name before most of it is in parentheses, and may hold any character.
fn read(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    // The third and the fourth field of all; this is the 22nd.
    Some(Process { pid, parent, dead: state == "Z", began: fields.nth(17)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_misleads_nobody() {
        let stat = "12 (a) Z 99 (b)) S 34 5 6 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 777 0";
        assert_eq!(read(12, stat), Some(Process { pid: 12, parent: 34, dead: false, began: 777 }));
        assert_eq!(read(12, "12"), None);
    }

    const US: i32 = 1;

    /// Each its number, its parent, when it began and its mark; the children are 10 and 20, as far as they live.
    fn left_of(processes: &[(i32, i32, u64, &str)]) -> Vec<i32> {
        let own = Own::from([(10, "ten".to_owned()), (20, "twenty".to_owned())]);
        let mark = |pid| {
            let (.., mark) = processes.iter().find(|(number, ..)| *number == pid)?;
            (!mark.is_empty()).then(|| (*mark).to_owned())
        };
        let processes: Vec<_> = processes
            .iter()
            .map(|(pid, parent, began, _)| Process { pid: *pid, parent: *parent, dead: false, began: *began })
            .collect();
        left(&processes, US, &own, mark).into_iter().collect()
    }

    #[test]
    fn what_a_dead_child_started_is_left_and_what_that_started_too() {
        let twenty = [(20, US, 5, ""), (21, 20, 6, ""), (22, US, 6, "twenty"), (23, 22, 7, "")];
        let of_ten = [(11, US, 3, "ten"), (12, 11, 6, ""), (13, 12, 6, "twenty")];
        assert_eq!(left_of(&[&twenty[..], &of_ten[..]].concat()), [11, 12, 13]);
        assert_eq!(left_of(&[&twenty[..], &of_ten[..], &[(10, US, 2, "")]].concat()), [0; 0], "their child lives");
        assert_eq!(left_of(&[(11, US, 3, "of a bridge below us, which is dead")]), [11]);
    }

    #[test]
    fn an_orphan_that_lost_its_mark_is_left_when_no_child_lives_that_it_may_be_of() {
        let lost = [(11, US, 3, ""), (12, 11, 4, "")];
        assert_eq!(left_of(&lost), [11, 12]);
        assert_eq!(left_of(&[&lost[..], &[(20, US, 5, "")]].concat()), [11, 12], "it began before this one");
        assert_eq!(left_of(&[&lost[..], &[(20, US, 2, "")]].concat()), [0; 0]);
    }
}

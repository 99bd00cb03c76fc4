//! A child as the leader of a process group: `npx` starts a shell, which starts node; a signal to the first alone would leave the others.

use std::io;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::exit::Exit;
use crate::orphans::{self, MARK};

/// A child with its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// Where it listens.
    pub stdin: ChildStdin,
    /// Where it speaks.
    pub stdout: ChildStdout,
    /// Where it complains.
    pub stderr: ChildStderr,
    /// The process, and what it starts.
    pub group: Group,
}

/// Tells the children of this process apart.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Starts the program as the leader of a process group of its own, with all three pipes.
pub fn spawn(mut command: Command) -> io::Result<Spawned> {
    let mark = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    command.env(MARK, &mark).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Whoever looks for orphans meanwhile must not take it for one.
    let mut own = orphans::own();
    let mut child = command.spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (Some(id), Some(stdin), Some(stdout), Some(stderr)) = (id, child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a child without its pipes"));
    };
    own.insert(id.as_raw_pid(), mark);
    Ok(Spawned { stdin, stdout, stderr, group: Group { child: Some(child), id } })
}

/// How much of what was written to a pipe nobody has read, and nobody ever will. None: somebody may still read it, or it is not known.
pub fn unread(stdin: &ChildStdin) -> Option<u64> {
    let mut pipe = [PollFd::new(stdin, PollFlags::empty())];
    // The writer's end is in error when the last reader is gone.
    poll(&mut pipe, Some(&Timespec::default())).ok()?;
    pipe[0].revents().contains(PollFlags::ERR).then(|| ioctl_fionread(stdin).ok()).flatten()
}

/// A child and what it started, unless that left the group. Dropping it kills them.
#[derive(Debug)]
pub struct Group {
    child: Option<Child>,
    id: Pid,
}

impl Group {
    /// The process id of the child, and of its group.
    pub fn id(&self) -> i32 {
        self.id.as_raw_pid()
    }

    /// Waits until the child itself has ended. May be dropped and asked again.
    pub async fn wait(&mut self) -> Exit {
        let Some(child) = &mut self.child else { return Exit { code: None, signal: None } };
        child.wait().await.map_or(Exit { code: None, signal: None }, Exit::from)
    }

    /// SIGKILL to all of them.
    pub fn kill(&self) {
        signal(self.id, Signal::KILL);
    }

    /// As the protocol asks, once standard input is closed: so long to end by itself, SIGTERM, so long again, SIGKILL.
    pub async fn end(mut self, patience: Duration) -> Exit {
        let mut ended = timeout(patience, self.wait()).await;
        if ended.is_err() {
            signal(self.id, Signal::TERM);
            ended = timeout(patience, self.wait()).await;
            // Also those that the child has left behind.
            self.kill();
        }
        let exit = if let Ok(exit) = ended { exit } else { self.wait().await };
        self.finish();
        exit
    }

    /// Nobody of the group outlives its leader, and its number may be another's from now on.
    fn finish(&mut self) {
        self.kill();
        self.child = None;
        orphans::own().remove(&self.id());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.kill();
        let id = self.id();
        // Without being waited for, it would stay a zombie. Without a runtime, the process ends too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // It is gone however this ends.
                let _ = child.wait().await;
                orphans::own().remove(&id);
            });
        }
    }
}

fn signal(group: Pid, signal: Signal) {
    // Nobody is left in it: that is what was wanted.
    let _ = kill_process_group(group, signal);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;

    fn shell(script: &str) -> Spawned {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        spawn(command).unwrap()
    }

    fn alive(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn a_child_that_ends_when_its_input_closes_is_not_hurt() {
        let Spawned { stdin, group, .. } = shell("cat; exit 7");
        drop(stdin);
        assert_eq!(group.end(Duration::from_secs(5)).await, Exit { code: Some(7), signal: None });
    }

    #[tokio::test]
    async fn a_child_that_hears_nothing_is_killed_with_its_grandchild() {
        let Spawned { stdin, stdout, group, .. } = shell("trap '' TERM; sleep 1000 & echo $!; wait; wait");
        let grandchild = BufReader::new(stdout).lines().next_line().await.unwrap().unwrap();
        assert!(alive(&grandchild));
        drop(stdin);
        let exit = group.end(Duration::from_millis(50)).await;
        assert_eq!(exit.to_string(), "killed by SIGKILL");
        while alive(&grandchild) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_a_dead_child_has_not_read_is_known() {
        use tokio::io::AsyncWriteExt as _;

        let Spawned { mut stdin, stdout, mut group, .. } = shell("head -c 6 >/dev/null; echo read; exec sleep 1000");
        stdin.write_all(b"123456").await.unwrap();
        BufReader::new(stdout).lines().next_line().await.unwrap();
        assert_eq!(unread(&stdin), None, "it may still be read");
        stdin.write_all(b"78").await.unwrap();
        group.kill();
        group.wait().await;
        assert_eq!(unread(&stdin), Some(2));
    }

    #[tokio::test]
    async fn what_a_dead_child_leaves_in_its_group_is_killed() {
        let Spawned { stdout, group, .. } = shell("sleep 1000 >/dev/null 2>&1 & echo $!");
        let grandchild = BufReader::new(stdout).lines().next_line().await.unwrap().unwrap();
        assert_eq!(group.end(Duration::from_secs(5)).await.code, Some(0));
        while alive(&grandchild) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

//! Servers of other makers as processes: started, stopped, continued and killed, with all that they started themselves.

use std::{
    collections::HashMap,
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running server; it ends with this.
pub struct Process {
    pub addr: SocketAddr,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in self.descendants() {
            signal(pid, "KILL");
        }
        signal(self.child.id(), "KILL");
        let _gone = self.child.wait();
    }
}

impl Process {
    /// Starts a command in which `PORT` stands for a free port, and waits until it listens.
    pub async fn start(command: &[String], env: &[(&str, &str)], log: &Path) -> Self {
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let port = addr.port().to_string();
        let mut words = command.iter().map(|word| word.replace("PORT", &port));
        let file = fs::File::create(log).expect("a log");
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .envs(env.iter().map(|(name, value)| (*name, value.replace("PORT", &port))))
            .current_dir(log.parent().expect("a folder"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .expect("it starts");
        let mut process = Self { addr, child };
        let listens = async {
            while tokio::net::TcpStream::connect(addr).await.is_err() {
                let ended = process.child.try_wait().expect("a child");
                assert!(ended.is_none(), "it ended: {}", fs::read_to_string(log).unwrap_or_default());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), listens).await.expect("it listens");
        process
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Sends a signal to what it started.
    pub fn signal_children(&self, name: &str) {
        for pid in self.descendants() {
            signal(pid, name);
        }
    }

    /// What it started, and what that started.
    pub fn descendants(&self) -> Vec<u32> {
        let parents = parents();
        let is_below = |mut pid: u32| {
            while let Some(parent) = parents.get(&pid) {
                if *parent == self.child.id() {
                    return true;
                }
                pid = *parent;
            }
            false
        };
        parents.keys().copied().filter(|pid| is_below(*pid)).collect()
    }
}

fn signal(pid: u32, name: &str) {
    // Who is gone already needs none.
    let _gone = Command::new("kill").args([&format!("-{name}"), "--", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// The parent of every process but those that are dead and not yet buried.
fn parents() -> HashMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?;
            let parent = fields.next()?.parse().ok()?;
            (state != "Z").then_some((pid, parent))
        })
        .collect()
}

//! A small process that outlives this one, to end what it started: whoever is killed by SIGKILL ends nothing any more, and a child that does
//! not mind the end of its input would stay. The first process (PID 1) of a container needs none: the kernel ends all of them with it.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::getpid;

use crate::orphans;

/// The guard of this process, for as long as it lives: what the guard reads ends with it.
#[derive(Debug)]
pub struct Guard(Child);

/// Starts this very program once more, with this word and the number of this process as arguments: it is to call `watch`.
/// None: there is no need of one.
pub fn start(word: &str) -> io::Result<Option<Guard>> {
    let us = getpid();
    if us.is_init() {
        return Ok(None);
    }
    let mut command = Command::new("/proc/self/exe");
    // In a group of its own: what is said to this process by a terminal is not said to it. And it is to know none of our secrets, which
    // children could read of it.
    command.args([word, &us.to_string()]).env_clear().process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Whoever looks for orphans meanwhile must not take it for one.
    let mut own = orphans::own();
    let child = command.spawn()?;
    own.insert(child.id().try_into().map_err(io::Error::other)?, orphans::NOBODYS.to_owned());
    Ok(Some(Guard(child)))
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing is left to be ended, and a zombie would be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Until the process with this number has ended; then what its children are and started ends, too.
pub fn watch(process: u32) {
    // However that ends, nobody is there any more.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    orphans::kill_marked(&format!("{process}-"));
}

//! The threads that own a connection.

use std::thread::{Builder, JoinHandle};

use super::limits::STACK_BYTES;

/// Starts a thread. A panic in it ends the process: without its thread the database is not served, and whoever runs the process starts it anew.
pub fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        let _end = EndsWithPanic;
        work();
    })
}

struct EndsWithPanic;

impl Drop for EndsWithPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(thread = std::thread::current().name(), "a thread of the database panicked: the process ends");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    /// Not a test of its own: the other one runs it in a process of its own.
    #[test]
    #[ignore = "it ends the process"]
    fn panics() {
        let thread = super::spawn("doomed".into(), || panic!("as a bug would")).unwrap();
        // Never returns: a process that goes on would pass, and the other test find it out.
        let _ = thread.join();
    }

    #[test]
    fn a_panic_in_a_thread_of_the_database_ends_the_process() {
        let test = concat!(module_path!(), "::panics").split_once("::").unwrap().1;
        let output =
            Command::new(std::env::current_exe().unwrap()).args(["--exact", "--ignored", "--nocapture", test]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("as a bug would"), "{said}");
        assert_eq!(output.status.signal(), Some(6), "{said}");
    }
}

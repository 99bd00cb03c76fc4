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
